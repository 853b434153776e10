"""Is SyncBN worth it? Sentences, each with the figures it follows from."""

from __future__ import annotations

from ..cluster.advice import AS_SHUFFLED, ENOUGH, Job
from ..cluster.links import Link, Topology
from ..cluster.step_cost import CHEAP, StepCost
from ..stats.reading import Behind, MeasuredReading
from .cluster import left_out

WHY_ENOUGH = (
    "a convention, from Wu & He (2018), figure 1: with 16 images per device batch norm's error is 23.7 %, with 32 it is 23.6; "
    "with 8, 24.8; with 4, 27.3"
)


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
    group = _devices(job)
    who = "all devices" if group == job.devices else f"groups of {group}"
    price = f"synchronising {who} takes {100 * job.share:.3g} % of a step"
    below = f"a local batch is worth {local:.1f} rows, fewer than {ENOUGH}"
    if job.rows == 1 and job.verdict != "alone":
        below = "a local batch of one row has no variance, so local statistics cannot train at all (unless a row has many positions)"
    together = f"all {job.devices} together are worth {joined:.1f}"
    return {
        "alone": f"No: one device has nobody to synchronise with. Its batch is worth {local:.1f} rows; {ENOUGH} or more are wanted.",
        "enough": f"Probably not needed: a local batch is worth {local:.1f} rows already; {ENOUGH} or more are wanted.",
        "short": f"Not enough by itself: {below}; {together}, fewer than {ENOUGH}.",
        "cheap": f"Worth trying: {below}; {together}; {price}, which is at most {100 * CHEAP:g} %.",
        "dear": f"It would help, at a price: {below}; {together}; but {price}, more than {100 * CHEAP:g} %. Look at what else there is.",
    }[job.verdict]


def _rows(job: Job) -> list[str]:
    enough, local, joined = f"{ENOUGH} rows are {WHY_ENOUGH}.", job.local, job.joined
    if job.as_if_shuffled:
        shuffled = f"Rows stand as if shuffled: design effect {local.design_effect:.2f}"
        return [f"{shuffled}, {_worth(local, 'a local batch')}.", enough]
    lines = [enough, f"Locally: {_worth(local, 'a batch')}; {_effect(local, job)}."]
    if job.devices > 1:
        lines.append(f"Together: {_worth(joined, 'the joined batch')}; {_effect(joined, job)}.")
    return lines


def _worth(b: Behind, who: str) -> str:
    return f"{who} of {b.rows:,} {'row' if b.rows == 1 else 'rows'} is worth n / deff = {b.effective_rows:.1f} independent ones"


def _effect(b: Behind, job: Job) -> str:
    size = f"S = E[sum n_j^2 / n] = {b.cluster_size:.1f}"
    if isinstance(job.reading, MeasuredReading) and job.reading.columns is not None:
        return f"{size}, but deff as measured on the columns = {b.design_effect:.2f}"
    if job.reading.same > 0:
        size += f", S_adj = (S - n P) / (1 - P) = {b.adjusted_size:.2f} at P = {job.reading.same:.3g}"
        return f"{size}, deff = 1 + (S_adj - 1) x {job.icc:.3g} = {b.design_effect:.2f}"
    return f"{size}, deff = 1 + (S - 1) x {job.icc:.3g} = {b.design_effect:.2f}"


def _steadiness(job: Job) -> list[str]:
    joined = job.joined.effective_rows
    steady = joined >= job.rows * (1 - 1e-9)
    yardstick = f" (a poor yardstick, since {job.rows} is below {ENOUGH})" if job.rows < ENOUGH else ""
    lines = [
        f"SyncBN's mean is {'at least as steady as' if steady else 'noisier than'} that of a shuffled local batch{yardstick}: joined rows "
        f"worth {joined:.1f} {'>=' if steady else '<'} {job.rows}."
    ]
    if job.group and job.verdict in ("cheap", "dear"):
        worth = job.group.effective_rows
        aim = max(job.rows, ENOUGH) if worth >= max(job.rows, ENOUGH) * (1 - 1e-9) else ENOUGH
        count = f"{_devices(job)} of {job.devices}"
        lines.append(f"The smallest group of neighbours worth {aim} rows or more: {count}, worth {worth:.1f}.")
    return lines


def _devices(job: Job) -> int:
    """How many would synchronise: the smallest group that is worth enough, or all."""
    return job.group.rows // job.rows if job.group else job.devices


def _time(job: Job, link: Link | Topology) -> list[str]:
    everyone = job.cost_of(job.devices)
    lines = [f"All {job.devices} devices: {_price(everyone, job)}."]
    group = _devices(job)
    if group < job.devices and job.verdict in ("cheap", "dear"):
        lines.append(f"Groups of {group}: {_price(job.cost, job)}." if group > 1 else "One device alone needs no talk.")
    missing = [
        f"waiting for the slowest device at each of the {everyone.collectives} calls",
        "the all-reduce of the gradients, which every data-parallel job pays",
        *left_out(link, job.devices),
    ]
    return [*lines, f"Left out: {'; '.join(missing)}."]


def _price(cost: StepCost, job: Job) -> str:
    compute = job.compute_seconds
    return (
        f"{1e3 * cost.seconds:.3g} ms of {1e3 * cost.step_seconds(compute):.4g} ms per step, {100 * cost.share(compute):.3g} % = "
        f"talk / (talk + compute); at most {100 * CHEAP:g} % from {1e3 * cost.compute_for(CHEAP):.3g} ms of compute on"
    )


def _alternatives(job: Job) -> str:
    options = []
    if job.local.design_effect > 1 + AS_SHUFFLED:
        if job.window:
            size, b = job.window
            worth = f"S = {b.cluster_size:.1f}, {b.rows} rows worth {b.effective_rows:.1f}"
            worth += f", though {b.rows} can't be {ENOUGH}" if b.rows < ENOUGH else ""
            options.append(f"shuffling in a window of {size:,} rows per device ({worth})")
        else:
            options.append("no shuffle window, up to a million rows or to those of one device, does it")
    if job.larger_batch:
        b = job.larger_batch
        options.append(f"a larger local batch ({b.rows:,} rows per device are worth {b.effective_rows:.1f})")
    options.append("LayerNorm or GroupNorm, which need no batch")
    return f"Instead, or first: {'; '.join(options)}."
