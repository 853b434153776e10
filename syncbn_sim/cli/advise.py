"""Is SyncBN worth it for a job?"""

from __future__ import annotations

import numpy as np

from ..cluster.advice import Job
from ..cluster.links import parse_topology
from ..cluster.networks import network_named
from ..cluster.step_cost import step_cost
from ..data.own_log import LogOptions
from ..diagnostics.inspection import cautions
from ..errors import ArgumentError, check_whole
from ..report.advice import advice
from ..stats.reading import Reading, behind, sorted_reading
from .arguments import LinkName, Milliseconds, ModelName, Nodes, seconds, whole
from .logs import LogReading, inspected, read


def advise(
    log: LogReading,
    devices: int,
    rows: int,
    entity_rows: tuple[str, ...] = (),
    entities: int | None = None,
    icc: float | None = None,
    link: LinkName = "roce-25g",
    topology: Nodes = "",
    compute_ms: Milliseconds = 100.0,
    model: ModelName = "resnet50",
    data: str = "",
) -> None:
    """Is SyncBN worth it for this job? What it would change, what it costs, what else there is, what it does not fix.

    Say how rows are read: with --data (a log, in the order in which it stands), or with --entity-rows and --icc (rows sorted by entity).

    Args:
        log: how --data is read, as inspect-log reads it.
        devices: number of devices.
        rows: rows per device and step.
        entity_rows: rows of one entity (user, session, class) that stand together. 58: of each about so many. Or SIZExHOW MANY for
            all sizes: 4x1000,58x100,900x1 are 1000 entities of 4 rows, 100 of 58, one of 900. 1: shuffled.
        entities: how many entities of the one size there are; default: unlimited. Say it for classes: --entities 10.
        icc: intra-class correlation, how alike the rows of one entity are: 0 no more than others, 1 equal. inspect-log measures it.
        link, topology, compute_ms, model: as `arguments` says.
        data: a log of your own, from which order and correlation are measured.
    """
    whole(devices, "devices")
    whole(rows, "rows")
    if data:
        if entity_rows or entities is not None or icc is not None:
            got = "--data with --entity-rows, --entities or --icc"
            do = "Leave them out: they are measured in the log."
            raise ArgumentError("advise", got=got, expected="one or the other", do=do)
        found = inspected(read(data, log), log, rows, devices)
        order, icc = found.orders["as it stands"].reading, found.mean_correlation
        print(f"Measured in {data}, in the order in which it stands: mean correlation over columns {icc:.3f}.")
        print("\n".join(cautions(found)), end="\n\n")
    elif log != LogOptions():
        got = "options of a log without --data"
        raise ArgumentError("advise", got=got, expected="--data with them", do="For example --data clicks.csv.")
    else:
        order = _sorted_order(entity_rows, entities)
        icc = _possible(icc, order, rows)
    links, channels = parse_topology(topology, link), network_named(model)
    job = Job(devices, rows, order, icc, seconds(compute_ms), lambda ranks: step_cost(channels, ranks, links))
    print("\n".join(advice(job, links)))


def _possible(icc: float | None, order: Reading, rows: int) -> float:
    """A typed correlation, if a population can have it."""
    if icc is None:
        expected = "--icc with --entity-rows, or --data"
        raise ArgumentError("icc", got="none", expected=expected, do="For example --icc 0.3.")
    largest = behind(order, 0.0, rows).adjusted_size
    if 1 + (largest - 1) * icc <= 0:
        expected = f"above {1 / (1 - largest):.3g} where a row meets {largest:.3g} of its entity"
        do = "Rows of one entity can't all be unlike: their mean would have a negative variance."
        raise ArgumentError("icc", got=icc, expected=expected, do=do)
    return icc


def _sorted_order(entity_rows: tuple[str, ...], entities: int | None) -> Reading:
    """Rows sorted by entity, from sizes such as ("58",) or ("4x1000,58x100",)."""
    parts = [part for part in ",".join(entity_rows).split(",") if part]
    if not parts:
        expected = "--entity-rows with --icc, or --data"
        raise ArgumentError("entity-rows", got="none", expected=expected, do="For example --entity-rows 58.")
    sizes, counts = zip(*(_size_and_count(part, len(parts) == 1) for part in parts), strict=True)
    if entities is None:
        endless = counts[0] is None
        return sorted_reading(np.array(sizes), np.ones(1)) if endless else sorted_reading(np.repeat(sizes, counts))
    if counts[0] is not None:
        got, do = f"{entities} with sizes by number", "ROWSxENTITIES says already how many there are."
        raise ArgumentError("entities", got=got, expected="one or the other", do=do)
    check_whole("entities", entities, 2, "Of one size: --entity-rows 180 --entities 10.")
    return sorted_reading(np.full(entities, sizes[0]))


def _size_and_count(part: str, alone: bool) -> tuple[int, int | None]:
    """Rows of an entity and number of such entities, from "58x100"; alone "58" is enough."""
    size, times, count = part.partition("x")
    wrong = not size.isdigit() or not int(size) or (times and not (count.isdigit() and int(count)))
    if wrong or not (times or alone):
        expected = "rows, or ROWSxENTITIES, where there are several sizes for each of them"
        raise ArgumentError("entity-rows", got=part, expected=expected, do="For example 58, or 4x1000,58x100.")
    return int(size), int(count) if times else None
