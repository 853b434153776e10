"""What synchronising all batch norms of a network adds to a training step, by wire format and number of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..comm.schedules import SCHEDULES
from .closed_forms import ITEM, allgather_seconds, allreduce_seconds
from .links import Link, Topology

CHEAP = 0.05  # of a step: what this project calls a small price, a convention


@dataclass(frozen=True)
class WireFormat:
    """What a layer of C channels says in one step.

    Attributes:
        collectives: blocking calls per layer, forward and backward together.
        seconds: their time, one after the other, on the critical path.
    """

    collectives: int
    seconds: Callable[[int, int, Link | Topology], float]


def allreduce(ranks: int, elements: int, link: Link | Topology) -> float:
    """Time of a call, level by level: inside each node, then between the nodes; by the quickest schedule each link has."""
    return sum(
        (level.base or 0.0)
        + min(allreduce_seconds(name, units, elements, level) for name in level.schedules or SCHEDULES)
        for units, _, level in link.levels_of(ranks)
    )


def allgather(ranks: int, elements: int, link: Link | Topology) -> float:
    """The same of an all-gather: a node brings what its ranks have."""
    return sum(
        (level.base or 0.0) + allgather_seconds(units, elements * each, level)
        for units, each, level in link.levels_of(ranks)
    )


# All in numbers of 8 bytes, as here, so that they differ in form alone; in float32 every payload is half.
WIRE_FORMATS = {
    # sums in float64: (sum, sum of squares, count), then (sum dy, sum dy x_hat)
    "fused all-reduce": WireFormat(2, lambda p, c, link: allreduce(p, 2 * c + 1, link) + allreduce(p, 2 * c, link)),
    # PyTorch: mean, invstd and count of every rank to every rank; then an all-reduce
    "all-gather": WireFormat(2, lambda p, c, link: allgather(p, 2 * c + 1, link) + allreduce(p, 2 * c, link)),
    # one collective for each quantity
    "one by one": WireFormat(5, lambda p, c, link: 4 * allreduce(p, c, link) + allreduce(p, 1, link)),
}


@dataclass(frozen=True)
class StepCost:
    """Synchronisation of one training step.

    Attributes:
        collectives: blocking calls per step.
        payload: bytes that one rank brings in a step, float64: 8 (4 C + 1) for each layer, in every format.
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

    def compute_for(self, most: float) -> float:
        """The smallest compute time for which the share is at most `most`: talk (1 - most) / most."""
        return self.seconds * (1 - most) / most


def step_cost(channels: Sequence[int], ranks: int, link: Link | Topology, wire: str = "fused all-reduce") -> StepCost:
    """Adds up the layers: batch norms are one after the other, so their collectives are, too."""
    form = WIRE_FORMATS[wire]
    by_width = {c: form.seconds(ranks, c, link) if ranks > 1 else 0.0 for c in set(channels)}
    return StepCost(
        form.collectives * len(channels), sum(ITEM * (4 * c + 1) for c in channels), sum(by_width[c] for c in channels)
    )


def where_all_gather_loses(channels: Sequence[int], link: Link | Topology) -> int | None:
    """The first power of two of devices from which the all-gather takes longer than the fused all-reduce, or None up to 65,536."""

    def loses(devices: int) -> bool:
        gather, reduce = (step_cost(channels, devices, link, wire) for wire in ("all-gather", "fused all-reduce"))
        return gather.seconds > reduce.seconds

    return next((1 << power for power in range(1, 17) if loses(1 << power)), None)
