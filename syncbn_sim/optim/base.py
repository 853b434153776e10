"""What the optimisers share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError
from ..nn.module import Parameter


class Optimizer:
    """Changes parameters by their gradients. All parameters are one flat vector to `update`: a dozen NumPy calls a step, not a dozen each.

    Attributes:
        lr: the learning rate; assign to it, or let a schedule do so.
        steps: number of steps taken.
    """

    def __init__(self, parameters: Sequence[Parameter], lr: float) -> None:
        if not lr > 0:
            raise ArgumentError(
                "lr", got=lr, expected="a number above 0", do="1e-3 is a usual start for Adam, 1e-1 for SGD."
            )
        self.parameters = list(parameters)
        if not self.parameters:
            raise ArgumentError(
                "parameters", got="none", expected="at least one Parameter", do="Pass model.parameters()."
            )
        self.lr = lr
        self.steps = 0

    def step(self) -> None:
        """Moves every parameter, then forgets the gradients. A parameter without one counts as having gradient 0."""
        self.steps += 1
        value = np.concatenate([p.data.ravel() for p in self.parameters])
        gradient = np.concatenate(
            [np.zeros(p.data.size, p.data.dtype) if p.grad is None else p.grad.ravel() for p in self.parameters]
        )
        value = self.update(value, gradient)
        start = 0
        for p in self.parameters:
            p.data = value[start : start + p.data.size].reshape(p.data.shape).astype(p.data.dtype, copy=False)
            p.grad = None
            start += p.data.size

    def zeros(self) -> Array:
        """A zero for each parameter, as one vector."""
        return np.concatenate([np.zeros_like(p.data).ravel() for p in self.parameters])

    def update(self, value: Array, gradient: Array) -> Array:
        """Returns the new values of all parameters, from the old ones and their gradients."""
        raise NotImplementedError
