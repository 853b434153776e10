"""How plain loops become machine code; the only importer of numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import config, njit

F = TypeVar("F", bound=Callable[..., Any])

COMPILES = not config.DISABLE_JIT  # type: ignore[attr-defined]
# x * a + b may be rounded once. What is summed may be added up in another order too, so that several numbers go on at a time;
# elsewhere that would turn k ((x - m) r) into (k r) (x - m), of which k r may be beyond float32. nan and inf stay what they are.
APPLIED, SUMMED = {"contract"}, {"contract", "reassoc"}
# Why code could not be kept on disk: it was full, or is not ours to write any more. Then each process compiles what it needs.
not_kept: list[OSError] = []


def loop(fastmath: set[str]) -> Callable[[F], F]:
    """Compiles a function for the dtypes it is called with, at the first such call, and keeps the code on disk for later processes."""

    def compiled(function: F) -> F:
        flags: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        try:
            made = njit(cache=True, **flags)(function)
        except RuntimeError:  # there is no place on disk to keep it: a second or more in each process
            return cast(F, njit(**flags)(function))
        if COMPILES:
            made._cache.save_overload = _if_possible(made._cache.save_overload)
        return cast(F, made)

    return compiled


def _if_possible(save: Callable[..., None]) -> Callable[..., None]:
    def saved(*args: Any) -> None:
        try:
            save(*args)
        except OSError as error:
            not_kept.append(error)

    return saved
