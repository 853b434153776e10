"""What a batch is worth, held against drawn batches of populations of every kind: few and many entities, a giant, any order."""

from __future__ import annotations

import numpy as np
import pytest

from syncbn_sim import stats
from syncbn_sim.data.orders import batches, iid, sorted_by_entity
from syncbn_sim.stats.reading import TRIED, LagReading, MeasuredReading, Reading

N, W, TOTAL = 16, 8, 8192  # rows per rank, ranks, rows in all: 64 steps


def power_law(entities: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.minimum(256, np.floor(4 * (1 - rng.random(entities)) ** (-1 / 1.3))).astype(int)


def filled(sizes: np.ndarray) -> np.ndarray:
    """With one more entity that makes it `TOTAL` rows."""
    return np.append(sizes, TOTAL - sizes.sum())


SIZES = {
    "ten classes": filled(np.full(9, 819)),
    "two uneven classes": np.array([6000, 2192]),
    "a power law": filled(power_law(520)),
    "a giant and dwarfs": filled(power_law(300)),
    "three giants": filled(np.array([3600, 2000] + [3] * 400)),
    "equal sizes": filled(np.full(141, 58)),
    "pairs": np.full(4096, 2),
}
MANY = 1000  # entities


def drawn(sizes: np.ndarray, rho: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of these entities, with as many features for each: the mean over *which* entity is different is then exact."""
    rng, entity, entities = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    each = np.tile(np.eye(entities) * entities**0.5, -(-200 // entities)) if entities < MANY else None
    own = rng.normal(size=(entities, 100)) if each is None else each
    x = rho**0.5 * own[entity] + (1 - rho) ** 0.5 * rng.normal(size=(len(entity), own.shape[1]))
    return x - x.mean(axis=0), entity


def in_windows(order: np.ndarray, rng: np.random.Generator, window: int = 300) -> np.ndarray:
    """Shuffled inside windows, the first of which begins anywhere."""
    order = np.roll(order, rng.integers(window))
    return order[np.argsort(np.arange(len(order)) // window + rng.random(len(order)))]


def dealt(order: np.ndarray) -> np.ndarray:
    """Like cards to the ranks: neighbouring rows of `order` end on different ranks."""
    return np.concatenate([order[rank::W] for rank in range(W)])


def as_a_file(entity: np.ndarray) -> np.ndarray:
    """Long sessions cut up and mixed: neither sorted nor shuffled."""
    rng = np.random.default_rng(4)
    session = np.arange(len(entity)) // 7
    return np.argsort(rng.permutation(session.max() + 1)[session], kind="stable")


CASES = [
    *((name, "sorted") for name in SIZES),
    *((name, "shuffled") for name in ("ten classes", "a giant and dwarfs", "pairs")),
    *((name, "windowed") for name in ("ten classes", "a giant and dwarfs", "equal sizes")),
    *((name, "dealt") for name in ("ten classes", "equal sizes")),
    *((name, "as it stands") for name in ("ten classes", "a power law", "a giant and dwarfs")),
]


def reading_and_orders(sizes: np.ndarray, entity: np.ndarray, kind: str, epochs: int):
    rng = np.random.default_rng(3)
    stands = {"as it stands": as_a_file(entity), "dealt": dealt(sorted_by_entity(entity, rng))}
    reading: Reading = {
        "sorted": lambda: stats.sorted_reading(sizes),
        "shuffled": lambda: stats.shuffled_reading(sizes),
        "windowed": lambda: stats.sorted_reading(sizes).windowed(300),
    }.get(kind, lambda: MeasuredReading(entity[stands[kind]]))()

    def orders():
        for _ in range(epochs):
            if kind in stands:
                yield np.roll(stands[kind], rng.integers(len(entity)))
            elif kind == "shuffled":
                yield iid(entity, rng)
            else:
                order = sorted_by_entity(entity, rng)
                yield in_windows(order, rng) if kind == "windowed" else order

    return reading, orders()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_predicted_variance_of_the_mean_is_that_of_drawn_batches(name: str, kind: str) -> None:
    """Within 3 %, of local and of joined batches, as training reads them: shards, steps, a new order each epoch."""
    sizes = SIZES[name]
    few = len(sizes) <= 10
    x, entity = drawn(sizes, 0.4, seed=len(sizes))
    mst = (x**2).sum(axis=0) / (len(x) - 1)
    rho = float((mst * stats.intra_class_correlation(x, entity)).sum() / mst.sum())
    found = {1: [], W: []}
    reading, orders = reading_and_orders(sizes, entity, kind, epochs=30 if few else 10)
    for order in orders:
        steps = np.stack([list(batches(order, rank, W, N, drop_last=True)) for rank in range(W)])  # ranks, steps, rows
        means = x[steps].mean(axis=2)
        found[1].append((means**2).mean(axis=(0, 1)))
        found[W].append((means.mean(axis=0) ** 2).mean(axis=0))
    for ranks, squares in found.items():
        b = stats.behind(reading, rho, N, ranks)
        predicted = stats.predicted_sd_of_mean(1.0, b.rows, b.design_effect, len(x)) ** 2 * mst.sum()
        assert np.mean(squares, axis=0).sum() / predicted == pytest.approx(1, abs=0.03), (ranks, b)
        if kind == "shuffled":
            assert b.effective_rows == pytest.approx(b.rows)


def test_the_digits_of_the_readme() -> None:
    """32 shuffled images are worth 32; eight sorted ranks of four together about 33, and ten, one per class, far more than 40."""
    pytest.importorskip("sklearn")
    from syncbn_sim.data import load_digits

    x, digit = load_digits()
    sizes, rho = np.bincount(digit), float(np.nanmean(stats.intra_class_correlation(x, digit)))
    shuffled, by_class = stats.shuffled_reading(sizes), stats.sorted_reading(sizes)
    assert stats.behind(shuffled, rho, 4, 8).effective_rows == pytest.approx(32, abs=1e-9)
    assert stats.behind(by_class, rho, 4, 8).effective_rows == pytest.approx(33, abs=0.5)
    assert stats.behind(by_class, rho, 4, 10).effective_rows > 50
    assert 1.9 < stats.behind(by_class, rho, 4).effective_rows < 2.2


@pytest.mark.parametrize("name", SIZES)
def test_cluster_sizes_by_formula_and_by_counting_agree(name: str) -> None:
    sizes, rng = SIZES[name], np.random.default_rng(0)
    entity = np.repeat(np.arange(len(sizes)), sizes)
    for readers, of in ((1, None), (W, None), (3, W)):
        counted = {"sorted": [], "shuffled": []}
        for _ in range(2):
            for kind, order in (("sorted", sorted_by_entity(entity, rng)), ("shuffled", iid(entity, rng))):
                counted[kind].append(MeasuredReading(entity[order]).cluster_size(N, readers, of))
        exact, chance = stats.sorted_reading(sizes), stats.shuffled_reading(sizes)
        assert exact.cluster_size(N, readers, of) == pytest.approx(np.mean(counted["sorted"]), rel=0.002)
        assert chance.cluster_size(N, readers, of) == pytest.approx(np.mean(counted["shuffled"]), rel=0.02)


def test_a_fixed_stride_would_meet_the_period_of_the_data() -> None:
    """400 x 58 rows in batches of 32: a row meets 26.1 of its entity. Starts 58 apart would find 32."""
    entity = np.repeat(np.arange(400), 58)
    exact = np.mean([(np.bincount(np.arange(s, s + 32) // 58) ** 2).sum() / 32 for s in range(58)])
    assert exact == pytest.approx(26.1, abs=0.05)
    assert MeasuredReading(entity).cluster_size(32) == pytest.approx(exact, rel=0.01)
    assert stats.sorted_reading(np.full(400, 58)).cluster_size(32) == pytest.approx(exact, rel=1e-9)
    assert stats.sorted_reading(np.array([58]), np.array([1])).cluster_size(32, 64) == pytest.approx(exact, rel=1e-9)


def test_a_window_of_a_thousand_rows_does_not_make_s_small_for_long_entities() -> None:
    for m, n, plain, shuffled in ((256, 512, 213, 101), (40, 512, 39, None)):
        order, sizes = stats.sorted_reading(np.array([m]), np.array([1])), np.full(100_000 // m, m)
        assert order.cluster_size(n) == pytest.approx(plain, rel=0.01)
        rng, counted = np.random.default_rng(0), []
        for _ in range(6):
            entity = in_windows(np.repeat(np.arange(len(sizes)), sizes), rng, 1000)
            counted.append(MeasuredReading(entity).cluster_size(n))
        assert stats.sorted_reading(sizes).windowed(1000).cluster_size(n) == pytest.approx(np.mean(counted), rel=0.02)
        if shuffled:
            assert order.windowed(1000).cluster_size(n) == pytest.approx(shuffled, rel=0.03)
    assert isinstance(order.windowed(1), LagReading)
    pairs, small = stats.sorted_reading(np.full(2000, 2)), []
    for _ in range(20):  # windows of three rows: what a row has in common with itself does not count as a meeting
        small.append(MeasuredReading(in_windows(np.arange(4000) // 2, rng, 3)).cluster_size(2))
    assert pairs.windowed(3).cluster_size(2) == pytest.approx(np.mean(small), rel=0.01)


def test_ranks_needed() -> None:
    many = stats.sorted_reading(np.array([58]), np.array([1]))
    deff = stats.design_effect(many.cluster_size(32), 0.3)
    assert stats.readers_needed(many, 0.3, 32) == int(np.ceil(deff)) == 9
    assert stats.readers_needed(many, 0.0, 32) == 1
    long = stats.sorted_reading(np.array([400]), np.array([1]))
    for rho in np.linspace(0.6, 0.95, 8):  # so many that they are not tried one by one
        deff = stats.design_effect(long.cluster_size(64), rho)
        assert stats.readers_needed(long, rho, 64) == int(np.ceil(deff)) > TRIED
    classes = stats.sorted_reading(np.full(10, 800))
    needed = stats.readers_needed(classes, 0.5, 4)
    assert (
        stats.behind(classes, 0.5, 4, needed).effective_rows
        >= 4
        > stats.behind(classes, 0.5, 4, needed - 1).effective_rows
    )
    assert (
        stats.readers_needed(stats.sorted_reading(np.array([90, 10])), 0.9, 60) is None
    )  # one rank is all the rows there are


def test_correlation_of_these_entities_and_of_others() -> None:
    """rho / (1 - P (1 - rho)) is the ANOVA estimator, written out here."""
    sizes = np.array([40, 5, 17, 90])
    x, entity = drawn(sizes, 0.3, 0)
    x = x[:, 0]
    within = sum(((x[entity == j] - x[entity == j].mean()) ** 2).sum() for j in range(4)) / (len(x) - 4)
    between = sum(m * (x[entity == j].mean() - x.mean()) ** 2 for j, m in enumerate(sizes)) / 3
    n0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / 3
    anova = (between - within) / (between + (n0 - 1) * within)
    rho, same = float(stats.intra_class_correlation(x, entity)), stats.same_entity(sizes)
    assert rho / (1 - same * (1 - rho)) == pytest.approx(anova, rel=1e-12)


def test_negative_correlation_is_used_as_it_is() -> None:
    """Every entity has one row of each sign: sorted batches are *steadier* than shuffled ones."""
    entity, x = np.repeat(np.arange(500), 2), np.tile([1.0, -1.0], 500)
    rho = float(stats.intra_class_correlation(x, entity))
    assert rho < -0.9
    b = stats.behind(stats.sorted_reading(np.full(500, 2)), rho, 9)
    measured = np.mean([x[s : s + 9].mean() ** 2 for s in range(990)])
    assert b.effective_rows > 70
    assert stats.predicted_sd_of_mean(1.0, 9, b.design_effect, 1000) ** 2 == pytest.approx(measured, rel=0.1)
    assert (
        stats.behind(stats.sorted_reading(np.full(2, 500)), -1.0, 32).effective_rows == 1000
    )  # never above all the rows
