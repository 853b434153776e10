"""Adam."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..nn.module import Parameter
from .base import Optimizer


class Adam(Optimizer):
    """Updates p = p - lr m_hat / (sqrt(v_hat) + eps), m and v exponential averages of g and g^2, debiased.

    Source: Kingma & Ba (2015), algorithm 1.
    """

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
        self._m, self._v, self._scratch = self.zeros(), self.zeros(), self.zeros()

    def update(self, value: Array, gradient: Array) -> None:
        """One step, without a new array: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, both then debiased."""
        (b1, b2), m, v, scratch = self.betas, self._m, self._v, self._scratch
        if self.weight_decay:
            gradient += np.multiply(value, self.weight_decay, out=scratch)
        m *= b1
        m += np.multiply(gradient, 1 - b1, out=scratch)
        v *= b2
        gradient *= gradient
        v += np.multiply(gradient, 1 - b2, out=scratch)
        root = np.sqrt(np.divide(v, 1 - b2**self.steps, out=scratch), out=scratch)
        root += self.eps
        change = np.divide(m, root, out=scratch)
        value -= np.multiply(change, self.lr / (1 - b1**self.steps), out=scratch)
