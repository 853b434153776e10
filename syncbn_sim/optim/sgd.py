"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class SGD(Optimizer):
    """Updates v = momentum v + (g + weight_decay p);  p = p - lr v. PyTorch's form (no dampening)."""

    def __init__(
        self, parameters: Sequence[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay = momentum, weight_decay
        self._velocity, self._scratch = self.zeros(), self.zeros()

    def update(self, value: Array, gradient: Array) -> None:
        """One step."""
        if self.weight_decay:
            gradient += np.multiply(value, self.weight_decay, out=self._scratch)
        self._velocity *= self.momentum
        self._velocity += gradient
        value -= np.multiply(self._velocity, self.lr, out=self._scratch)
