"""A synthetic click log with power-law users, in which rows of one user are alike, as in a recommender's request log.

Each row is one (user, item, context). Latent user tastes z (6), item properties q (6) and context c (4) make the click:

    logit = -1.5 + 1.2 z.wu + q.wi + 0.8 z.q / sqrt(6) + 0.6 c.wc + 0.6 (c M).q

What a model sees are 24 features: 10 of the user (z and 4 meaningless ones, rotated; constant over a user's rows), 10 of
the item (q and 4 meaningless ones, rotated; items shown to one user resemble each other, intra-class correlation 0.3) and the 4 of
the context (0.5).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array
from ..functional.activations import sigmoid
from .dataset import Dataset, Split

FEATURES = 24
ITEM_CORRELATION, CONTEXT_CORRELATION = 0.3, 0.5
AT_ONCE = 1 << 14  # rows, so that what is made on the way is small beside what is kept


def request_log(train_rows: int, test_rows: int, seed: int, dtype: DTypeLike = np.float32) -> Split:
    """Draws a log and a test set of users that the log does not contain.

    Args:
        train_rows: number of rows of the log; the last user is cut off to fit.
        test_rows: number of rows of the other users.
        seed: draws the world (weights, rotations) as well as users and rows.
        dtype: of the features.
    """
    rng = np.random.default_rng([seed, 2])
    world = _World(rng)
    return Split(train=world.rows(rng, train_rows, dtype), test=world.rows(rng, test_rows, dtype))


def user_activity(rng: np.random.Generator, users: int) -> Array:
    """Rows of each user: min(256, floor(4 (1 - U)^(-1/1.3))), a power law with mean 13 and a heavy tail."""
    return np.minimum(256, np.floor(4.0 * (1.0 - rng.random(users)) ** (-1.0 / 1.3))).astype(np.int64)


class _World:
    """The fixed part: what makes people click, and how features show it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.user, self.item, self.context = (_unit(rng.normal(size=k)) for k in (6, 6, 4))
        self.mix = rng.normal(size=(4, 6)) / np.sqrt(24)
        self.user_rotation, self.item_rotation = (np.linalg.qr(rng.normal(size=(10, 10)))[0] for _ in range(2))

    def rows(self, rng: np.random.Generator, count: int, dtype: DTypeLike) -> Dataset:
        # Every user has at least 4 rows, so these are enough.
        activity = user_activity(rng, count // 4 + 1)
        users = int(np.searchsorted(np.cumsum(activity), count)) + 1
        user = np.repeat(np.arange(users), activity[:users])[:count]
        u = rng.normal(size=(users, 10))
        shown = u @ self.user_rotation
        x, q, logit = np.empty((count, FEATURES), dtype), np.empty((count, 6)), np.empty(count)
        for part, item in _correlated(rng, user, users, 10, ITEM_CORRELATION):
            q[part] = item[:, :6]
            x[part, :10], x[part, 10:20] = shown[user[part]], item @ self.item_rotation
        for part, c in _correlated(rng, user, users, 4, CONTEXT_CORRELATION):
            z = u[user[part], :6]
            logit[part] = (
                -1.5
                + 1.2 * z @ self.user
                + q[part] @ self.item
                + 0.8 * (z * q[part]).sum(1) / np.sqrt(6)
                + 0.6 * c @ self.context
                + 0.6 * ((c @ self.mix) * q[part]).sum(1)
            )
            x[part, 20:] = c
        clicks = rng.random(count) < sigmoid(logit)
        return Dataset(x, clicks.astype(np.float64), user)


def _correlated(
    rng: np.random.Generator, user: Array, users: int, width: int, rho: float
) -> Iterator[tuple[slice, Array]]:
    """Standard normal columns with intra-class correlation rho, some rows at a time: sqrt(rho) b_user + sqrt(1 - rho) e."""
    b = np.sqrt(rho) * rng.normal(size=(users, width))
    for begin in range(0, len(user), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        e = rng.normal(size=(len(user[part]), width))
        yield part, b[user[part]] + np.sqrt(1 - rho) * e


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v)
