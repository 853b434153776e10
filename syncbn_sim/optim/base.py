"""What the optimisers share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, ShapeError
from ..nn.module import Parameter


class Optimizer:
    """Changes parameters by their gradients.

    All parameters are one flat vector to `update`: a dozen NumPy calls per step, not per parameter.
    From the first step on each `Parameter.data` is a view of that vector, which changes in place. Whoever assigns another array
    to it finds it copied in at the next step.

    Attributes:
        lr: the learning rate, 0 or above; assign to it, or let a schedule do so.
        steps: number of steps taken.
    """

    def __init__(self, parameters: Sequence[Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            do = "Pass model.parameters()."
            raise ArgumentError("parameters", got="none", expected="at least one Parameter", do=do)
        self.lr = lr
        self.steps = 0
        self._value, self._gradient = self.zeros(), self.zeros()
        self._packed = np.zeros(self._value.size)
        self._views = self._split()

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if not 0 <= lr < math.inf:
            do = "1e-3 is a usual start for Adam, 1e-1 for SGD; 0 moves nothing. A schedule returns a factor of it."
            raise ArgumentError("lr", got=lr, expected="a finite number, 0 or above", do=do)
        self._lr = lr

    def pack_gradients(self, *extra: float) -> Array:
        """This rank's gradients one after the other, then `extra`, as float64, in a buffer that the next call fills anew.

        A parameter without a gradient counts as having gradient 0.
        """
        if self._packed.size != self._value.size + len(extra):
            self._packed = np.zeros(self._value.size + len(extra))
        parts = [np.zeros(p.data.size) if p.grad is None else p.grad.ravel() for p in self.parameters]
        return np.concatenate([*parts, extra], out=self._packed)

    def step(self, gradient: Array | None = None) -> None:
        """Moves every parameter, then forgets the gradients.

        Args:
            gradient: of all parameters, flat, in their order; default: the parameters' own.

        Raises:
            ShapeError: a gradient of another shape.
        """
        # A number would be spread over all of them.
        if gradient is not None and np.shape(gradient) != self._value.shape:
            got, expected = f"shape {np.shape(gradient)}", f"{self._value.shape}, a number for each weight"
            do = "adjust= returns the gradient it was told, changed: not the factor by which."
            raise ShapeError("gradient", got=got, expected=expected, do=do)
        self.steps += 1
        self._adopt()
        self._gradient[...] = self.pack_gradients() if gradient is None else gradient
        self.update(self._value, self._gradient)
        for p, view in zip(self.parameters, self._views, strict=True):
            if p.data is not view:  # of another dtype than the vector
                p.data[...] = view
            p.grad = None

    def _adopt(self) -> None:
        """Copies in what is not a view of the flat vector, and makes it one."""
        # We are a deep copy, and NumPy has copied each view by itself.
        if self._views[0].base is not self._value:
            self._views = self._split()
        for p, view in zip(self.parameters, self._views, strict=True):
            if p.data is not view:
                view[...] = p.data
                p.data = view if p.data.dtype == view.dtype else p.data.copy()

    def _split(self) -> list[Array]:
        """The flat vector as views in the parameters' shapes."""
        pieces = np.split(self._value, np.cumsum([p.data.size for p in self.parameters])[:-1])
        return [piece.reshape(p.data.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    def zeros(self) -> Array:
        """A zero for each parameter, as one vector."""
        return np.concatenate([np.zeros_like(p.data).ravel() for p in self.parameters])

    def update(self, value: Array, gradient: Array) -> None:
        """Changes the values of all parameters, in place, by their gradients, which it may spoil."""
        raise NotImplementedError
