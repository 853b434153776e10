"""What a message costs on this machine: ping-pong between two ranks, and alpha and beta for each range of sizes.

One pair of constants does not fit a real library: it changes protocol with the size (eager, rendezvous), and copies where it has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..comm.base import Communicator
from .links import Link

RANGES = ((8, 4096), (4096, 65_536), (65_536, 4 << 20))  # bytes
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
    """Alpha and beta of a `sendrecv` between ranks 0 and 1, fitted to three sizes in each range. Collective over two ranks."""
    links = []
    for low, high in RANGES:
        sizes = np.unique(np.geomspace(low, high, 3).astype(int) // 8 * 8)
        seconds = [median_seconds(comm, partial(_swap, comm, int(size))) for size in sizes]
        weights = 1 / np.array(seconds)
        design = np.stack([np.ones(len(sizes)), sizes], axis=1) * weights[:, None]
        alpha, beta = np.maximum(np.linalg.lstsq(design, np.ones(len(sizes)), rcond=None)[0], 0.0)
        links.append(((low, high), Link(float(alpha), float(beta), "measured here")))
    return links


def _swap(comm: Communicator, size: int) -> None:
    comm.sendrecv(np.ones(size // 8), 1 - comm.rank, 1 - comm.rank)


def link_for(links: Sequence[tuple[tuple[int, int], Link]], size: int) -> Link:
    """The constants of the range that a message of `size` bytes falls into."""
    return next((link for (_, high), link in links if size <= high), links[-1][1])
