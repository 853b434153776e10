"""Containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..arrays import Array
from ..errors import ArgumentError
from .module import Module


class ModuleList(Module):
    """Modules that another module uses as it likes; named "0", "1", ... and found as its children. It cannot be called itself."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.layers: list[Module] = []
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Adds one at the end.

        Raises:
            ArgumentError: it is no module.
        """
        if not isinstance(module, Module):
            do = "Sequential(a, b) takes them one by one, ModuleList([a, b]) in a list; a layer of your own derives from nn.Module."
            raise ArgumentError(type(self).__name__, got=repr(module)[:60], expected="modules", do=do)
        self.layers.append(module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules by position."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def _place(self, name: str, module: Module) -> None:
        self.layers[int(name)] = module

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


class Sequential(ModuleList):
    """Layers one after the other; position weights travel to each of them."""

    def __init__(self, *layers: Module) -> None:
        super().__init__(layers)

    def __call__(self, x: Array, weights: object | None = None) -> Array:
        """Computes layer_k(... layer_1(x))."""
        for layer in self.layers:
            x = layer(x, weights)
        return x

    def backward(self, dy: Array) -> Array:
        """The layers' backward passes in reverse order."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy
