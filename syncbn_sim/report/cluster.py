"""What synchronising costs on a cluster, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from ..cluster.links import Link, Topology
from ..cluster.step_cost import CHEAP, StepCost
from .tables import aligned


def cluster_table(costs: Mapping[str, Mapping[int, StepCost]], compute: float) -> str:
    """Talk per step, its share, and the compute from which it stays cheap, by devices and wire format."""
    header = [
        "devices",
        "wire format",
        "talk per step, ms",
        f"share of a step ({1e3 * compute:g} ms compute)",
        f"at most {100 * CHEAP:g} % from, ms",
    ]
    devices = next(iter(costs.values()))
    rows = [
        [
            f"{p:,}",
            wire,
            f"{1e3 * c[p].seconds:.3g}",
            f"{100 * c[p].share(compute):.1f} %",
            f"{1e3 * c[p].compute_for(CHEAP):.3g}",
        ]
        for p in devices
        for wire, c in costs.items()
    ]
    return "\n".join(aligned([header, *rows]))


def left_out(link: Link | Topology, ranks: int) -> list[str]:
    """What a time over this link does not hold, or holds by extrapolation."""
    lines = []
    if isinstance(link, Link):
        lines.append("slower links between nodes (one link joins all devices here: see --topology)")
    for units, _, level in link.levels_of(ranks):
        if level.base is None:
            lines.append(
                f"what the library adds to each call ({level.source}: bare messages, so this is not to be compared with a measured link)"
            )
        if level.measured_to is not None and level.measured_to < units:
            lines.append(f"whatever changes beyond the {level.measured_to} devices with which the link was measured")
    return lines
