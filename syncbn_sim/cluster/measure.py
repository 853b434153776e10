"""What a message costs on this machine: ping-pong between two ranks, and alpha and beta for each range of sizes.

One pair of constants does not fit a real library: it changes protocol with the size (eager, rendezvous), and copies where it has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..arrays import Array
from ..comm.base import Communicator
from .links import Link

# Bytes. Eager, rendezvous, copies that fit the cache, and copies that do not.
RANGES = ((8, 4096), (4096, 65_536), (65_536, 1 << 20), (1 << 20, 8 << 20))
REPEATS = 200


def median_seconds(comm: Communicator, call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time of a call that both ranks make, on this rank."""
    times = []
    for _ in range(repeats):
        comm.barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def swap_links(comm: Communicator) -> list[tuple[tuple[int, int], Link]]:
    """Measures alpha and beta of a `sendrecv` between ranks 0 and 1, fitted to three sizes in each range. Collective over two ranks."""
    links = []
    # Large ones first: freeing them teaches the C library to keep memory, from then on for all.
    for low, high in reversed(RANGES):
        sizes = np.unique(np.geomspace(low, high, 3).astype(int) // 8 * 8)
        seconds = [median_seconds(comm, partial(_swap, comm, np.ones(size // 8))) for size in sizes]
        links.append(((low, high), _fitted(sizes, np.array(seconds))))
    return links[::-1]


def _fitted(sizes: Array, seconds: Array) -> Link:
    """Fits alpha and beta >= 0 by least squares of relative error."""
    beta, alpha = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    if min(alpha, beta) < 0:  # then the other one has to be fitted anew, alone
        column = (sizes if alpha < 0 else 1.0) / seconds
        alone = column.sum() / (column**2).sum()
        alpha, beta = (0.0, alone) if alpha < 0 else (alone, 0.0)
    return Link(float(alpha), float(beta), "measured here")


def _swap(comm: Communicator, array: Array) -> None:
    comm.sendrecv(array, 1 - comm.rank, 1 - comm.rank)


def link_for(links: Sequence[tuple[tuple[int, int], Link]], size: int) -> Link:
    """The constants of the range that a message of `size` bytes falls into."""
    return next((link for (_, high), link in links if size <= high), links[-1][1])
