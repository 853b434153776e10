"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class SGD(Optimizer):
    """v = momentum v + (g + weight_decay p);  p = p - lr v. PyTorch's form (no dampening)."""

    def __init__(self, parameters: Sequence[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay = momentum, weight_decay
        self._velocity: list[Array] = [np.zeros_like(p.data) for p in self.parameters]

    def update(self, index: int, parameter: Parameter) -> None:
        """One step of one parameter."""
        assert parameter.grad is not None
        gradient = parameter.grad + self.weight_decay * parameter.data
        self._velocity[index] = self.momentum * self._velocity[index] + gradient
        parameter.data = parameter.data - self.lr * self._velocity[index]
