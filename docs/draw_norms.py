"""`make animation` draws this too: which values each norm takes its mean over, as cells of one box of rows, channels and positions.

Nothing is typed: two values are of one cell if moving the one moves what becomes of the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, launch

OUT = Path(__file__).parent / "_static" / "norms.png"
RANKS, ROWS, CHANNELS, POSITIONS = 2, 4, 6, 3
NORMS: dict[str, Callable[[Communicator], nn.Module]] = {
    "BatchNorm": lambda comm: nn.BatchNorm(CHANNELS),
    "GhostBatchNorm, 2 stretches": lambda comm: nn.GhostBatchNorm(CHANNELS, 2),
    "SyncBatchNorm": lambda comm: nn.SyncBatchNorm(CHANNELS, comm=comm),
    "LayerNorm": lambda comm: nn.LayerNorm((CHANNELS, POSITIONS)),
    "GroupNorm, 2 groups": lambda comm: nn.GroupNorm(2, CHANNELS),
    "InstanceNorm": lambda comm: nn.InstanceNorm(CHANNELS),
}
# Okabe & Ito's, told apart by colour-blind readers too.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]


def cells(build: Callable[[Communicator], nn.Module]) -> np.ndarray:
    """The number of each value's cell, (rows of all ranks, channels, positions)."""
    x = np.random.default_rng(0).normal(size=(RANKS * ROWS, CHANNELS, POSITIONS))

    def outputs(x: np.ndarray) -> np.ndarray:
        return np.concatenate(launch(lambda comm: build(comm)(np.split(x, RANKS)[comm.rank]), RANKS, "lockstep"))

    before, found = outputs(x), np.full(x.shape, -1)
    for place in np.ndindex(x.shape):
        if found[place] < 0:
            moved = x.copy()
            moved[place] += 1
            found[outputs(moved) != before] = found.max() + 1
    return found


def colours(found: np.ndarray) -> np.ndarray:
    """A colour for each value. Cells side by side differ, and so do all that are below one another: three hues, three shades."""
    corners = np.array([np.argwhere(found == cell).min(axis=0) for cell in range(found.max() + 1)])
    stretch, group = (np.unique(corners[:, axis], return_inverse=True)[1] for axis in (0, 1))
    shade = 0.3 * (stretch // 3)[:, None]
    mixed = (1 - shade) * to_rgba_array(COLOURS)[(2 * stretch + group) % len(COLOURS)] + shade
    return np.array([to_hex(each) for each in mixed])[found]


def draw() -> None:
    """Writes the picture; what it shows stands in the file too, as the number of cells of each norm."""
    figure = Figure(figsize=(9, 7), dpi=130)
    counts = {}
    for k, (name, build) in enumerate(NORMS.items()):
        found = cells(build)
        counts[name] = int(found.max()) + 1
        # Channels to the right, positions to the back, rows downwards, with a gap between the ranks.
        shown = np.insert(colours(found), ROWS, "", axis=0)[::-1].transpose(1, 2, 0)
        corner = (k % 3 / 3 + 0.015, 0.5 * (1 - k // 3) - 0.02, 0.33, 0.5)
        axes = figure.add_axes(corner, projection="3d", proj_type="ortho", computed_zorder=True)
        face = np.where(shown == "", COLOURS[0], shown)
        axes.voxels(shown != "", facecolors=face, edgecolor="white", linewidth=0.6, shade=False)
        axes.set_box_aspect((CHANNELS, POSITIONS, RANKS * ROWS + 1), zoom=1.02)
        axes.view_init(elev=20, azim=-62)
        axes.set_axis_off()
        figure.text(corner[0] + 0.165, corner[1] + 0.475, name, ha="center", fontsize=11)
        axes.text(CHANNELS / 2, 0, -0.5, "channels", "x", ha="center", va="top", fontsize=7)
        axes.text(CHANNELS, POSITIONS / 2, -0.7, "positions", "y", ha="center", va="top", fontsize=7)
        for rank in range(RANKS):
            middle = (RANKS - 1 - rank) * (ROWS + 1) + ROWS / 2
            axes.text(-0.4, 0, middle, f"rank {rank},\n{ROWS} rows", ha="right", va="center", fontsize=7)
    figure.savefig(OUT, metadata={"Description": json.dumps(counts)})


if __name__ == "__main__":
    draw()
