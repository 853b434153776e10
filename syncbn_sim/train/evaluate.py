"""Evaluation: which running statistics a model is judged with, and its predictions."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..nn.batch_norm import BatchNorm
from ..nn.contexts import no_backward
from ..nn.instance_norm import InstanceNorm
from ..nn.module import Module

M = TypeVar("M", bound=Module)


def with_averaged_statistics(model: M, comm: Communicator, rows_seen: float) -> M:
    """A copy whose running statistics are the ranks' own, averaged by the rows each rank has trained on.

    Layers with local statistics drift apart from rank to rank, so a data-parallel model is not one model until they are
    joined. (The average of the ranks' variances is what such a model was trained with; the pooled variance is not.)

    Talks: one all-reduce of 2 C + 1 float64 per layer.
    """
    copy = deepcopy(model)
    for layer in copy.modules():
        if (
            isinstance(layer, BatchNorm | InstanceNorm)
            and layer.running_mean is not None
            and layer.running_var is not None
        ):
            own = rows_seen * np.concatenate([layer.running_mean, layer.running_var, [1.0]])
            total = comm.allreduce(own.astype(np.float64))
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
    copy = deepcopy(model)
    for layer in copy.modules():
        if isinstance(layer, BatchNorm | InstanceNorm) and layer.running_mean is not None:
            layer.running_mean, layer.running_var = comm.bcast(layer.running_mean), comm.bcast(layer.running_var)
    return copy


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
