"""Containers."""

from __future__ import annotations

from collections.abc import Iterator

from ..arrays import Array
from .module import Module


class Sequential(Module):
    """Layers one after the other; position weights travel to each of them. Children are named "0", "1", ..."""

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        self.layers = list(layers)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The layers by position."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def forward(self, x: Array, weights: object | None = None) -> Array:
        """layer_k(... layer_1(x))."""
        for layer in self.layers:
            x = layer(x, weights)
        return x

    def backward(self, dy: Array) -> Array:
        """The layers' backward passes in reverse order."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)
