"""Adam."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class Adam(Optimizer):
    """p = p - lr m_hat / (sqrt(v_hat) + eps), m and v exponential averages of g and g^2, debiased. Kingma & Ba (2015), algorithm 1."""

    def __init__(self, parameters: Sequence[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._m: list[Array] = [np.zeros_like(p.data) for p in self.parameters]
        self._v: list[Array] = [np.zeros_like(p.data) for p in self.parameters]

    def update(self, index: int, parameter: Parameter) -> None:
        """One step of one parameter."""
        assert parameter.grad is not None
        b1, b2 = self.betas
        gradient = parameter.grad + self.weight_decay * parameter.data if self.weight_decay else parameter.grad
        self._m[index] = m = b1 * self._m[index] + (1 - b1) * gradient
        self._v[index] = v = b2 * self._v[index] + (1 - b2) * gradient * gradient
        m_scale, v_scale = 1 - b1**self.steps, 1 - b2**self.steps
        parameter.data = parameter.data - (self.lr / m_scale) * m / (np.sqrt(v / v_scale) + self.eps)
