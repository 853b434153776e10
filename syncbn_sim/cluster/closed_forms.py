"""How long an all-reduce takes on p ranks joined by equal links, in closed form.

Every round lasts as long as its longest message, alpha + m beta; each schedule of `comm.schedules` says its rounds.
Adding up is free (gamma = 0): a SyncBN payload is too short for it to matter. Thakur, Rabenseifner & Gropp (2005), section 3.
"""

from __future__ import annotations

import math

import numpy as np

from ..comm.schedules import schedule_named
from ..errors import check_whole
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
    schedule = schedule_named(name)
    check_whole("ranks", ranks, do="Count devices.")
    return sum(r.times * link.seconds(item * r.longest) for r in schedule.rounds(ranks, elements))


def allgather_seconds(ranks: int, elements: int, link: Link, item: int = ITEM) -> float:
    """Time of one all-gather of `elements` numbers from each rank.

    By recursive doubling, lg p alpha + (p - 1) n beta (p a power of two); by a ring, (p - 1) (alpha + n beta), on a link that has
    nothing else.
    """
    messages = ranks - 1 if "ring" in link.schedules else math.ceil(math.log2(ranks))
    return messages * link.alpha + (ranks - 1) * item * elements * link.beta


def fit(ranks: list[int], seconds: list[float]) -> tuple[float, float]:
    """Fits base and time per step of t(p) = base + step 2 (p - 1), by least squares of relative error: a measured ring."""
    step, base = np.polyfit([2.0 * (p - 1) for p in ranks], seconds, 1, w=1 / np.array(seconds))
    return float(base), float(step)
