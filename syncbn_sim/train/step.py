"""One data-parallel training step: forward, loss, backward, one sum over ranks, update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from ..comm.stretches import rank_offsets
from ..errors import ArgumentError, ShapeError
from ..nn.contexts import check_no_contexts, clear_contexts
from ..nn.losses import Loss
from ..nn.module import Module
from ..optim.base import Optimizer

Adjust = Callable[[Array], Array | None]


def step(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    comm: Communicator,
    x: Array,
    y: Array,
    weights: object | None = None,
    adjust: Adjust | None = None,
) -> float:
    """Trains on the union of all ranks' batches; every rank calls it, also with an empty batch.

    The gradient is that of the mean loss over all rows of all ranks: sum of the loss sums / sum of the counts. Where the global
    count is 0 nothing changes.

    Args:
        model: identical on every rank at the start, and so for ever.
        loss: returns a sum and a count.
        optimizer: of the model's parameters.
        comm: the ranks.
        x: this rank's rows; those of all ranks held, where they are stacked in one array, inside `with comm.holds(rows):`.
        y: their labels.
        weights: their frequency weights.
        adjust: told the gradient of the mean loss by all parameters, flat, float64 and equal on every rank; returns the one to step
            with, or None to leave this step out, the same on every rank, or the replicas part. For loss scaling, or for clipping:
            `lambda g: g / max(1, np.linalg.norm(g))`.

    Returns:
        The mean loss over all ranks (NaN if there was no row anywhere).

    Talks: one all-reduce of (number of parameters + 2) float64, and what the layers say.

    Raises:
        ContextError: earlier forward passes are still waiting for their backward pass.
        ArgumentError: the optimiser was built over another model's parameters.
        ShapeError: rows of stacked ranks of which nobody has said whose they are.
    """
    _check_whose(x, comm)
    check_no_contexts(model)
    model.zero_grad()  # what an earlier backward pass has left is not this batch's
    try:
        loss_sum, count = loss(model(x, weights), y, weights)
        model.backward(loss.backward())
        if count > 0 and all(parameter.grad is None for parameter in optimizer.parameters):
            expected, do = "the model's: nothing would be trained", "Build it over model.parameters()."
            got = "parameters of which none has a gradient"
            raise ArgumentError("optimizer", got=got, expected=expected, do=do)
    except BaseException:
        clear_contexts(model)
        raise
    gradient, loss_sum, count = sum_gradients(optimizer, loss_sum, count, comm)
    if count == 0:
        model.zero_grad()
        return float("nan")
    chosen = gradient if adjust is None else adjust(gradient.copy())  # which may be kept; the buffer is filled anew
    if chosen is None:
        model.zero_grad()
    else:
        optimizer.step(chosen)
    return loss_sum / count


def sum_gradients(
    optimizer: Optimizer, loss_sum: float, count: float, comm: Communicator
) -> tuple[Array, float, float]:
    """Sums gradients, loss and count over the ranks in one float64 buffer, as it lies, and divides the gradients once, by the global count.

    There is no world-size factor: a rank with more rows simply brings more.

    Returns:
        The gradient of the mean loss (zero if the count is 0) by all parameters, flat; loss sum and count over all ranks.

    Raises:
        ShapeError: of rows of stacked ranks, outside `with comm.holds(rows):`.
    """
    if len(comm.ranks) > 1:
        rank_offsets()
    packed = optimizer.pack_gradients(loss_sum, count)
    comm.holders.allreduce(packed, out=packed)
    gradient, loss_sum, count = packed[:-2], float(packed[-2]), float(packed[-1])
    gradient /= max(count, np.finfo(np.float64).tiny)
    return gradient, loss_sum, count


def _check_whose(x: Array, comm: Communicator) -> None:
    ranks, offsets = len(comm.ranks), rank_offsets()
    if offsets is None and ranks > 1:
        got, expected = f"{len(x)} rows, and nobody has said whose they are", f"the rows of {ranks} ranks"
    elif offsets is not None and (len(offsets) != ranks + 1 or offsets[-1] != len(x)):
        got, expected = f"{len(x)} rows on {ranks} ranks", f"the {offsets[-1]} rows of {len(offsets) - 1} ranks at hand"
    else:
        return
    do = "Let train.fit choose them, or write `with comm.holds(rows) as at_hand:` around the step, and pass x[at_hand]."
    raise ShapeError("x of a step", got=got, expected=expected, do=do)
