"""What synchronising costs on a cluster, as a table."""

from __future__ import annotations

from collections.abc import Mapping

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
