"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class SGD(Optimizer):
    """v = momentum v + (g + weight_decay p);  p = p - lr v. PyTorch's form (no dampening)."""

    def __init__(
        self, parameters: Sequence[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay = momentum, weight_decay
        self._velocity = self.zeros()

    def update(self, value: Array, gradient: Array) -> Array:
        """One step."""
        self._velocity = self.momentum * self._velocity + (gradient + self.weight_decay * value)
        return value - self.lr * self._velocity
