"""What a state dict holds: arrays, each of its own shape and kind; and what plain containers hold, which is in none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array, as_array
from ..errors import StateDictError


def entry(key: str, given: Any, own: Array) -> Array:
    """An entry of a state dict as a new array of `own`'s shape and dtype."""
    subject, counts = f"state_dict[{key!r}]", own.dtype.kind == "i"
    try:
        array = as_array(given, subject)
    except (ValueError, TypeError):  # rows of different lengths, a masked array
        array = np.array(None)
    numbers = array.dtype.kind in "fiub"
    if not numbers or (counts and not np.all(np.isfinite(array) & (array >= 0) & (array == np.floor(array)))):
        expected = "whole numbers >= 0" if counts else "numbers"
        do = "Pass what state_dict() returned, or PyTorch's with each tensor's .numpy()."
        raise StateDictError(subject, got=repr(given)[:60], expected=expected, do=do)
    if array.shape != own.shape and not (array.shape == (1,) and own.shape == ()):
        do = "Load it into a model of the same sizes."
        if array.shape[1:] == own.shape or own.shape[1:] == array.shape:
            do += (
                " Are these running statistics of each of several stacked ranks? train.with_averaged_statistics(model, comm, rows) has "
                "one for all, and a layer too after reset_running_stats()."
            )
        raise StateDictError(subject, got=f"shape {array.shape}", expected=str(own.shape), do=do)
    return array.reshape(own.shape).astype(own.dtype)


def inside(value: object) -> Iterator[object]:
    """What stands in plain containers, however deep."""
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from inside(each)
    else:
        yield value
