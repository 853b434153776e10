"""Commands about a cluster: what talk costs, and how it goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..cluster.links import parse_topology
from ..cluster.networks import network_named
from ..cluster.step_cost import WIRE_FORMATS, step_cost, where_all_gather_loses
from ..errors import ArgumentError
from ..report.cluster import cluster_table, left_out
from ..report.files import check_writable, write_figure
from ..report.plots import cluster_share, space_time
from .arguments import LinkName, Milliseconds, ModelName, Nodes, seconds, whole

MOST_DRAWN = 64  # ranks


def cluster(
    model: ModelName = "resnet50",
    link: LinkName = "roce-25g",
    topology: Nodes = "",
    devices: tuple[str, ...] = ("8", "64", "512", "4096", "65536"),
    compute_ms: Milliseconds = 100.0,
    figure: str = "cluster.png",
) -> None:
    """What synchronising a network's batch norms costs on a cluster: time, share of a step, and where it stays cheap.

    Args:
        model, link, topology, compute_ms: as `arguments` says.
        devices: numbers of devices, separated by commas or spaces.
        figure: where to draw the shares (PNG).
    """
    check_writable(Path(figure).parent, "figure")
    compute = seconds(compute_ms)
    chosen, channels = parse_topology(topology, link), network_named(model)
    counts = [whole(text, "devices") for text in devices]
    costs = {wire: {p: step_cost(channels, p, chosen, wire) for p in counts} for wire in WIRE_FORMATS}
    loses = where_all_gather_loses(channels, chosen)
    where = f"loses from {loses:,} devices on" if loses else "does not lose up to 65,536 devices"
    finding = f"the all-gather {where}"
    over = f"{topology}, {link}" if topology else link
    png = cluster_share(costs, compute, f"{model} over {over}, {compute_ms:g} ms of compute:\n{finding}")
    print(f"{model}: {len(channels)} batch norms, {sum(channels):,} channels; {over}: {chosen.source}.")
    print(f"Left out: {'; '.join(left_out(chosen, max(counts)))}.", end="\n\n")
    print(cluster_table(costs, compute))
    print(f"\nComparing wire formats in numbers of 8 bytes, {finding}. Each rank brings:")
    for wire, by_devices in costs.items():
        first = next(iter(by_devices.values()))
        print(f"  {wire}: {first.collectives} blocking collectives and {first.payload:,} bytes per step")
    last = costs["fused all-reduce"][counts[-1]]
    by_path = [1e3 * last.step_seconds(compute, overlapped) for overlapped in (False, True)]
    takes = f"{by_path[0]:.4g} ms with talk on the critical path, {by_path[1]:.4g} ms if all of it"
    print(f"A step on {counts[-1]:,} devices takes {takes}")
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
    from ..cluster.recorded import record
    from ..comm.schedules import SCHEDULES, cost

    whole(ranks, "ranks")
    whole(elements, "elements")
    if ranks > MOST_DRAWN:
        expected = f"at most {MOST_DRAWN}, of which a picture still shows something"
        do = "comm.schedules.cost(name, ranks, bytes) counts for any number, at once."
        raise ArgumentError("ranks", got=ranks, expected=expected, do=do)
    check_writable(Path(out), "out")
    print(f"All-reduce of {elements} float64 between {ranks} ranks:")
    for name in SCHEDULES:
        promised, sent = cost(name, ranks, 8 * elements), record(name, ranks, np.ones(elements))
        print(f"  {name}: {promised.rounds} rounds, {len(sent)} messages, {sum(m.bytes for m in sent):,} bytes")
        write_figure(Path(out) / f"{name}-{ranks}.png", space_time(name, ranks, elements))
    print(f"Drawn: {Path(out) / f'<schedule>-{ranks}.png'}")
