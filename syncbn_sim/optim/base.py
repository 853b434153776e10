"""What the optimisers share."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ArgumentError
from ..nn.module import Parameter


class Optimizer:
    """Changes parameters by their gradients; state is kept a parameter, in the parameter's dtype.

    Attributes:
        lr: the learning rate; assign to it, or let a schedule do so.
        steps: number of steps taken.
    """

    def __init__(self, parameters: Sequence[Parameter], lr: float) -> None:
        if not lr > 0:
            raise ArgumentError("lr", got=lr, expected="a number above 0", do="1e-3 is a usual start for Adam, 1e-1 for SGD.")
        self.parameters = list(parameters)
        self.lr = lr
        self.steps = 0

    def step(self) -> None:
        """Moves every parameter that has a gradient, then forgets the gradients."""
        self.steps += 1
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self.update(index, parameter)
                parameter.grad = None

    def update(self, index: int, parameter: Parameter) -> None:
        """Moves one parameter."""
        raise NotImplementedError
