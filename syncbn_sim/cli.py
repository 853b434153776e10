"""The command `syncbn-sim`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from .cluster.advice import Job
from .cluster.links import parse_topology
from .cluster.networks import network_named
from .cluster.step_cost import WIRE_FORMATS, step_cost, where_all_gather_loses
from .data.own_log import Log, Source, read_log
from .diagnostics.inspect_log import inspect
from .errors import ArgumentError, SyncBNError
from .report.advice import advice
from .report.cluster import cluster_table, left_out
from .report.files import check_writable, write_figure
from .report.inspection import cautions, inspection_table
from .report.progress import reading
from .stats.reading import Reading, behind, sorted_reading

MOST_DRAWN = 64  # ranks


def main() -> None:
    """Reads the command line and runs what it names."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "inspect-log": inspect_log,
                "cluster": cluster,
                "advise": advise,
                "schedules": schedules,
                "version": version,
            },
            prog="syncbn-sim",
            description="Look inside batch normalisation over ranks.",
        )
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except BrokenPipeError:  # `| head`: what is left to say has nowhere to go, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SyncBNError as error:
        sys.exit(f"syncbn-sim: {error}")


@dataclass(frozen=True)
class LogOptions:
    """How a log of your own is read."""

    entity: str = ""
    """Column of the key by which rows belong together (user, session, site)."""
    label: str = ""
    """Column that a model would predict; it is left out of the features."""
    features: tuple[str, ...] = ()
    """Columns to measure, separated by commas or spaces; default: all but dates and identifiers."""
    missing: str = "refuse"
    """"refuse" or "impute" missing values, or "drop" rows that have one."""
    width: int = 32
    """Columns for a text feature."""
    delimiter: str = ""
    """Between fields; default: a comma, in a .tsv a tab."""
    decimal: str = "."
    """ "." or ","."""

    def read(self, file: str) -> Log:
        """Reads it, with a bar."""
        chosen = tuple(name for part in self.features for name in part.split(",") if name)
        options = {**vars(self), "features": chosen}
        with reading(file) as on_bytes:
            return read_log(Source(file, **options), on_bytes)


_Log = Annotated[LogOptions, tyro.conf.arg(name="")]


def inspect_log(file: str, /, log: _Log, rows: int = 32, ranks: int = 8, figure: str = "") -> None:
    """Measures how alike the rows of one entity are, and what that leaves of a batch. Trains nothing.

    Args:
        file: .csv or .tsv with a header, .parquet, .ndjson, or .npz with arrays x, y, entity.
        log: how it is read.
        rows: rows per rank and step.
        ranks: number of ranks.
        figure: where to draw the batch means (PNG); default: <file>-batches.png here.
    """
    target = Path(figure or f"{Path(file).stem}-batches.png")
    check_writable(target.parent, "figure")
    found_log = log.read(file)
    found = inspect(found_log.x, found_log.names, found_log.entity, log.entity or "entity", rows, ranks)
    from .report.plots import batch_means

    png = batch_means(found)
    print("\n".join(found_log.notes), "", inspection_table(found), sep="\n")
    write_figure(target, png)
    print(f"Drawn: {target}")


