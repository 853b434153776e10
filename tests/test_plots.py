"""Pictures in which everything can be seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from syncbn_sim.experiments import arms_figure
from syncbn_sim.stats.estimates import Estimate


def drawn(by_arm: dict[str, float]) -> tuple[Figure, list[tuple[float, float]]]:
    """The picture of differences of these sizes (in points), and where each mean stands, in pixels."""
    rng = np.random.default_rng(0)
    values = {arm: difference / 100 + 0.001 * rng.normal(size=5) for arm, difference in by_arm.items()}
    shares = {arm: Estimate(v.mean(), v.mean() - 0.001, v.mean() + 0.001, tuple(v)) for arm, v in values.items()}
    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    arms_figure._differences(axes, SimpleNamespace(metric="auc", differences=shares, config={"seeds": 5}))
    figure.canvas.draw()
    means = [(100 * share.mean, place) for place, share in enumerate(shares.values())]
    return figure, [tuple(point) for point in axes.transData.transform(means)]


ARMS = ("sorted+local", "sorted+sync", "sorted+layer", "sorted+none")


@pytest.mark.parametrize("sizes", [(-80, -1, 0.5, -2), (-3, -1, 0.5, -2), (-80, -1, -30, 0.5)])
def test_one_huge_difference_does_not_squash_the_rest(sizes: tuple[float, ...]) -> None:
    figure, points = drawn(dict(zip(ARMS, sizes, strict=True)))
    across = sorted(x for x, _ in points)
    width = figure.axes[0].get_window_extent().width
    assert min(np.diff(across)) > 0.04 * width


@pytest.mark.parametrize("sizes", [(-80, -1, 0.5, -2), (-3, -1, 0.5, -2), (0, 0, 0, 0)])
def test_markers_do_not_touch_the_frame(sizes: tuple[float, ...]) -> None:
    figure, points = drawn(dict(zip(ARMS, sizes, strict=True)))
    frame = figure.axes[0].get_window_extent()
    radius = 7 / 72 * figure.dpi  # twice that of a marker
    for x, y in points:
        assert frame.x0 + radius < x < frame.x1 - radius
        assert frame.y0 + radius < y < frame.y1 - radius


def test_an_ordinary_picture_has_a_straight_axis() -> None:
    axes = drawn(dict(zip(ARMS, (-3, -1, 0.5, -2), strict=True)))[0].axes[0]
    assert axes.get_xscale() == "linear"
    assert "logarithmic" not in axes.get_xlabel()
    axes = drawn(dict(zip(ARMS, (-80, -1, 0.5, -2), strict=True)))[0].axes[0]
    assert "logarithmic beyond" in axes.get_xlabel()
