"""Evaluation: which running statistics a model is judged with, and its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..comm.stretches import stretched
from ..nn.batch_norm import BatchNorm
from ..nn.contexts import no_backward
from ..nn.instance_norm import InstanceNorm
from ..nn.module import Module

M = TypeVar("M", bound=Module)


def with_averaged_statistics(model: M, comm: Communicator, rows_seen: float | Sequence[float]) -> M:
    """A copy whose running statistics are the ranks' own, averaged by the rows each rank has trained on.

    Layers with local statistics drift apart from rank to rank, so a data-parallel model is not one model until they are
    joined. (The average of the ranks' variances is what such a model was trained with; the pooled variance is not.)

    Args:
        model: whose copy it is. Where ranks are stacked in one array it has a row of statistics for each of them, and the copy one.
        comm: the ranks.
        rows_seen: by this rank; by all of `comm.ranks` each, or by each of them.

    Talks: one all-reduce of 2 C + 1 float64 per layer.
    """
    copy = deepcopy(model)
    seen = np.broadcast_to(np.asarray(rows_seen, np.float64), len(comm.ranks))
    for layer in copy.modules():
        if (
            isinstance(layer, BatchNorm | InstanceNorm)
            and layer.running_mean is not None
            and layer.running_var is not None
        ):
            own = np.atleast_2d(np.concatenate([layer.running_mean, layer.running_var], axis=-1, dtype=np.float64))
            weights = _weights(layer, len(own), seen)
            total = comm.holders.allreduce(np.append(weights @ own, weights.sum()))
            _keep_first(layer)
            if total[-1] == 0:  # nobody has trained: all still hold the initial ones
                continue
            mean, var = np.split(total[:-1] / total[-1], 2)
            layer.running_mean, layer.running_var = (
                mean.astype(layer.running_mean.dtype),
                var.astype(layer.running_var.dtype),
            )
    return copy


def with_statistics_of_rank_0(model: M, comm: Communicator) -> M:
    """A copy with rank 0's running statistics on every rank: what a checkpoint of PyTorch's DistributedDataParallel holds.

    Talks: two broadcasts per layer.
    """
    copy, holders = deepcopy(model), comm.holders
    for layer in copy.modules():
        if isinstance(layer, BatchNorm | InstanceNorm) and layer.running_mean is not None:
            _keep_first(layer)
            layer.running_mean, layer.running_var = holders.bcast(layer.running_mean), holders.bcast(layer.running_var)
    return copy


def _weights(layer: BatchNorm | InstanceNorm, rows: int, seen: Array) -> Array:
    """What stands behind each of so many rows of running statistics: one for all ranks, one for each, or one for each group."""
    if rows == len(seen):
        return seen
    if rows == 1 or isinstance(layer, InstanceNorm):
        return seen.sum(keepdims=True)
    with stretched(np.append(0.0, np.cumsum(seen))):  # a layer cuts rows seen as it cuts rows at hand
        offsets = layer.stretches()
    return seen.sum(keepdims=True) if offsets is None else np.diff(offsets)


def _keep_first(layer: BatchNorm | InstanceNorm) -> None:
    """Of statistics by rank those of the first, which stands for all."""
    if layer.running_mean is None or layer.running_var is None or layer.running_mean.ndim == 1:
        return
    layer.running_mean, layer.running_var = layer.running_mean[0], layer.running_var[0]
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked = np.array(layer.num_batches_tracked[0])


def predict(model: Module, x: Array, rows: int = 4096) -> Array:
    """The model's outputs in evaluation mode, `rows` rows at a time; its mode is restored. Talks to nobody."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_backward(model):
            return np.concatenate([model(x[start : start + rows]) for start in range(0, max(len(x), 1), rows)])
    finally:
        for module, training in modes:
            module.training = training
