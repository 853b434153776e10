"""Adam."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class Adam(Optimizer):
    """p = p - lr m_hat / (sqrt(v_hat) + eps), m and v exponential averages of g and g^2, debiased. Kingma & Ba (2015), algorithm 1."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._m, self._v = self.zeros(), self.zeros()

    def update(self, value: Array, gradient: Array) -> Array:
        """One step."""
        b1, b2 = self.betas
        gradient = gradient + self.weight_decay * value
        self._m = b1 * self._m + (1 - b1) * gradient
        self._v = b2 * self._v + (1 - b2) * gradient * gradient
        m_hat, v_hat = self._m / (1 - b1**self.steps), self._v / (1 - b2**self.steps)
        return value - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)