def cluster(
    model: str = "resnet50",
    link: str = "roce-25g",
    topology: str = "",
    devices: tuple[str, ...] = ("8,64,512,4096,65536",),
    compute_ms: float = 100.0,
    figure: str = "cluster.png",
) -> None:
    """What synchronising a network's batch norms costs on a cluster: time, share of a step, and where it stays cheap.

    Args:
        model: resnet50, mobilenet_v2, efficientnet_b3 or mlp (our own).
        link: between devices: nvlink, infiniband-ndr, roce-25g, tcp-25g or shared-memory.
        topology: devices in nodes, as SIZE:LINK,...: 8:nvlink joins each 8 by nvlink, and those by --link.
        devices: numbers of devices, separated by commas or spaces.
        compute_ms: milliseconds that one device computes in a step.
        figure: where to draw the shares (PNG).
    """
    check_writable(Path(figure).parent, "figure")
    if not compute_ms > 0:
        raise ArgumentError("compute-ms", got=compute_ms, expected="above 0", do="How long does a step take?")
    chosen, channels = parse_topology(topology, link), network_named(model)
    counts = [_whole(text, "devices") for part in devices for text in part.split(",") if text]
    costs = {wire: {p: step_cost(channels, p, chosen, wire) for p in counts} for wire in WIRE_FORMATS}
    loses = where_all_gather_loses(channels, chosen)
    finding = (
        f"the all-gather loses from {loses:,} devices on"
        if loses
        else "the all-gather does not lose up to 65,536 devices"
    )
    from .report.plots import cluster_share

    over = f"{topology}, {link}" if topology else link
    png = cluster_share(costs, compute_ms / 1e3, f"{model} over {over}, {compute_ms:g} ms of compute: {finding}")
    print(f"{model}: {len(channels)} batch norms, {sum(channels):,} channels; {over}: {chosen.source}.")
    print(f"Left out: {'; '.join(left_out(chosen, max(counts)))}.", end="\n\n")
    print(cluster_table(costs, compute_ms / 1e3))
    print(f"\nComparing wire formats in numbers of 8 bytes, {finding}. Each rank brings:")
    for wire, by_devices in costs.items():
        first = next(iter(by_devices.values()))
        print(f"  {wire}: {first.collectives} blocking collectives and {first.payload:,} bytes per step")
    last = costs["fused all-reduce"][counts[-1]]
    by_path = [1e3 * last.step_seconds(compute_ms / 1e3, overlapped) for overlapped in (False, True)]
    print(
        f"A step on {counts[-1]:,} devices takes {by_path[0]:.4g} ms with talk on the critical path, {by_path[1]:.4g} ms if all of it"
    )
    print("overlapped with computing (a layer needs its statistics at once, so little of it can).")
    write_figure(Path(figure), png)
    print(f"Drawn: {figure}")


def schedules(ranks: int = 8, elements: int = 129, out: str = ".") -> None:
    """Draws the messages of an all-reduce by each of the five schedules, as recorded, and counts them.

    Args:
        ranks: how many, 64 at most: the ring's arrows grow with their square.
        elements: float64 numbers in the array.
        out: folder for the five PNGs.
    """
    from .comm.schedules import SCHEDULES, cost, record
    from .report.plots import space_time

    _whole(ranks, "ranks")
    _whole(elements, "elements")
    if ranks > MOST_DRAWN:
        raise ArgumentError(
            "ranks", got=ranks, expected=f"at most {MOST_DRAWN}, of which a picture still shows something",
            do="comm.schedules.cost(name, ranks, bytes) counts for any number, at once.",
        )  # fmt: skip
    check_writable(Path(out), "out")
    print(f"All-reduce of {elements} float64 between {ranks} ranks:")
    for name in SCHEDULES:
        promised, sent = cost(name, ranks, 8 * elements), record(name, ranks, np.ones(elements))
        print(f"  {name}: {promised.rounds} rounds, {len(sent)} messages, {sum(m.bytes for m in sent):,} bytes")
        write_figure(Path(out) / f"{name}-{ranks}.png", space_time(name, ranks, elements))
    print(f"Drawn: {Path(out) / f'<schedule>-{ranks}.png'}")


