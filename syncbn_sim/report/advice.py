"""Is SyncBN worth it? Sentences, each with the figures it follows from."""

from __future__ import annotations

from ..cluster.advice import ENOUGH, WHY_ENOUGH, Job
from ..cluster.links import Link, Topology
from ..cluster.step_cost import CHEAP
from ..stats.reading import Behind

AS_SHUFFLED = 0.05  # a design effect so near to 1 is not worth a second sentence


def advice(job: Job, link: Link | Topology) -> list[str]:
    """Sentences, the verdict first.

    Args:
        job: the figures.
        link: over which the cost was computed, for what it leaves out.
    """
    lines = [_verdict(job), *_rows(job)]
    if job.devices > 1:
        lines += [*_steadiness(job), *_time(job, link)]
    if job.verdict != "enough":
        lines.append(_alternatives(job))
    return [*lines, LIMITS]


LIMITS = (
    "What SyncBN does not fix: what the order itself costs the optimiser (train a net without normalisation, sorted and shuffled, to see "
    "it); false negatives in batches of one user; a net already trained with small batches. And these figures are of the *mean*: where "
    "entities differ in spread, a batch's variance is noisier than they say."
)


def _verdict(job: Job) -> str:
    local, joined = job.local.effective_rows, job.joined.effective_rows
    price = f"{100 * job.share:.2g} % of a step, which is {'not ' if job.share > CHEAP else ''}under {100 * CHEAP:g} %"
    below = f"a local batch is worth {local:.1f} rows, below {ENOUGH}"
    if job.rows == 1 and job.verdict != "alone":
        below = "a local batch of one row has no variance, so local statistics cannot train at all (unless a row has many positions)"
    together = f"the {job.devices} together {joined:.1f}"
    return {
        "alone": f"No: one device has nobody to synchronise with. Its batch is worth {local:.1f} rows; {ENOUGH} or more are wanted.",
        "enough": f"Probably not needed: a local batch is worth {local:.1f} rows already, {ENOUGH} or more.",
        "short": f"Not enough by itself: {below}, and {together}, which is below {ENOUGH} too.",
        "cheap": f"Worth trying: {below}, {together}; and it is cheap, {price}.",
        "dear": f"It would help, and it is dear: {below}, {together}; but it takes {price}. Look at what else there is first.",
    }[job.verdict]


def _rows(job: Job) -> list[str]:
    lines = [f"{ENOUGH} rows are {WHY_ENOUGH}."]
    local, joined = job.local, job.joined
    if max(abs(local.design_effect - 1), abs(joined.design_effect - 1)) < AS_SHUFFLED:
        return [
            f"Rows stand as if shuffled (design effect {local.design_effect:.2f}): {_worth(local, 'a local batch')}.",
            *lines,
        ]
    lines.append(f"Locally: {_worth(local, 'a batch')}, with {_effect(local, job)}.")
    if job.devices > 1:
        lines.append(
            f"Together: {_worth(joined, f'the batch of all {job.devices} devices')}, with {_effect(joined, job)}."
        )
    return lines


def _worth(b: Behind, who: str) -> str:
    return f"{who} of {b.rows:,} {'row' if b.rows == 1 else 'rows'} is worth n / deff = {b.effective_rows:.1f} independent ones"


def _effect(b: Behind, job: Job) -> str:
    size = f"S = E[sum n_j^2 / n] = {b.cluster_size:.1f}"
    if job.reading.same > 0:
        size += f", S_adj = (S - n P) / (1 - P) = {b.adjusted_size:.2f} at P = {job.reading.same:.3g}"
        return f"{size}, deff = 1 + (S_adj - 1) {job.icc:.3g} = {b.design_effect:.2f}"
    return f"{size}, deff = 1 + (S - 1) {job.icc:.3g} = {b.design_effect:.2f}"


def _steadiness(job: Job) -> list[str]:
    joined = job.joined.effective_rows
    steady = joined >= job.rows * (1 - 1e-9)
    yardstick = f" (a poor yardstick: {job.rows} is below {ENOUGH})" if job.rows < ENOUGH else ""
    lines = [
        f"SyncBN's mean is {'at least as steady as' if steady else 'noisier than'} that of a shuffled local batch{yardstick}: "
        f"{joined:.1f} {'>=' if steady else '<'} {job.rows} rows."
    ]
    group = job.smallest_group
    if group and job.verdict in ("cheap", "dear"):
        count = group.rows // job.rows
        lines.append(
            f"The smallest group of neighbouring devices that does: {count} of {job.devices}, worth {group.effective_rows:.1f} rows, "
            f"at least {job.target}."
        )
    return lines


def _time(job: Job, link: Link | Topology) -> list[str]:
    cost, compute = job.cost, job.compute_seconds
    left_out = [
        f"waiting for the slowest device at each of the {cost.collectives} calls",
        "the all-reduce of the gradients, which every data-parallel job pays",
    ]
    if isinstance(link, Link):
        left_out.append("slower links between nodes (one link joins all devices here: see --topology)")
    if not link.base:
        left_out.append("what a call costs before its first message (no source for this link)")
    return [
        f"It takes {1e3 * cost.seconds:.3g} ms of {1e3 * cost.step_seconds(compute):.4g} ms per step, {100 * job.share:.2g} % = "
        f"talk / (talk + compute); at most {100 * CHEAP:g} % from {1e3 * cost.compute_for(CHEAP):.3g} ms of compute on.",
        f"A lower bound: left out are {'; '.join(left_out)}.",
    ]


def _alternatives(job: Job) -> str:
    options = []
    if job.local.design_effect > 1 + AS_SHUFFLED:
        if job.window:
            size, b = job.window
            options.append(
                f"shuffling in a window of {size:,} rows per device (S = {b.cluster_size:.1f}, {b.rows} rows worth {b.effective_rows:.1f})"
            )
        else:
            options.append("no shuffle window, up to a million rows or to those of one device, makes it enough")
    if job.larger_batch:
        b = job.larger_batch
        options.append(f"a larger local batch ({b.rows:,} rows per device are worth {b.effective_rows:.1f})")
    options.append("LayerNorm or GroupNorm, which need no batch")
    return f"Instead, or first: {'; '.join(options)}."
