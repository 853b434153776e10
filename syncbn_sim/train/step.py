"""One data-parallel training step: forward, loss, backward, one sum over ranks, update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..nn.losses import Loss
from ..nn.module import Module, Parameter, check_no_contexts, clear_contexts
from ..optim.base import Optimizer


def step(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    comm: Communicator,
    x: Array,
    y: Array,
    weights: object | None = None,
) -> float:
    """Trains on the union of all ranks' batches; every rank calls it, also with an empty batch.

    The gradient is that of the mean loss over all rows of all ranks: sum of the loss sums / sum of the counts. Where the global
    count is 0 nothing changes.

    Args:
        model: identical on every rank at the start, and so for ever.
        loss: returns a sum and a count.
        optimizer: of the model's parameters.
        comm: the ranks.
        x: this rank's rows.
        y: their labels.
        weights: their frequency weights.

    Returns:
        The mean loss over all ranks (NaN if there was no row anywhere).

    Talks: one all-reduce of (number of parameters + 2) float64, and what the layers say.

    Raises:
        ContextError: earlier forward passes are still waiting for their backward pass.
    """
    check_no_contexts(model)
    model.zero_grad()  # what an earlier backward pass has left is not this batch's
    try:
        loss_sum, count = loss(model(x, weights), y, weights)
        model.backward(loss.backward())
    except BaseException:
        clear_contexts(model)
        raise
    loss_sum, count = sum_gradients(optimizer.parameters, loss_sum, count, comm)
    if count == 0:
        model.zero_grad()
        return float("nan")
    optimizer.step()
    return loss_sum / count


def sum_gradients(
    parameters: Sequence[Parameter], loss_sum: float, count: float, comm: Communicator
) -> tuple[float, float]:
    """Sums gradients, loss and count over the ranks in one fused float64 buffer, then divides the gradients once, by the global count.

    There is no world-size factor: a rank with more rows simply brings more.

    Returns:
        Loss sum and count over all ranks. The parameters' gradients are those of the mean loss, or zero if the count is 0.
    """
    gradients = [np.zeros(p.data.size) if p.grad is None else p.grad.ravel() for p in parameters]
    total = comm.allreduce(np.concatenate([*gradients, [loss_sum, count]]).astype(np.float64, copy=False))
    loss_sum, count = float(total[-2]), float(total[-1])
    mean = total[:-2] / max(count, np.finfo(np.float64).tiny)
    start = 0
    for p in parameters:
        p.grad = mean[start : start + p.data.size].reshape(p.data.shape).astype(p.data.dtype)
        start += p.data.size
    return loss_sum, count
