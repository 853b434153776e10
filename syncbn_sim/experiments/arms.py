"""The arms of a comparison: an order of the data joined with a kind of normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.orders import ORDERS
from ..errors import unknown
from .norms import NORMS, Norm

# Norms of batches first, order by order; then the others, norm by norm.
ARMS = (
    *(f"{order}+{name}" for order in ORDERS for name, norm in NORMS.items() if norm.uses_batch),
    *(f"{order}+{name}" for name, norm in NORMS.items() if not norm.uses_batch for order in ORDERS),
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
    def kind(self) -> Norm:
        """Its row in the table of norms."""
        return NORMS[self.norm]

    @property
    def iid_twin(self) -> str:
        """The arm this one is compared with: the same norm on shuffled data."""
        return f"iid+{self.norm}"
