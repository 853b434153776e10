"""Links between devices: what a message costs, t(n) = alpha + n beta, and what a call costs before its first message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..arrays import Array
from ..errors import ArgumentError, named


@dataclass(frozen=True)
class Link:
    """A kind of link.

    Attributes:
        alpha: seconds per message, however short.
        beta: seconds per byte, 1 / bandwidth.
        source: where the numbers come from.
        base: seconds per collective call, whatever it sends (launch, host). None: no source gives one, so a time is a lower bound.
        schedules: those with which the source measured; empty: any of ours.
        measured_to: the largest number of devices that it measured; None: it is not a measurement of collectives.
    """

    alpha: float
    beta: float
    source: str
    base: float | None = None
    schedules: tuple[str, ...] = ()
    measured_to: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("base", self.base)):
            if value is not None and not 0 <= value < np.inf:
                do = "A microsecond is 1e-6; beta is 1 / bytes per second."
                raise ArgumentError(name, got=value, expected="a finite number of seconds, 0 or more", do=do)

    def seconds(self, size: float) -> float:
        """Computes alpha + n beta, for a message of n bytes."""
        return self.alpha + size * self.beta

    def between(self, a: int, b: int) -> Link:
        """The link of two ranks: this one, whoever they are."""
        return self

    def levels_of(self, ranks: int) -> list[tuple[int, int, Link]]:
        """As `Topology.levels_of`: all of them at one level."""
        return [(ranks, 1, self)]


@dataclass(frozen=True)
class Topology:
    """Devices in nodes in racks: two ranks talk over the innermost level that holds both.

    Attributes:
        levels: (ranks in one unit, link inside it) from the inside out, e.g. ((8, NVLink), (256, InfiniBand)); the last
            link joins whatever is farther apart.
    """

    levels: Sequence[tuple[int, Link]]

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.levels]
        if not sizes or any(b % a or b <= a for a, b in pairwise(sizes)):
            expected = "sizes that grow, each a multiple of the one before"
            do = "For example 8 devices per node, 256 per rack."
            raise ArgumentError("levels", got=sizes, expected=expected, do=do)

    def between(self, a: int, b: int) -> Link:
        """The link of two ranks."""
        return next((link for size, link in self.levels if a // size == b // size), self.levels[-1][1])

    def levels_of(self, ranks: int) -> list[tuple[int, int, Link]]:
        """Lists (units that talk, ranks in each, their link) of every level that the first `ranks` ranks need, from the inside out."""
        found, below = [], 1
        for size, link in self.levels:
            units = -(-min(size, ranks) // below)
            if units > 1:
                found.append((units, below, link))
            below = size
        return found

    @property
    def source(self) -> str:
        """Of each level."""
        return "; ".join(link.source for _, link in self.levels)


def one_slow_node(ranks: int, node: int, ranks_per_node: int, factor: float) -> Array:
    """Slowness of each rank: `factor` on one node, 1 elsewhere."""
    slowness = np.ones(ranks)
    slowness[node * ranks_per_node : (node + 1) * ranks_per_node] = factor
    return slowness


def log_normal_stragglers(ranks: int, sigma: float, seed: int) -> Array:
    """Slowness of each rank: log-normal with median 1 and spread sigma of its logarithm."""
    return np.exp(sigma * np.random.default_rng(seed).normal(size=ranks))


LINKS = {
    "nvlink": Link(
        1.98e-6,
        1 / 300e9,
        "nccl-tests issue 123, DGX-A100, NCCL's ring forced, 8 to 128 bytes, 2 to 8 GPUs; A100 datasheet, one direction",
        5.6e-6,
        ("ring",),
        8,
    ),
    "infiniband-ndr": Link(1.5e-6, 1 / 50e9, "round trip of about 2-3 us over one or two switches; NDR is 400 Gbit/s"),
    "roce-25g": Link(3e-6, 1 / 3.1e9, "RDMA over 25 Gbit/s Ethernet: one or two switches and NIC; 3.1 GB/s"),
    "tcp-25g": Link(20e-6, 1 / 3.1e9, "kernel TCP: 10-30 us one way in the stack"),
    "shared-memory": Link(1.2e-6, 1 / 10e9, "8-byte round trip of 2.2-2.4 us; 10 GB/s is assumed: measure yours"),
}


def link_named(name: str) -> Link:
    """The link of this name.

    Raises:
        ArgumentError: there is none; the nearest is suggested.
    """
    return named("link", name, LINKS)


FARTHER = 1 << 40  # ranks in the outermost unit: all there are


def parse_topology(text: str, link: str) -> Link | Topology:
    """Reads "8:nvlink,256:infiniband-ndr": 8 devices per node joined by one link, 256 per rack by another, and all else by `link`.

    Raises:
        ArgumentError: unreadable, an unknown link, or sizes that do not nest.
    """
    levels = []
    for part in filter(None, text.split(",")):
        size, _, name = part.partition(":")
        if not size.strip().isdigit() or not int(size) or not name:
            raise ArgumentError("topology", got=repr(text), expected="SIZE:LINK,...", do="For example 8:nvlink.")
        levels.append((int(size), link_named(name.strip())))
    return Topology((*levels, (levels[-1][0] * FARTHER, link_named(link)))) if levels else link_named(link)
