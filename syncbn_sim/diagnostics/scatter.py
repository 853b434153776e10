"""The picture of a log: how far means of local batches scatter in each order."""

from __future__ import annotations

import numpy as np

from ..data.columns import shortened
from ..report.plots import png, sheet, titled
from .inspect_log import Inspection


def batch_means(found: Inspection) -> bytes:
    """Means of single local batches, in each order, against the population: one row of dots per order, and the predicted spread.

    Returns:
        A PNG.
    """
    figure, axes = sheet(9, 4.2)
    rng = np.random.default_rng(0)
    for place, (order, colour) in enumerate(zip(found.orders.values(), ("#555555", "#D55E00", "#0072B2"), strict=True)):
        means = np.array(order.batch_means)
        axes.plot(means, place + rng.uniform(-0.25, 0.25, len(means)), ".", color=colour, markersize=4, alpha=0.6)
        axes.errorbar(0, place, xerr=2 * order.predicted_sd, color="black", capsize=6, linewidth=2, zorder=3)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(found.orders)), list(found.orders))
    axes.invert_yaxis()
    axes.set_xlabel(f"mean of {shortened(found.typical)!r} over one batch, in sd of the feature (0: all rows)")
    spread = {name: float(np.std(order.batch_means)) for name, order in found.orders.items()}
    wider = spread["sorted"] / max(spread["shuffled"], 1e-12)
    titled(
        axes,
        f"Means of {found.rows_per_rank} rows scatter {wider:.1f} x as far when sorted by {shortened(found.sorted_by)}\n"
        f"dots: batches (correlation {found.correlation[found.typical]:.2f}; mean over columns "
        f"{found.mean_correlation:.2f}); bars: predicted +- 2 sd",
        grid="x",
    )
    return png(figure)
