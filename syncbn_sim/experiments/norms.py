"""The norms that are compared: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import nn
from ..comm.base import Communicator

Build = Callable[[int, float, str, Communicator], nn.Module | None]


@dataclass(frozen=True)
class Norm:
    """A way to normalise.

    Attributes:
        words: what it is called in sentences.
        about: what it does, for --help.
        colour: in figures. Okabe & Ito's, told apart by colour-blind readers too.
        build: (width, momentum, dtype, comm) -> the layer, or None for none.
        uses_batch: whether a row's output depends on the other rows of its batch.
        talks: whether it asks other ranks while training.
        joins: whether its statistics are those of the batch of all ranks.
    """

    words: str
    about: str
    colour: str
    build: Build
    uses_batch: bool = False
    talks: bool = False
    joins: bool = False

    @property
    def drifts(self) -> bool:
        """Whether ranks' running statistics come apart: each has seen its own rows only."""
        return self.uses_batch and not self.talks


NORMS = {
    "local": Norm(
        "local batch norm",
        "each rank's own batch",
        "#D55E00",
        lambda width, momentum, dtype, comm: nn.BatchNorm(width, momentum=momentum, dtype=dtype),
        uses_batch=True,
    ),
    "sync": Norm(
        "SyncBN",
        "all ranks' sums",
        "#0072B2",
        lambda width, momentum, dtype, comm: nn.SyncBatchNorm(width, momentum=momentum, dtype=dtype, comm=comm),
        uses_batch=True,
        talks=True,
        joins=True,
    ),
    "averaged": Norm(
        "averaged statistics",
        "the popular mistake: mean of means and of variances",
        "#E69F00",
        lambda width, momentum, dtype, comm: nn.AveragedBatchNorm(width, momentum=momentum, dtype=dtype, comm=comm),
        uses_batch=True,
        talks=True,
    ),
    "layer": Norm(
        "LayerNorm",
        "LayerNorm, of each row by itself",
        "#009E73",
        lambda width, momentum, dtype, comm: nn.LayerNorm(width, dtype=dtype),
    ),
    "none": Norm(
        "no normalisation",
        "the control: what the order costs by itself",
        "#555555",
        lambda width, momentum, dtype, comm: None,
    ),
}
COLOURS = {name: norm.colour for name, norm in NORMS.items()}
