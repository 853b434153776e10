"""The command `syncbn-sim`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .cluster.advice import Job
from .cluster.advice import advise as advice
from .cluster.links import link_named
from .cluster.networks import network_named
from .cluster.step_cost import WIRE_FORMATS, step_cost, where_all_gather_loses
from .data.own_log import Source, read_log
from .errors import ArgumentError, SyncBNError
from .experiments.inspect_log import inspect
from .report.progress import reading
from .report.text import cluster_table, inspection_table


def main() -> None:
    """Reads the command line and runs what it names."""
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "inspect-log": inspect_log,
                "cluster": cluster,
                "advise": advise,
                "schedules": schedules,
                "version": version,
            },
            description="Look inside batch normalisation over ranks.",
        )
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except SyncBNError as error:
        sys.exit(f"syncbn-sim: {error}")


def inspect_log(
    file: str,
    /,
    entity: str,
    label: str = "",
    rows: int = 32,
    ranks: int = 8,
    features: tuple[str, ...] = (),
    missing: str = "refuse",
    width: int = 32,
    delimiter: str = "",
    decimal: str = ".",
    figure: str = "",
) -> None:
    """Measures how alike the rows of one entity are, and what that leaves of a local batch. Trains nothing.

    Args:
        file: .csv or .tsv with a header, .parquet, .ndjson, or .npz with arrays x, y, entity.
        entity: column of the key by which rows belong together (user, session, site).
        label: column that a model would predict; it is left out of the features.
        rows: rows a rank and step.
        ranks: number of ranks.
        features: columns to measure, separated by commas or spaces; default: all but dates and identifiers.
        missing: "refuse" or "impute" missing values, or "drop" rows that have one.
        width: columns for a text feature.
        delimiter: between fields; default: a comma, in a .tsv a tab.
        decimal: "." or ",".
        figure: where to draw the batch means (PNG); default: <file>-batches.png here.
    """
    chosen = tuple(name for part in features for name in part.split(",") if name)
    with reading(file) as on_bytes:
        log = read_log(Source(file, label, entity, chosen, missing, width, delimiter, decimal), on_bytes)
    found = inspect(log.x, log.names, log.entity, entity or "entity", rows, ranks)
    from .report.plots import batch_means

    target = Path(figure or f"{Path(file).stem}-batches.png")
    png = batch_means(found)
    print("\n".join(log.notes), "", inspection_table(found), sep="\n")
    target.write_bytes(png)
    print(f"Drawn: {target}")


def cluster(
    model: str = "resnet50",
    link: str = "roce-25g",
    devices: tuple[str, ...] = ("8,64,512,4096,65536",),
    compute_ms: float = 100.0,
    figure: str = "cluster.png",
) -> None:
    """What synchronising a network's batch norms costs on a cluster: time, share of a step, and where it stays under 5 %.

    Args:
        model: resnet50, mobilenet_v2, efficientnet_b3 or mlp (our own).
        link: nvlink, infiniband-ndr, roce-25g, tcp-25g or shared-memory.
        devices: numbers of devices, separated by commas or spaces.
        compute_ms: milliseconds that one device computes in a step.
        figure: where to draw the shares (PNG).
    """
    chosen, channels = link_named(link), network_named(model)
    counts = [_whole(text, "devices") for part in devices for text in part.split(",") if text]
    costs = {wire: {p: step_cost(channels, p, chosen, wire) for p in counts} for wire in WIRE_FORMATS}
    loses = where_all_gather_loses(channels, chosen)
    finding = (
        f"the all-gather loses from {loses:,} devices on"
        if loses
        else "the all-gather does not lose up to 65,536 devices"
    )
    from .report.plots import cluster_share

    png = cluster_share(costs, compute_ms / 1e3, f"{model} over {link}, {compute_ms:g} ms of compute: {finding}")
    print(f"{model}: {len(channels)} batch norms, {sum(channels):,} channels; {link}: {chosen.source}.", end="\n\n")
    print(cluster_table(costs, compute_ms / 1e3))
    print(f"\nComparing wire formats, {finding}. Each rank brings:")
    for wire, by_devices in costs.items():
        first = next(iter(by_devices.values()))
        print(f"  {wire}: {first.collectives} blocking collectives and {first.payload:,} bytes a step")
    last = costs["fused all-reduce"][counts[-1]]
    by_path = [1e3 * last.step_seconds(compute_ms / 1e3, overlapped) for overlapped in (False, True)]
    print(
        f"A step on {counts[-1]:,} devices takes {by_path[0]:.4g} ms with talk on the critical path, {by_path[1]:.4g} ms if all of it"
    )
    print("overlapped with computing (a layer needs its statistics at once, so little of it can).")
    Path(figure).write_bytes(png)
    print(f"Drawn: {figure}")


def schedules(ranks: int = 8, elements: int = 129, out: str = ".") -> None:
    """Draws the messages of an all-reduce by each of the five schedules, as recorded, and counts them.

    Args:
        ranks: how many.
        elements: float64 numbers in the array.
        out: folder for the five PNGs.
    """
    from .comm.schedules import SCHEDULES, cost, record
    from .report.plots import space_time

    _whole(ranks, "ranks")
    print(f"All-reduce of {elements} float64 between {ranks} ranks:")
    for name in SCHEDULES:
        promised, sent = cost(name, ranks, 8 * elements), record(name, ranks, np.ones(elements))
        print(f"  {name}: {promised.rounds} rounds, {len(sent)} messages, {sum(m.bytes for m in sent):,} bytes")
        (Path(out) / f"{name}-{ranks}.png").write_bytes(space_time(name, ranks, elements))
    print(f"Drawn: {Path(out) / f'<schedule>-{ranks}.png'}")


def advise(
    devices: int,
    rows: int,
    entity_rows: int = 0,
    icc: float = -2.0,
    link: str = "roce-25g",
    compute_ms: float = 100.0,
    model: str = "resnet50",
    data: str = "",
    entity: str = "",
) -> None:
    """Is SyncBN worth it for this job? What it would change, what it costs, what to try first, what it does not fix.

    Args:
        devices: number of devices.
        rows: rows a device and step.
        entity_rows: rows of one entity (user, session) that stand together as they are read; 1: shuffled.
        icc: intra-class correlation, 0 to 1: how alike the rows of one entity are.
        link: nvlink, infiniband-ndr, roce-25g, tcp-25g or shared-memory.
        compute_ms: milliseconds that one device computes in a step.
        model: resnet50, mobilenet_v2, efficientnet_b3 or mlp: whose batch norms.
        data: a log of your own, from which entity_rows and icc are measured.
        entity: its column of the key.
    """
    if data:
        with reading(data) as on_bytes:
            log = read_log(Source(data, entity=entity), on_bytes)
        found = inspect(log.x, log.names, log.entity, entity or "entity", rows, devices)
        icc, entity_rows = found.mean_correlation, max(1, round(found.readings["sorted"].cluster_size))
        print(f"Measured in {data}: icc {icc:.3f}, {entity_rows} rows of an entity together when sorted.", end="\n\n")
    if entity_rows < 1 or icc < -1:
        raise ArgumentError(
            "advise", got="neither --entity-rows with --icc nor --data", expected="one of them",
            do="For example --entity-rows 58 --icc 0.3.",
        )  # fmt: skip
    cost = step_cost(network_named(model), _whole(devices, "devices"), link_named(link))
    print("\n".join(advice(Job(devices, rows, entity_rows, icc, compute_ms / 1e3, cost))))


def _whole(value: str | int, name: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentError(
            name, got=value, expected="whole numbers of at least 1", do="For example --devices 8,64,512."
        )
    return number


def version() -> None:
    """Prints the version."""
    from . import __version__

    print(__version__)
