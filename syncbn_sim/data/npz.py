"""A log as an .npz of three arrays."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..errors import DataError
from .columns import LARGEST, Column, Table


def read_npz(path: str) -> Table:
    """Reads arrays x (N, F), y (N,) and entity (N,); every column of x is a feature, NaN is missing.

    Raises:
        DataError: the file is not such an .npz; says what was found, what was expected and what to do.
    """
    try:
        # Closed also where it is damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            absent = [name for name in ("x", "y", "entity") if name not in arrays]
            if absent:
                raise _wrong(path, f"no array {absent[0]!r}", "arrays x, y and entity")
            x, y, entity = (arrays[name] for name in ("x", "y", "entity"))
    except DataError:
        raise
    except Exception as error:  # a damaged zip makes NumPy raise almost anything
        raise _wrong(path, f"an unreadable file ({error})", "an .npz of plain arrays") from error
    if x.ndim != 2 or y.shape != x.shape[:1] or entity.shape != x.shape[:1] or x.size == 0:
        raise _wrong(path, f"shapes {x.shape}, {y.shape}, {entity.shape}", "(N, F), (N,) and (N,)")
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub" or entity.dtype.kind not in "fiubSU":
        raise _wrong(path, f"x of {x.dtype}, y of {y.dtype}, entity of {entity.dtype}", "numbers; entity also texts")
    different, codes = np.unique(entity, return_inverse=True)
    key = Column("entity", codes.astype(np.int32), list(map(str, different)))
    if entity.dtype.kind == "f":
        key.values[np.isnan(entity)] = -1
    label = _numbers(path, "y", y)
    features = [_numbers(path, f"x[{place}]", x[:, place]) for place in range(x.shape[1])]
    return Table(key, label, features, True, lambda cells: [f"row {row:,} (from 0)" for row, _ in cells])


def _numbers(path: str, name: str, values: Array) -> Column:
    numbers = values.astype(np.float64)
    bad = ~(np.abs(numbers) <= LARGEST) & ~np.isnan(numbers)
    if bad.any():
        row = int(bad.argmax())
        got = f"{numbers[row]:g} in {name}, row {row:,} (from 0)"
        raise _wrong(path, got, f"finite numbers of at most {LARGEST:g}")
    return Column(name, numbers)


def _wrong(path: str, got: str, expected: str) -> DataError:
    return DataError(path, got=got, expected=expected, do="Save it with np.savez(path, x=x, y=y, entity=entity).")
