"""What synchronising costs on a cluster, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from ..cluster.links import Link, Topology
from ..cluster.step_cost import CHEAP, StepCost
from .tables import aligned


def cluster_table(costs: Mapping[str, Mapping[int, StepCost]], compute: float) -> str:
    """Talk per step, its share, and the compute from which it stays cheap, by devices and wire format."""
    of_a_step = f"share of a step ({1e3 * compute:g} ms compute)"
    rows = [["devices", "wire format", "talk per step, ms", of_a_step, f"at most {100 * CHEAP:g} % from, ms"]]
    for devices in next(iter(costs.values())):
        for wire, by_devices in costs.items():
            cost = by_devices[devices]
            talk, share, from_on = cost.seconds, cost.share(compute), cost.compute_for(CHEAP)
            rows.append([f"{devices:,}", wire, f"{1e3 * talk:.3g}", f"{100 * share:.1f} %", f"{1e3 * from_on:.3g}"])
    return "\n".join(aligned(rows))


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
