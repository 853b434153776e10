"""Training as a loop that is yours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..arrays import Array
from ..comm.base import Communicator
from ..data.orders import Rows
from ..nn.losses import Loss
from ..nn.module import Module
from ..optim.base import Optimizer
from ..optim.schedules import Schedule
from .step import Adjust, step


def fit(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    comm: Communicator,
    x: Array,
    y: Array,
    batches: Iterable[Rows],
    schedule: Schedule | None = None,
    adjust: Adjust | None = None,
) -> Iterator[tuple[int, float]]:
    """One `step` for each of `batches`, as a loop that is yours: it trains as far as you read, and you may look at the model between.

        for done, mean_loss in train.fit(model, loss, optimizer, comm, x, y, data.epochs(...)): ...

    Args:
        model: as for `step`, with `loss`, `optimizer` and `comm`.
        loss: of the model's outputs.
        optimizer: of the model's parameters.
        comm: the ranks.
        x: rows, of which this rank trains on those that `batches` names.
        y: their labels.
        batches: row indices of this rank's batch for each step, equally many steps on every rank: what `data.epochs` or
            `data.batches` gives for `comm.rank`, or for `comm.ranks` (stacked ones too).
        schedule: of the learning rate, as a factor of the optimiser's own, by steps of this loop. Between
            steps the rate is the optimiser's own.
        adjust: as for `step`.

    Yields:
        Steps done so far, and the mean loss of the last one over all ranks, before its update.

    Talks: what `step` does.

    Raises: what `step` raises.
    """
    for done, rows in enumerate(batches):
        lr = optimizer.lr
        optimizer.lr = lr * schedule(done) if schedule else lr
        try:
            with comm.holds(rows) as at_hand:
                mean_loss = step(model, loss, optimizer, comm, x[at_hand], y[at_hand], adjust=adjust)
        finally:  # before the reader has his turn: who leaves the loop may train on
            optimizer.lr = lr
        yield done + 1, mean_loss
