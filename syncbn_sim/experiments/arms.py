"""The arms of the comparison: an order of the data joined with a kind of normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from .. import nn
from ..comm.base import Communicator
from ..data.orders import ORDERS
from ..errors import unknown

NORMS = ("local", "sync", "averaged", "layer", "none")
ARMS = (
    "iid+local",
    "iid+sync",
    "iid+averaged",
    "sorted+local",
    "sorted+sync",
    "sorted+averaged",
    "iid+layer",
    "sorted+layer",
    "iid+none",
    "sorted+none",
)


@dataclass(frozen=True)
class Arm:
    """One way to train, written "order+norm"."""

    order: str
    norm: str

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Reads "sorted+sync".

        Raises:
            ArgumentError: an unknown order or norm; the nearest known arm is suggested.
        """
        order, _, norm = name.partition("+")
        if order not in ORDERS or norm not in NORMS:
            raise unknown("arms", name, ARMS)
        return cls(order, norm)

    @property
    def name(self) -> str:
        """As written."""
        return f"{self.order}+{self.norm}"

    @property
    def iid_twin(self) -> str:
        """The arm this one is compared with: the same norm on shuffled data."""
        return f"iid+{self.norm}"

    def build_norm(self, width: int, momentum: float, dtype: str, comm: Communicator) -> nn.Module | None:
        """The norm layer, talking over `comm` if it talks at all."""
        if self.norm == "none":
            return None
        if self.norm == "layer":
            return nn.LayerNorm(width, dtype=dtype)
        if self.norm == "local":
            return nn.BatchNorm(width, momentum=momentum, dtype=dtype)
        kind = nn.SyncBatchNorm if self.norm == "sync" else nn.AveragedBatchNorm
        return kind(width, momentum=momentum, dtype=dtype, comm=comm)
