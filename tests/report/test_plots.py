"""Pictures in which everything can be seen."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from syncbn_sim.cluster.links import parse_topology
from syncbn_sim.cluster.networks import network_named
from syncbn_sim.cluster.step_cost import WIRE_FORMATS, step_cost
from syncbn_sim.diagnostics.inspect_log import inspect
from syncbn_sim.diagnostics.scatter import batch_means
from syncbn_sim.experiments import arms_figure
from syncbn_sim.report import plots
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


def test_every_power_of_ten_within_reach_has_its_tick() -> None:
    """Also those that stand in the margin: -100 beside a mean of -80."""
    for sizes, wanted in (((-80, -1, 0.5, -2), -100), ((-8, -0.01, -0.02, -0.3), -10), ((90, 1, 0.3, 2), 100)):
        axes = drawn(dict(zip(ARMS, sizes, strict=True)))[0].axes[0]
        assert wanted in axes.get_xticks()
        labels = [label.get_text().replace("\N{MINUS SIGN}", "-") for label in axes.get_xticklabels()]
        assert str(wanted) in labels


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind the PNGs, drawn."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *args, **kwargs) -> None:
        savefig(figure, *args, **kwargs)
        FigureCanvasAgg(figure)
        figure.canvas.draw()
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def points_within(axes, radius: float) -> bool:
    """Whether every point of every line of numbers is at least so many points of 1/72 inch inside the frame."""
    frame, least = axes.get_window_extent(), radius / 72 * axes.figure.dpi
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    for line in lines:
        x, y = axes.transData.transform(np.column_stack(line.get_data())).T
        inside = (x > frame.x0 + least) & (x < frame.x1 - least) & (y > frame.y0 + least) & (y < frame.y1 - least)
        if not inside.all():
            return False
    return bool(lines)


def text_is_whole(figure: Figure) -> bool:
    """Whether no text reaches beyond the picture, and no two labels of an axis touch."""
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        texts = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for text in filter(lambda text: text.get_text(), texts):
            box = text.get_window_extent(renderer)
            if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1:
                return False
        for labels, ends in ((axes.get_xticklabels(), ("x0", "x1")), (axes.get_yticklabels(), ("y0", "y1"))):
            boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            stretches = sorted(tuple(getattr(box, end) for end in ends) for box in boxes if figure.bbox.overlaps(box))
            if any(left[1] > right[0] for left, right in pairwise(stretches)):
                return False
    return True


COUNTS = {"ordinary": (8, 64, 512, 4096, 65536), "alone": (1,), "few": (1, 2, 4)}


@pytest.mark.parametrize("devices", COUNTS)
@pytest.mark.parametrize("milliseconds", [0.1, 100, 1e6])
def test_shares_stand_clear_of_the_frame(devices: str, milliseconds: float, kept: list[Figure]) -> None:
    link, channels = parse_topology("", "roce-25g"), network_named("resnet50")
    costs = {wire: {p: step_cost(channels, p, link, wire) for p in COUNTS[devices]} for wire in WIRE_FORMATS}
    plots.cluster_share(costs, milliseconds / 1e3, "title")
    axes = kept[0].axes[0]
    assert points_within(axes, 5)
    if (devices, milliseconds) == ("ordinary", 100):  # the all-gather takes 99 %, what one would use 2 to 8
        heights = [axes.transData.transform((8, cost[4096].share(0.1) * 100))[1] for cost in costs.values()]
        assert min(np.diff(sorted(heights))) > 0.08 * axes.get_window_extent().height


@pytest.mark.parametrize(("schedule", "ranks"), [("ring", 1), ("star", 2), ("ring", 8), ("star", 40), ("ring", 16)])
def test_messages_stand_clear_of_the_frame_and_rounds_of_one_another(
    schedule: str, ranks: int, kept: list[Figure]
) -> None:
    plots.space_time(schedule, ranks, 3)
    axes = kept[0].axes[0]
    assert text_is_whole(kept[0])
    ends = [axes.transData.transform(end) for arrow in axes.texts for end in (arrow.xy, arrow.xyann)]
    frame = axes.get_window_extent()
    assert all(frame.x0 + 8 < x < frame.x1 - 8 and frame.y0 + 8 < y < frame.y1 - 8 for x, y in ends)
    if ranks == 1:
        assert "0 messages" in axes._left_title.get_text()
        assert "widest arrow: 0 bytes" in axes._left_title.get_text()


def test_long_names_are_not_cut(kept: list[Figure]) -> None:
    entity = np.repeat(np.arange(100), 20)
    x = np.random.default_rng(0).normal(size=(100, 1))[entity] + 0.1 * np.random.default_rng(1).normal(size=(2000, 1))
    name = "a_very_long_name_of_a_column_that_somebody_has_exported_from_somewhere"
    batch_means(inspect(x, [name], entity, f"{name}_key", 32, 8))
    assert text_is_whole(kept[0])


def curves_of(**last: float) -> SimpleNamespace:
    """A result whose arms end here, as fractions, in three seeds."""
    arms = {arm.replace("_", "+"): np.array([value, value + 0.001, value + 0.002]) for arm, value in last.items()}
    changes = arms["sorted+local"] - arms["iid+local"]
    mean = float(changes.mean())
    shares = {"sorted+local": Estimate(mean, mean - 0.01, mean + 0.01, changes.tolist())}
    return SimpleNamespace(
        task="own",
        metric="r2",
        ranks=2,
        rows_are="rows",
        sorted_by="user",
        recovery=None,
        config={"rows": 8, "seeds": 3},
        differences=shares,
        arms={arm: {"r2": SimpleNamespace(values=v)} for arm, v in arms.items()},
        curves={
            arm: {"step": [1.0, 2.0], "r2": [v[0] / 2, v[1]], "low": [v[0] / 2, v[0]], "high": [v[1] / 2, v[2]]}
            for arm, v in arms.items()
        },
    )


def test_one_lost_arm_does_not_squash_the_curves_of_the_rest(kept: list[Figure]) -> None:
    arms_figure.order_gap([curves_of(iid_local=0.6, sorted_local=-99.0, sorted_sync=0.5)])
    axes = kept[0].axes[0]
    ends = {arm: axes.transData.transform((2, y))[1] for arm, y in (("iid", 60), ("sync", 50), ("local", -9900))}
    height = axes.get_window_extent().height
    assert ends["iid"] - ends["sync"] > 0.01 * height  # ten times as far as on a straight axis
    assert ends["sync"] - ends["local"] < 0.95 * height
    assert "logarithmic beyond" in axes.get_ylabel()
    assert points_within(axes, 4)
    assert text_is_whole(kept[0])


def test_an_arm_that_has_diverged_leaves_the_picture_of_the_others(kept: list[Figure]) -> None:
    arms_figure.order_gap([curves_of(iid_local=0.6, sorted_local=np.nan, sorted_sync=0.5)])
    left, right = kept[0].axes
    assert left.get_yscale() == right.get_xscale() == "linear"
    low, high = left.get_ylim()
    assert low < 50 < 60 < high
