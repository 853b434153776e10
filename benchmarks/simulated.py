"""A training step of the digits net (64-64-10, a norm in both hidden layers, Adam, float32) on simulated ranks: ours, and in JAX.

What runs here takes a step for *all* ranks, on rows that lie ready, and returns the mean loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import Communicator
from syncbn_sim.experiments.tasks import mlp

from .nets import LR
from .rivals import EPS, one_thread_of_jax

CLASSES, FEATURES, ADAM = 10, 64, (0.9, 0.999, 1e-8)


class Ranks:
    """So many ranks with so many rows each per step.

    Args:
        count, rows: how many.
        sync: whether the norms are SyncBN; else each rank's own BN.

    Attributes:
        x, y: (ranks, rows, 64) and (ranks, rows).
    """

    def __init__(self, count: int, rows: int, sync: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.count, self.rows, self.sync = count, rows, sync
        self.x = rng.normal(size=(count, rows, FEATURES)).astype(np.float32)
        self.y = rng.integers(0, CLASSES, (count, rows))

    def net(self, comm: Communicator | None = None) -> nn.Sequential:
        """The net, with the same first weights on every rank."""
        norm = partial(nn.SyncBatchNorm, comm=comm) if self.sync and comm else nn.BatchNorm
        return mlp(FEATURES, CLASSES, norm, 0, "float32")

    def ours(self, comm: Communicator) -> Callable[[], float]:
        """A step of the ranks that this communicator stands for, of whatever kind they are."""
        held, model = slice(comm.ranks.start, comm.ranks.stop), self.net(comm)
        x, y = self.x[held].reshape(-1, FEATURES), self.y[held].ravel()
        whose = tuple(np.arange(len(x)).reshape(-1, self.rows))
        loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), LR)

        def step() -> float:
            with comm.holds(whose):
                return train.step(model, loss, optimizer, comm, x, y)

        return step

    def jax(self) -> Callable[[], float]:
        """`jit` of `vmap` over ranks with a named axis: one copy of the weights, gradients and SyncBN's moments by `pmean`."""
        jax = one_thread_of_jax()
        tree, axis = jax.tree, "ranks" if self.sync else None
        weights = [np.array(parameter.data) for parameter in self.net().parameters()]
        zeros, running = [0 * w for w in weights], np.zeros((self.count, FEATURES), np.float32)
        state, kept = tree.map(jax.numpy.array, ((weights, zeros, zeros, 0), [(running, running + 1)] * 2))
        x, y = jax.device_put(self.x), jax.device_put(self.y)

        def one_rank(state, kept, x, y):  # type: ignore[no-untyped-def]
            (loss, kept), gradient = jax.value_and_grad(_loss, has_aux=True)(state[0], kept, x, y, axis)
            loss, gradient = jax.lax.pmean((loss, gradient), "ranks")
            return _adam(state, gradient), kept, loss

        # Weights and optimiser are the same for all ranks, running statistics each rank's own.
        ways = {"in_axes": (None, 0, 0, 0), "out_axes": (None, 0, None), "axis_name": "ranks"}
        all_ranks = jax.jit(jax.vmap(one_rank, **ways), donate_argnums=(0, 1))

        def step() -> float:
            nonlocal state, kept
            state, kept, loss = all_ranks(state, kept, x, y)
            return float(jax.block_until_ready((state, kept, loss))[2])

        return step


def _loss(weights, kept, x, y, axis):  # type: ignore[no-untyped-def]
    """Mean cross-entropy of one rank's rows, and the new running statistics."""
    import jax

    new = []
    for layer, (running_mean, running_var) in enumerate(kept):
        linear, gamma, beta = weights[3 * layer : 3 * layer + 3]
        x = x @ linear.T
        mean, square = x.mean(0), (x * x).mean(0)
        n = len(x)
        if axis:
            mean, square, n = jax.lax.pmean(mean, axis), jax.lax.pmean(square, axis), jax.lax.psum(n, axis)
        var = square - mean * mean
        x = jax.nn.relu(gamma * (x - mean) * jax.lax.rsqrt(var + EPS) + beta)
        unbiased = jax.lax.stop_gradient(var) * n / (n - 1)
        new.append((0.9 * running_mean + 0.1 * jax.lax.stop_gradient(mean), 0.9 * running_var + 0.1 * unbiased))
    logits = x @ weights[-2].T + weights[-1]
    return -jax.nn.log_softmax(logits)[jax.numpy.arange(len(y)), y].mean(), new


def _adam(state, gradient):  # type: ignore[no-untyped-def]
    """Kingma & Ba (2015), algorithm 1, as ours."""
    import jax

    (weights, m, v, steps), (b1, b2, eps) = state, ADAM
    steps = steps + 1
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradient)
    debias_m, debias_v = 1 - b1**steps, 1 - b2**steps

    def moved(w, m, v):  # type: ignore[no-untyped-def]
        return w - LR * (m / debias_m) / (jax.numpy.sqrt(v / debias_v) + eps)

    return jax.tree.map(moved, weights, m, v), m, v, steps


def check_losses(steps: dict[str, Callable[[], float]], count: int = 10) -> None:
    """Nobody is timed who learns something else: the losses of so many steps from the same weights.

    Raises:
        AssertionError: losses differ by more than 1e-3 of the first one.
    """
    losses = {name: np.array([step() for _ in range(count)]) for name, step in steps.items()}
    first: Any = next(iter(losses.values()))
    for name, each in losses.items():
        off = np.abs(each - first).max() / first[0]
        assert off < 1e-3, f"{name} learns something else: its losses are off by {off:.2g}"
