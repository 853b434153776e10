"""What synchronising all batch norms of a network adds to a training step, by wire format and number of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..comm.schedules import SCHEDULES
from .closed_forms import allgather_seconds, allreduce_seconds
from .links import Link


@dataclass(frozen=True)
class WireFormat:
    """What a layer of C channels says in one step.

    Attributes:
        collectives: blocking calls a layer, forward and backward together.
        payload: bytes that one rank brings to them.
        seconds: their time, one after the other, on the critical path.
    """

    collectives: int
    payload: Callable[[int], int]
    seconds: Callable[[int, int, Link], float]


def best_allreduce(ranks: int, elements: int, link: Link, item: int = 8) -> float:
    """Time of the quickest of the five schedules."""
    return min(allreduce_seconds(name, ranks, elements, link, item) for name in SCHEDULES)


WIRE_FORMATS = {
    # sums in float64: (sum, sum of squares, count), then (sum dy, sum dy x_hat)
    "fused all-reduce": WireFormat(
        2,
        lambda c: 8 * (4 * c + 1),
        lambda p, c, link: best_allreduce(p, 2 * c + 1, link) + best_allreduce(p, 2 * c, link),
    ),
    # PyTorch: mean, invstd and count of every rank to every rank, in float32; then an all-reduce
    "all-gather": WireFormat(
        2,
        lambda c: 4 * (4 * c + 1),
        lambda p, c, link: allgather_seconds(p, 2 * c + 1, link, 4) + best_allreduce(p, 2 * c, link, 4),
    ),
    # one collective for each quantity
    "one by one": WireFormat(
        5, lambda c: 8 * (4 * c + 1), lambda p, c, link: 4 * best_allreduce(p, c, link) + best_allreduce(p, 1, link)
    ),
}


@dataclass(frozen=True)
class StepCost:
    """Synchronisation of one training step.

    Attributes:
        collectives: blocking calls a step.
        payload: bytes that one rank brings in a step.
        seconds: their time, none of it hidden behind computing.
    """

    collectives: int
    payload: int
    seconds: float

    def share(self, compute_seconds: float) -> float:
        """Share of the step: talk / (talk + compute)."""
        return self.seconds / (self.seconds + compute_seconds)

    def step_seconds(self, compute_seconds: float, overlapped: bool = False) -> float:
        """Talk + compute on the critical path; max(talk, compute) if all of it could hide behind computing."""
        return max(self.seconds, compute_seconds) if overlapped else self.seconds + compute_seconds

    def compute_for(self, share: float) -> float:
        """The smallest compute time for which the share stays under `share`: talk (1 - share) / share."""
        return self.seconds * (1 - share) / share


def step_cost(channels: Sequence[int], ranks: int, link: Link, wire: str = "fused all-reduce") -> StepCost:
    """Adds up the layers: batch norms are one after the other, so their collectives are, too."""
    form = WIRE_FORMATS[wire]
    by_width = {c: form.seconds(ranks, c, link) for c in set(channels)}
    return StepCost(
        form.collectives * len(channels), sum(map(form.payload, channels)), sum(by_width[c] for c in channels)
    )


def where_all_gather_loses(channels: Sequence[int], link: Link) -> int | None:
    """The first power of two of devices from which the all-gather takes longer than the fused all-reduce, or None up to 65,536."""
    for power in range(1, 17):
        gather, reduce = (
            step_cost(channels, 2**power, link, wire).seconds for wire in ("all-gather", "fused all-reduce")
        )
        if gather > reduce:
            return int(2**power)
    return None
