"""The norms that are compared: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import nn
from ..comm.base import Communicator


@dataclass(frozen=True)
class Norm:
    """A way to normalise.

    Attributes:
        words: what it is called in sentences.
        about: what it does, for --help.
        colour: in figures. Okabe & Ito's, told apart by colour-blind readers too.
        layer: what makes a layer of a width, told `dtype`, of batches `momentum` too, and of those that talk `comm`; None for none.
        uses_batch: whether a row's output depends on the other rows of its batch.
        talks: whether it asks other ranks while training.
        joins: whether its statistics are those of the batch of all ranks.
    """

    words: str
    about: str
    colour: str
    layer: Callable[..., nn.Module] | None
    uses_batch: bool = False
    talks: bool = False
    joins: bool = False

    def build(self, width: int, momentum: float, dtype: str, comm: Communicator) -> nn.Module | None:
        """The layer, or None for none."""
        if self.layer is None:
            return None
        of_batches = {"momentum": momentum} if self.uses_batch else {}
        talking = {"comm": comm} if self.talks else {}
        return self.layer(width, dtype=dtype, **of_batches, **talking)

    @property
    def drifts(self) -> bool:
        """Whether ranks' running statistics come apart: each has seen its own rows only."""
        return self.uses_batch and not self.talks


NORMS = {
    "local": Norm("local batch norm", "each rank's own batch", "#D55E00", nn.BatchNorm, uses_batch=True),
    "sync": Norm("SyncBN", "all ranks' sums", "#0072B2", nn.SyncBatchNorm, uses_batch=True, talks=True, joins=True),
    "averaged": Norm(
        "averaged statistics",
        "the popular mistake: mean of means and of variances",
        "#E69F00",
        nn.AveragedBatchNorm,
        uses_batch=True,
        talks=True,
    ),
    "layer": Norm("LayerNorm", "LayerNorm, of each row by itself", "#009E73", nn.LayerNorm),
    "none": Norm("no normalisation", "the control: what the order costs by itself", "#555555", None),
}
COLOURS = {name: norm.colour for name, norm in NORMS.items()}
