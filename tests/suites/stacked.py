"""Fifty float64 steps of every norm on any ranks: what must not depend on whether each runs by itself or all are stacked in one array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import Communicator
from syncbn_sim.experiments.norms import NORMS

STEPS, CLASSES, FEATURES, WIDTH = 50, 3, 6, 8
RANKS = 4
# Rows of each rank in a step: equally many, differently many, and one rank none.
DEALS = {"even": [8, 8, 8, 8], "uneven": [5, 11, 6, 8], "one empty": [6, 0, 9, 7]}
OPTIMIZERS = {"adam": lambda p: optim.Adam(p, 1e-2), "sgd": lambda p: optim.SGD(p, 0.05, momentum=0.9)}
CASES = [(norm, deal, optimizer) for norm in NORMS for deal in DEALS for optimizer in OPTIMIZERS]


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features and classes; means up to three standard deviations from 0."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 300)
    return rng.normal(size=(300, FEATURES)) + np.linspace(-3, 3, FEATURES) + 0.7 * y[:, None], y


def dealt(ranks: range, deal: str, steps: int = STEPS) -> Iterator[tuple[np.ndarray, ...]]:
    """For each step the rows of these ranks: as sorted by class, so that ranks differ."""
    rng, (_, y) = np.random.default_rng(3), rows()
    for _ in range(steps):
        chosen = rng.choice(300, sum(DEALS[deal]), replace=False)
        parts = np.split(chosen[np.argsort(y[chosen], kind="stable")], np.cumsum(DEALS[deal])[:-1])
        yield tuple(parts[rank] for rank in ranks)


def net(norm: str, comm: Communicator) -> nn.Sequential:
    draw, width, layers = np.random.default_rng(1), FEATURES, []
    for _ in range(2):
        layer = NORMS[norm].build(WIDTH, 0.1, "float64", comm)
        biased = not isinstance(layer, nn.BatchNorm)  # else Adam would make steps of its gradient's rounding
        layers += [nn.Linear(width, WIDTH, bias=biased, dtype=np.float64, rng=draw), layer, nn.ReLU()]
        width = WIDTH
    layers.append(nn.Linear(width, CLASSES, dtype=np.float64, rng=draw))
    return nn.Sequential(*[layer for layer in layers if layer is not None])


def by_rank(model: nn.Module, comm: Communicator) -> np.ndarray:
    """Running means, variances and batches tracked of all batch norms, a row for each rank held."""
    found = [np.empty((len(comm.ranks), 0))]
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm):
            with comm.holds([[0]] * len(comm.ranks)):
                offsets = layer.stretches()
            counted = np.expand_dims(layer.num_batches_tracked, -1)
            for each in map(np.atleast_2d, (layer.running_mean, layer.running_var, counted)):
                found.append(np.repeat(each, len(comm.ranks) if len(each) == 1 else np.diff(offsets), axis=0))
    return np.concatenate(found, axis=1)


def trained(comm: Communicator, norm: str, deal: str, optimizer: str, parent: Communicator | None = None) -> dict:
    """Trains, and judges with averaged statistics and with rank 0's.

    Args:
        comm: whose statistics are shared by norms that talk.
        norm, deal, optimizer: of the tables.
        parent: all ranks, if `comm` is a group of them.

    Returns:
        What every rank has alike, and "by rank" a row for each rank held.
    """
    everybody = parent or comm
    (x, y), model, loss = rows(), net(norm, comm), nn.CrossEntropyLoss()
    moves, seen = OPTIMIZERS[optimizer](model.parameters()), [STEPS * DEALS[deal][rank] for rank in everybody.ranks]
    batches = dealt(everybody.ranks, deal)
    losses = [mean for _, mean in train.fit(model, loss, moves, everybody, x, y, batches)]
    begin, end = (len(x) * rank // everybody.size for rank in (everybody.ranks.start, everybody.ranks.stop))
    averaged = train.with_averaged_statistics(model, everybody, seen)
    first = train.with_statistics_of_rank_0(model, everybody)
    found = {"losses": np.array(losses), "by rank": by_rank(model, everybody)}
    found |= {f"parameter {i}": p.data.copy() for i, p in enumerate(model.parameters())}
    for name, judged in (("averaged", averaged), ("rank 0's", first)):
        logits = train.predict(judged, x[begin:end])
        found[f"accuracy, {name}"] = np.array(train.accuracy(logits, y[begin:end], everybody))
        found[f"outputs, {name}"] = train.predict(judged, x)
        found |= {f"{name} {key}": value for key, value in judged.state_dict().items() if "num_batches" not in key}
    return found


def compare(stacked: dict, lockstep: list[dict]) -> None:
    """Raises if what was found on stacked ranks is not what was found on ranks that ran by themselves."""
    expected = {**lockstep[0], "by rank": np.concatenate([each["by rank"] for each in lockstep])}
    assert stacked.keys() == expected.keys()
    for name, found in stacked.items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-10, err_msg=name)