def advise(
    log: _Log,
    devices: int,
    rows: int,
    entity_rows: tuple[str, ...] = (),
    entities: int | None = None,
    icc: float | None = None,
    link: str = "roce-25g",
    topology: str = "",
    compute_ms: float = 100.0,
    model: str = "resnet50",
    data: str = "",
) -> None:
    """Is SyncBN worth it for this job? What it would change, what it costs, what else there is, what it does not fix.

    Say how rows are read: with --data (a log, in the order in which it stands), or with --entity-rows and --icc (rows sorted by entity).

    Args:
        log: how --data is read, as inspect-log reads it.
        devices: number of devices.
        rows: rows per device and step.
        entity_rows: rows of one entity (user, session, class) that stand together, if all have about equally many: 58. Else all
            entities of the log by size: 4x1000,58x100,900x1 are 1000 entities of 4 rows, 100 of 58, one of 900. 1: shuffled.
        entities: with one number of rows: how many entities there are in all. Default: so many that none is on two devices, and
            chance brings no two rows of one together. Say it for classes: --entities 10.
        icc: intra-class correlation, how alike the rows of one entity are: 0 no more than others, 1 equal. inspect-log measures it.
        link: between devices: nvlink, infiniband-ndr, roce-25g, tcp-25g or shared-memory.
        topology: devices in nodes, as SIZE:LINK,...: 8:nvlink joins each 8 by nvlink, and those by --link.
        compute_ms: milliseconds that one device computes in a step.
        model: resnet50, mobilenet_v2, efficientnet_b3 or mlp: whose batch norms.
        data: a log of your own, from which order and correlation are measured.
    """
    _whole(devices, "devices")
    _whole(rows, "rows")
    if data:
        if entity_rows or entities is not None or icc is not None:
            raise ArgumentError(
                "advise", got="--data with --entity-rows, --entities or --icc", expected="one or the other",
                do="Leave them out: they are measured in the log.",
            )  # fmt: skip
        found_log = log.read(data)
        found = inspect(found_log.x, found_log.names, found_log.entity, log.entity or "entity", rows, devices)
        order, icc = found.orders["as it stands"].reading, found.mean_correlation
        print(f"Measured in {data}, in the order in which it stands: mean correlation over columns {icc:.3f}.")
        print("\n".join(cautions(found)), end="\n\n")
    else:
        order = _sorted_order(entity_rows, entities)
        icc = _possible(icc, order, rows)
    links, channels = parse_topology(topology, link), network_named(model)
    job = Job(devices, rows, order, icc, compute_ms / 1e3, lambda ranks: step_cost(channels, ranks, links))
    print("\n".join(advice(job, links)))


def _possible(icc: float | None, order: Reading, rows: int) -> float:
    """A typed correlation, if a population can have it."""
    if icc is None:
        raise ArgumentError(
            "icc", got="none", expected="--icc with --entity-rows, or --data", do="For example --icc 0.3."
        )
    largest = behind(order, 0.0, rows).adjusted_size
    if 1 + (largest - 1) * icc <= 0:
        raise ArgumentError(
            "icc", got=icc, expected=f"above {1 / (1 - largest):.3g} where a row meets {largest:.3g} of its entity",
            do="Rows of one entity can't all be unlike: their mean would have a negative variance.",
        )  # fmt: skip
    return icc


def _sorted_order(entity_rows: tuple[str, ...], entities: int | None) -> Reading:
    """Rows sorted by entity, from sizes such as ("58",) or ("4x1000,58x100",)."""
    sizes, counts = [], []
    for part in filter(None, ",".join(entity_rows).split(",")):
        size, times, count = part.partition("x")
        if not size.isdigit() or not int(size) or (times and not (count.isdigit() and int(count))):
            raise ArgumentError(
                "entity-rows", got=part, expected="rows, or ROWSxENTITIES", do="For example 58, or 4x1000,58x100."
            )
        sizes.append(int(size))
        counts.append(int(count or 1))
    if not sizes:
        raise ArgumentError(
            "entity-rows",
            got="none",
            expected="--entity-rows with --icc, or --data",
            do="For example --entity-rows 58.",
        )
    if any("x" in part for part in entity_rows):
        if entities is not None:
            raise ArgumentError(
                "entities", got=f"{entities} with sizes by number", expected="one or the other",
                do="ROWSxENTITIES says already how many there are.",
            )  # fmt: skip
        return sorted_reading(np.repeat(sizes, counts))
    if entities is None:
        return sorted_reading(np.array(sizes), np.array(counts))
    if len(sizes) > 1 or entities < 2:
        raise ArgumentError(
            "entities", got=entities, expected="at least 2, of one number of rows", do="For example --entity-rows 180 --entities 10."
        )  # fmt: skip
    return sorted_reading(np.full(entities, sizes[0]))


def _whole(value: str | int, name: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentError(name, got=value, expected="whole numbers of at least 1", do=f"For example --{name} 8.")
    return number


def version() -> None:
    """Prints the version."""
    from . import __version__

    print(__version__)
