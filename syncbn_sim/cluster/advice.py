"""Is SyncBN worth it for this job? The figures behind an answer; the sentences stand in `report/advice.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..errors import ArgumentError, check_whole
from ..stats.reading import Behind, Reading, behind, readers_needed
from .step_cost import CHEAP, StepCost

ENOUGH = 16  # effective rows behind a mean: a convention (`report.advice.WHY_ENOUGH`)
AS_SHUFFLED = 0.05  # a design effect so near to 1 is not told from 1
LARGEST = 1 << 20  # rows of a window or batch that is still thought of


@dataclass(frozen=True)
class Job:
    """What is known of a job.

    Attributes:
        devices: W, the number of ranks.
        rows: n, rows per rank and step.
        reading: the order in which rows are read.
        icc: rho, the intra-class correlation.
        compute_seconds: of a step, without synchronisation.
        cost_of: what synchronising so many devices costs in a step.

    Raises:
        ArgumentError: a number that cannot be, each named alone.
    """

    devices: int
    rows: int
    reading: Reading
    icc: float
    compute_seconds: float
    cost_of: Callable[[int], StepCost]

    def __post_init__(self) -> None:
        check_whole("devices", self.devices)
        check_whole("rows", self.rows)
        if not self.compute_seconds > 0:
            took = f"{self.compute_seconds:g} s"
            raise ArgumentError("compute", got=took, expected="above 0", do="How long does a step take?")
        if not self.icc <= 1:
            do = "1: all rows of an entity are equal; 0: no more alike than others."
            raise ArgumentError("icc", got=self.icc, expected="at most 1", do=do)
        if self.devices * self.rows > self.reading.total:
            asked, most = f"{self.devices} x {self.rows}", f"at most the {self.reading.total:,.0f} rows there are"
            raise ArgumentError("devices, rows", got=asked, expected=most, do="Use fewer, or a longer log.")

    @cached_property
    def local(self) -> Behind:
        """What one device's batch is worth."""
        return behind(self.reading, self.icc, self.rows)

    @cached_property
    def joined(self) -> Behind:
        """What the batch of all devices is worth."""
        return self._group(self.devices)

    @property
    def as_if_shuffled(self) -> bool:
        """Whether neither local nor joined rows can be told from shuffled ones."""
        return max(abs(b.design_effect - 1) for b in (self.local, self.joined)) < AS_SHUFFLED

    @cached_property
    def cost(self) -> StepCost:
        """Of synchronising the smallest group that is worth enough; of all devices where none is."""
        return self.cost_of(self.group.rows // self.rows if self.group else self.devices)

    @property
    def share(self) -> float:
        """Of a step that it takes."""
        return self.cost.share(self.compute_seconds)

    @property
    def verdict(self) -> str:
        """What follows from local and joined rows, and the share of a step.

        "alone": one device; "enough": local rows suffice; "short": even joined rows do not; "cheap", "dear": they do, at this price.
        """
        if self.devices == 1:
            return "alone"
        if (self.rows if self.as_if_shuffled else self.local.effective_rows) >= ENOUGH:
            return "enough"
        if (self.joined.rows if self.as_if_shuffled else self.joined.effective_rows) < ENOUGH:
            return "short"
        return "cheap" if self.share <= CHEAP else "dear"

    @cached_property
    def group(self) -> Behind | None:
        """The smallest group of neighbouring devices that does: worth a shuffled local batch, and `ENOUGH`; if none, worth `ENOUGH`."""
        for target in (max(self.rows, ENOUGH), ENOUGH):
            devices = readers_needed(self.reading, self.icc, self.rows, target, self.devices)
            if devices:
                return self._group(devices)
        return None

    @cached_property
    def window(self) -> tuple[int, Behind] | None:
        """The smallest power of two of rows in which each device would have to shuffle for its batch to be worth enough."""
        # No window makes a batch worth more than its rows, 16 or not.
        goal = min(ENOUGH, 0.9 * self.rows)
        windows = ((w, behind(self.reading.windowed(w), self.icc, self.rows)) for w in self._sizes())
        return next(((w, b) for w, b in windows if b.effective_rows >= goal), None)

    @cached_property
    def larger_batch(self) -> Behind | None:
        """The smallest power of two times as many rows per device that are worth enough; None: too many, or more than there are."""
        batches = (behind(self.reading, self.icc, rows) for rows in self._sizes())
        return next((b for b in batches if b.effective_rows >= ENOUGH), None)

    def _group(self, devices: int) -> Behind:
        return behind(self.reading, self.icc, self.rows, devices, self.devices)

    def _sizes(self) -> Iterator[int]:
        """Batch sizes 2 n, 4 n, ... as far as the rows of one device, or our patience, go."""
        size = 2 * self.rows
        while size <= min(LARGEST, self.reading.total / self.devices):
            yield size
            size *= 2
