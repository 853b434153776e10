"""Forward passes that wait for their backward pass: none kept, none left over, none of a step that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ContextError
from .module import Module


def clear_contexts(model: Module) -> None:
    """Forgets all forward passes that have had no backward pass, and all gradients: a clean start after a step that failed."""
    for module in model.modules():
        module._contexts.clear()
    model.zero_grad()


@contextmanager
def no_backward(model: Module) -> Iterator[None]:
    """Within this block forward passes keep nothing for a backward pass: for evaluation and calibration."""
    before = [(module, module._keeps_contexts) for module in model.modules()]
    for module, _ in before:
        module._keeps_contexts = False
    try:
        yield
    finally:
        for module, kept in before:
            module._keeps_contexts = kept


def check_no_contexts(model: Module) -> None:
    """Makes sure that every forward pass so far has had its backward pass.

    Raises:
        ContextError: a layer still keeps a context; the next backward pass would go through the wrong batch.
    """
    if not any(module._contexts for module in model.modules()):
        return  # without looking for names
    for name, module in model.named_modules():
        if module._contexts:
            layer = f"layer {name or type(module).__name__!r}"
            got = f"{len(module._contexts)} forward passes without a backward pass"
            do = "Run forward passes that need no gradient inside nn.no_backward(model); after a failed step: nn.clear_contexts."
            raise ContextError(layer, got=got, expected="none at the start of a step", do=do)
