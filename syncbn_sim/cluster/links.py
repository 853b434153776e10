"""Links between devices: what a message costs. t(n) = alpha + n beta."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import ArgumentError


@dataclass(frozen=True)
class Link:
    """A kind of link.

    Attributes:
        alpha: seconds a message, however short.
        beta: seconds a byte, 1 / bandwidth.
        source: where the two numbers come from.
    """

    alpha: float
    beta: float
    source: str

    def seconds(self, size: float) -> float:
        """alpha + n beta for a message of n bytes."""
        return self.alpha + size * self.beta


LINKS = {
    "nvlink": Link(2e-6, 1 / 300e9, "nccl-tests issue 123, DGX-A100: about 2 us a ring step; A100 datasheet, one direction"),
    "infiniband-ndr": Link(1.5e-6, 1 / 50e9, "round trip of about 2-3 us over one or two switches; NDR is 400 Gbit/s"),
    "roce-25g": Link(3e-6, 1 / 3.1e9, "RDMA over 25 Gbit/s Ethernet: one or two switches and NIC; 3.1 GB/s"),
    "tcp-25g": Link(20e-6, 1 / 3.1e9, "kernel TCP: 10-30 us one way in the stack"),
    "shared-memory": Link(1.2e-6, 1 / 10e9, "8-byte round trip of 2.2-2.4 us on one host; copy bandwidth of one core"),
}  # fmt: skip


def link_named(name: str) -> Link:
    """The link of this name.

    Raises:
        ArgumentError: there is none; the nearest is suggested.
    """
    if name not in LINKS:
        near = difflib.get_close_matches(name, LINKS, 1, 0.3)
        raise ArgumentError(
            "link",
            got=repr(name),
            expected=", ".join(LINKS),
            do=f"Did you mean {near[0]!r}?" if near else "Choose one.",
        )
    return LINKS[name]
