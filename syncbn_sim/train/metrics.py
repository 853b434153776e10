"""Metrics of all ranks together: each takes this rank's rows and returns the same number everywhere.

Outputs and labels are checked as the losses check them; labels of two classes must be 0 and 1. Outputs need not be finite: a
net that has diverged has metrics too.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, as_array, as_float_array
from ..comm.base import Communicator
from ..errors import ArgumentError, CountError
from ..functional.losses import binary_cross_entropy_with_logits
from ..nn.losses import check_classes, check_numbers


def accuracy(logits: Array, labels: Array, comm: Communicator) -> float:
    """Share of rows whose largest logit is the label's (never where a logit is not finite). Talks: one all-reduce of 2 float64.

    Args:
        logits: (N, K).
        labels: (N,) integers in 0..K-1.
        comm: the ranks.

    Raises:
        CountError: no rank has a row.
    """
    logits, labels = as_float_array(logits, "logits"), as_array(labels, "labels")
    if logits.size or labels.size:  # a rank without rows need not know what its rows would be
        check_classes("accuracy", logits, labels)
    right = (logits.argmax(axis=1) == labels) & np.isfinite(logits).all(axis=1) if len(labels) else np.zeros(0)
    return _ratio(comm.holders.allreduce(np.array([right.sum(), len(labels)], np.float64)), "accuracy")


def log_loss(logits: Array, labels: Array, comm: Communicator) -> float:
    """Mean binary cross-entropy in nats of logits (N,) or (N, 1), labels (N,) 0 or 1. Talks: one all-reduce of 2 float64."""
    logits, labels = _two_classes("log loss", logits, labels)
    losses, _ = binary_cross_entropy_with_logits(logits, labels)
    return _ratio(comm.holders.allreduce(np.array([losses.sum(), float(len(labels))])), "log loss")


def normalised_entropy(logits: Array, labels: Array, comm: Communicator) -> float:
    """Log loss / entropy of the base rate: 1 = no better than always saying the average. He et al. (2014), equation 1.

    Talks: two all-reduces of 2 float64.
    """
    logits, labels = _two_classes("normalised entropy", logits, labels)
    rate = _ratio(
        comm.holders.allreduce(np.array([labels.sum(dtype=np.float64), float(len(labels))])), "normalised entropy"
    )
    if not 0 < rate < 1:
        raise CountError(
            "normalised entropy",
            got=f"a base rate of {rate:g}",
            expected="rows of both classes",
            do="Evaluate on more rows.",
        )
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return log_loss(logits, labels, comm) / float(entropy)


def auc(scores: Array, labels: Array, comm: Communicator) -> float:
    """Probability that a random positive row scores above a random negative one, ties counting half: exact over all ranks.

    Ranks of the pooled scores (Mann & Whitney 1947): AUC = (sum of the positives' mid-ranks - P (P + 1) / 2) / (P N).
    An average of the ranks' own AUCs would be something else. Talks: one all-gather of this rank's rows, one
    broadcast.

    Raises:
        CountError: one of the classes is missing.
    """
    scores, labels = _two_classes("AUC", scores, labels)
    comm = comm.holders
    pooled = np.concatenate(comm.allgather(np.stack([scores, labels], axis=1).astype(np.float64)))
    # The sort is the expensive part; where ranks share cores, R copies of it would take R times as long.
    positives, rows = float((pooled[:, 1] > 0.5).sum()), len(pooled)
    if not 0 < positives < rows:
        raise CountError(
            "AUC", got=f"{positives:g} positive of {rows} rows", expected="both classes", do="Evaluate on more rows."
        )
    return float(comm.bcast(np.array(_pooled_auc(*pooled.T) if comm.rank == 0 else 0.0)))


def _pooled_auc(scores: Array, labels: Array) -> float:
    if np.isnan(scores).any():
        return float("nan")  # a net that has diverged ranks nothing
    positive = labels > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(ties) - (ties - 1) / 2.0
    return float((mid_rank[place][positive].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def r_squared(predictions: Array, labels: Array, comm: Communicator) -> float:
    """Computes 1 - sum (y - z)^2 / sum (y - mean(y))^2 over all ranks; z (N,) or (N, 1), y (N,).

    Talks: one all-reduce of a mean's 2, one of 2 float64.

    Raises:
        CountError: no rank has a row, or all labels are equal.
    """
    predictions, labels = as_float_array(predictions, "predictions"), as_array(labels, "labels")
    if predictions.size or labels.size:
        check_numbers("R^2", predictions, labels)
    predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    mean = _ratio(comm.holders.allreduce(np.array([labels.sum(), float(len(labels))])), "R^2")
    residual, spread = ((labels - predictions.reshape(-1)) ** 2).sum(), ((labels - mean) ** 2).sum()
    residual, spread = comm.holders.allreduce(np.array([residual, spread], np.float64))
    if spread == 0:
        raise CountError(
            "R^2", got="equal labels in all rows", expected="labels that differ", do="Evaluate on more rows."
        )
    return float(1.0 - residual / spread)


def _two_classes(subject: str, outputs: Array, labels: Array) -> tuple[Array, Array]:
    """Outputs (N,) or (N, 1) and labels (N,) in {0, 1}, both as (N,)."""
    outputs, labels = as_float_array(outputs, "outputs"), as_array(labels, "labels")
    if outputs.size or labels.size:
        check_numbers(subject, outputs, labels)
    wrong = labels[(labels != 0) & (labels != 1)]
    if wrong.size:
        raise ArgumentError(
            f"labels of {subject}",
            got=f"{wrong.size} that are neither 0 nor 1, the first {wrong[0]}",
            expected="0 and 1",
            do="Code the classes as 0 and 1.",
        )
    return outputs.reshape(-1), labels.reshape(-1)


def _ratio(sums: Array, name: str) -> float:
    if sums[1] == 0:
        raise CountError(name, got="no rows on any rank", expected="at least one row", do="Pass the test rows.")
    return float(sums[0] / sums[1])
