"""How long an all-reduce takes on p ranks joined by equal links, in closed form.

Every round lasts as long as its longest message, alpha + m beta; the schedules of `comm.schedules` give the rounds and m.
Adding up is free (gamma = 0): a SyncBN payload is too short for it to matter. Thakur, Rabenseifner & Gropp (2005), section 3.
"""

from __future__ import annotations

import math

import numpy as np

from ..comm.schedules import schedule_named
from ..errors import ArgumentError
from .links import Link

ITEM = 8  # bytes of a float64; pieces are cut between numbers


def allreduce_seconds(name: str, ranks: int, elements: int, link: Link, item: int = ITEM) -> float:
    """Time of one all-reduce of `elements` numbers by a schedule.

    Args:
        name: "star", "tree", "recursive_doubling", "ring" or "rabenseifner".
        ranks: p.
        elements: numbers in the array.
        link: alpha and beta of every link.
        item: bytes per number.

    Raises:
        ArgumentError: an unknown schedule, or a number of ranks below 1.
    """
    schedule_named(name)
    if not isinstance(ranks, int) or ranks < 1:
        raise ArgumentError("ranks", got=ranks, expected="a whole number of at least 1", do="Count devices.")
    whole = link.seconds(item * elements)
    powers = 1 << (ranks.bit_length() - 1)
    lg, fold = powers.bit_length() - 1, 2 * whole * (ranks > powers)
    if name == "star":
        return 2 * (ranks - 1) * whole
    if name == "tree":
        return 2 * math.ceil(math.log2(ranks)) * whole if ranks > 1 else 0.0
    if name == "recursive_doubling":
        return lg * whole + fold
    if name == "ring":
        longest = math.ceil(
            elements / ranks
        )  # in every round some rank passes on a longest piece, and all wait for it in turn
        return 2 * (ranks - 1) * link.seconds(item * longest)
    halves = np.cumprod(np.full(lg, 0.5)) * elements
    return float(sum(2 * link.seconds(item * math.ceil(half)) for half in halves) + fold)


def allgather_seconds(ranks: int, elements: int, link: Link, item: int = ITEM) -> float:
    """Time of one all-gather of `elements` numbers from each rank.

    By recursive doubling, lg p alpha + (p - 1) n beta (p a power of two); by a ring, (p - 1) (alpha + n beta), on a link that has
    nothing else.
    """
    messages = ranks - 1 if "ring" in link.schedules else math.ceil(math.log2(ranks))
    return messages * link.alpha + (ranks - 1) * item * elements * link.beta


def fit(ranks: list[int], seconds: list[float]) -> tuple[float, float]:
    """Base and time a step of t(p) = base + step 2 (p - 1), by least squares of relative error: a measured ring."""
    steps = np.array([2.0 * (p - 1) for p in ranks])
    design = np.stack([np.ones(len(steps)), steps], axis=1) / np.array(seconds)[:, None]
    base, step = np.linalg.lstsq(design, np.ones(len(steps)), rcond=None)[0]
    return float(base), float(step)
