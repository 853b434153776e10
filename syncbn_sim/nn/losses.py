"""Losses as objects: they return a sum and a count, so that ranks add up to one global loss."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..arrays import Array, as_array, as_float_array, position_weights
from ..errors import ArgumentError, ContextError, DtypeError, ShapeError
from ..functional.losses import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
    squared_error,
    squared_error_backward,
)


class Loss:
    """Base of the losses: sum_i w_i loss_i and sum_i w_i over this rank's rows, and the gradient of that sum.

    There is no mean in here: whoever knows the count over all ranks divides, once.
    """

    def __init__(self) -> None:
        self._context: tuple[Array, Array, Array | None, np.dtype[np.floating]] | None = None

    def __call__(self, logits: Array, labels: Array, weights: object | None = None) -> tuple[float, float]:
        """Returns the sum of the weighted losses and the count (sum of weights, or number of rows).

        Args:
            logits: floats, (N, K) or (N,).
            labels: (N,).
            weights: (N,) frequency weights; rows of weight 0 are never read.
        """
        logits, labels = as_float_array(logits, "logits"), as_array(labels, "labels").copy()
        w = None if weights is None else position_weights(weights, logits.shape[:1])
        if w is not None:
            logits = np.where((w > 0).reshape(-1, *[1] * (logits.ndim - 1)), logits, 0)
            if labels.shape == w.shape:
                labels = np.where(w > 0, labels, np.zeros((), labels.dtype))
        self.check(logits, labels)
        losses, probabilities = self.values(logits, labels)
        self._context = (probabilities, labels, w, logits.dtype)
        return (float(losses.sum()), float(len(losses))) if w is None else (float((w * losses).sum()), float(w.sum()))

    def backward(self) -> Array:
        """Returns d(sum of losses) / d logits for the latest call.

        Raises:
            ContextError: there was no call.
        """
        if self._context is None:
            subject, got = f"{type(self).__name__}.backward", "no loss to go back through"
            raise ContextError(subject, got=got, expected="one call for each backward", do="Call the loss first.")
        (probabilities, labels, w, dtype), self._context = self._context, None
        gradient = self.gradients(probabilities, labels)
        if w is not None:
            gradient = gradient * w.reshape(-1, *[1] * (gradient.ndim - 1))
        return gradient.astype(dtype)

    def check(self, logits: Array, labels: Array) -> None:
        """Refuses logits and labels that do not fit."""
        raise NotImplementedError

    def values(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Losses of the rows, and the predicted probabilities."""
        raise NotImplementedError

    def gradients(self, probabilities: Array, labels: Array) -> Array:
        """Computes d loss_i / d logits_i."""
        raise NotImplementedError


def check_classes(subject: str, logits: Array, labels: Array) -> None:
    """Makes sure of logits (N, K) and integer labels (N,) in 0..K-1.

    Raises:
        ShapeError: wrong shapes, or a label outside.
        DtypeError: labels that are no integers.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        shapes = f"logits {logits.shape}, labels {labels.shape}"
        raise ShapeError(subject, got=shapes, expected="(N, K) and (N,)", do="One label per row.")
    if labels.dtype.kind not in "iu":
        do = "Convert them first: labels.astype(np.int64)."
        raise DtypeError("labels", got=f"dtype {labels.dtype}", expected="integers", do=do)
    _check_reach(labels, logits.shape[1] - 1, "Number the classes from 0, or widen the last layer.")


def _check_reach(labels: Array, most: int, do: str) -> None:
    """Refuses labels below 0 or above `most`."""
    if labels.size and not (labels.min() >= 0 and labels.max() <= most):
        reach = f"values from {labels.min()} to {labels.max()}"
        raise ShapeError("labels", got=reach, expected=f"0 to {most}", do=do)


def check_numbers(subject: str, outputs: Array, labels: Array) -> None:
    """Makes sure of outputs (N,) or (N, 1) and finite numbers (N,) as labels.

    Raises:
        ShapeError: wrong shapes.
        DtypeError: labels that are no numbers.
        ArgumentError: a label that is not finite.
    """
    if labels.ndim != 1 or outputs.shape not in (labels.shape, (*labels.shape, 1)):
        shapes, expected = f"outputs {outputs.shape}, labels {labels.shape}", "(N,) or (N, 1), and (N,)"
        raise ShapeError(subject, got=shapes, expected=expected, do="One label per row, and one output.")
    if labels.dtype.kind not in "fiub":
        raise DtypeError("labels", got=f"dtype {labels.dtype}", expected="numbers", do="Pass floats or integers.")
    if not np.isfinite(labels).all():
        got = f"{np.count_nonzero(~np.isfinite(labels))} that are NaN or infinite"
        do = "Leave those rows out, or give them weight 0 in the loss."
        raise ArgumentError("labels", got=got, expected="finite numbers", do=do)


def check_probabilities(subject: str, outputs: Array, labels: Array) -> None:
    """Refuses what `check_numbers` refuses, and labels outside [0, 1].

    Raises: what `check_numbers` raises, and ShapeError for a label outside.
    """
    check_numbers(subject, outputs, labels)
    _check_reach(labels, 1, "Code the classes as 0 and 1.")


class CrossEntropyLoss(Loss):
    """Softmax cross-entropy: logits (N, K), integer labels (N,) in 0..K-1."""

    check = staticmethod(partial(check_classes, "cross-entropy"))
    values = staticmethod(softmax_cross_entropy)
    gradients = staticmethod(softmax_cross_entropy_backward)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy on logits: logits (N,) or (N, 1), labels (N,) in [0, 1]."""

    check = staticmethod(partial(check_probabilities, "binary cross-entropy"))

    def values(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Losses and probabilities; the latter keep the logits' shape."""
        losses, probabilities = binary_cross_entropy_with_logits(logits.reshape(-1), labels)
        return losses, probabilities.reshape(logits.shape)

    def gradients(self, probabilities: Array, labels: Array) -> Array:
        """Computes p - y in the logits' shape."""
        return binary_cross_entropy_with_logits_backward(probabilities, labels.reshape(probabilities.shape))


class MSELoss(Loss):
    """Squared error: predictions (N,) or (N, 1), finite labels (N,)."""

    check = staticmethod(partial(check_numbers, "squared error"))

    def values(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Losses, and a copy of the predictions, which is all that the gradient needs."""
        return squared_error(logits.reshape(-1), labels), logits.copy()

    def gradients(self, probabilities: Array, labels: Array) -> Array:
        """Computes 2 (z - y) in the predictions' shape."""
        return squared_error_backward(probabilities, labels.reshape(probabilities.shape))
