"""Is SyncBN worth it for this job? A few sentences, each with the formula it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from .. import stats
from ..errors import ArgumentError
from .step_cost import StepCost


@dataclass(frozen=True)
class Job:
    """What is known of a job.

    Attributes:
        devices: W, the number of ranks.
        rows: n, rows a rank and step.
        entity_rows: rows of one entity that stand together in the order of reading (1: shuffled).
        icc: rho, the intra-class correlation.
        compute_seconds: of a step, without synchronisation.
        cost: of synchronising a step.
    """

    devices: int
    rows: int
    entity_rows: int
    icc: float
    compute_seconds: float
    cost: StepCost

    def __post_init__(self) -> None:
        for name in ("devices", "rows", "entity_rows"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(name, got=value, expected="a whole number of at least 1", do="See --help.")
        if not -1 <= self.icc <= 1 or not self.compute_seconds > 0:
            raise ArgumentError(
                "icc, compute",
                got=f"{self.icc}, {self.compute_seconds}",
                expected="-1 to 1, and above 0",
                do="See --help.",
            )

    @property
    def cluster_size(self) -> float:
        """S of batches of n rows cut out of stretches of `entity_rows` equal keys, averaged over where the cut falls."""
        m, n = self.entity_rows, self.rows
        total = 0
        for start in range(m):
            end = start + n
            pieces = [min(end, (k + 1) * m) - max(start, k * m) for k in range(start // m, (end - 1) // m + 1)]
            total += sum(piece * piece for piece in pieces)
        return total / (m * n)


def advise(job: Job) -> list[str]:
    """Sentences, the verdict first."""
    s, rho, n, w = job.cluster_size, max(job.icc, 0.0), job.rows, job.devices
    deff = stats.design_effect(s, rho)
    second = 1 + (s - 1) * rho**2
    local, joined = n / deff, n * w / deff
    share = job.cost.share(job.compute_seconds)
    needed = n / second < 16 or local < 16
    facts = [
        f"A row meets {s:.1f} rows of its own entity in its batch (S = E[sum n_j^2 / n]); design effect 1 + (S - 1) rho = {deff:.2f}.",
        f"For the mean, a local batch of {n} rows is worth n / deff = {local:.1f} independent rows, all {w} devices together {joined:.1f}.",
        f"For the second moment a rule of thumb is n / (1 + (S - 1) rho^2) = {n / second:.1f} "
        f"(not measured here), together {n * w / second:.1f}.",
        f"SyncBN's mean is {'as steady as' if w >= deff else 'noisier than'} that of a shuffled local batch: devices {w} "
        f"{'>=' if w >= deff else '<'} design effect {deff:.2f} (sd = sigma sqrt(deff / (n W)) against sigma sqrt(1 / n)).",
        f"It takes {1e3 * job.cost.seconds:.3g} ms of {1e3 * (job.cost.seconds + job.compute_seconds):.3g} ms a step: "
        f"{100 * share:.1f} % = talk / (talk + compute); under 5 % from {1e3 * job.cost.compute_for(0.05):.3g} ms of compute on.",
    ]
    if not needed:
        verdict = f"Probably not needed: a local batch is worth {min(local, n / second):.0f} rows and more already."
    elif share > 0.2:
        verdict = "It would help, and it is dear here: try the alternatives below first."
    else:
        verdict = "Worth trying: local batches are worth few rows, and synchronising is cheap against the step."
    if w == 1:
        verdict = "No: one device has nobody to synchronise with."
    first = "a shuffle window of a thousand rows a rank, which makes S small" if deff > 1.2 else "a larger batch"
    alternatives = f"To try first: {first}; LayerNorm or GroupNorm, which need no batch; a larger local batch."
    limits = (
        "What it does not fix: the cost of the order itself for the optimiser (train a net without normalisation, sorted "
        "and shuffled, to see it); false negatives in batches of one user; a net already trained with small batches."
    )
    return [verdict, *facts, alternatives, limits]
