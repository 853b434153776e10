"""Arguments that several commands take, and their checks."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import tyro

from ..cluster.links import LINKS
from ..cluster.networks import NETWORKS
from ..errors import ArgumentError

LinkName = Annotated[str, tyro.conf.arg(help=f"between devices: {', '.join(LINKS)}.")]
Nodes = Annotated[
    str, tyro.conf.arg(help="devices in nodes, as SIZE:LINK,...: 8:nvlink joins each 8 by nvlink, and those by --link.")
]
ModelName = Annotated[str, tyro.conf.arg(help=f"whose batch norms: {', '.join(NETWORKS)} (our own net).")]
Milliseconds = Annotated[float, tyro.conf.arg(help="milliseconds that one device computes in a step.")]


def whole(value: str | int, name: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentError: it is not one.
    """
    with suppress(ValueError):
        if int(value) >= 1:
            return int(value)
    raise ArgumentError(name, got=value, expected="whole numbers of at least 1", do=f"For example --{name} 8.")


def seconds(milliseconds: float) -> float:
    """Of computing, from milliseconds above 0.

    Raises:
        ArgumentError: they are not.
    """
    if not milliseconds > 0:
        raise ArgumentError("compute-ms", got=milliseconds, expected="above 0", do="How long does a step take?")
    return milliseconds / 1e3
