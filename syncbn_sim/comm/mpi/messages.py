"""Messages between MPI processes: an array in one piece, and those that have not left yet."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

from ...arrays import Array

if TYPE_CHECKING:
    from mpi4py import MPI

# Messages of this process that have not left yet, with what they carry.
_unfinished: list[tuple[MPI.Request, Array]] = []


def post(comm: MPI.Intracomm, array: Array, dest: int, tag: int) -> None:
    """Sends an array, and waits for nobody.

    A blocking Send returns early for small messages only: two ranks that send to each other first would wait for ever above some size.
    """
    push()
    message = np.concatenate([_header(array), as_bytes(array)])
    _unfinished.append((comm.Isend(message, dest, tag), message))


def push() -> bool:
    """Moves messages on; whether there are any left."""
    if _unfinished:
        _unfinished[:] = [(request, kept) for request, kept in _unfinished if not request.Test()]
    return bool(_unfinished)


def opened(message: Array) -> Array:
    """The array that a message carries."""
    end = 4 + int.from_bytes(message[:4].tobytes(), "little")
    dtype, shape = pickle.loads(message[4:end].tobytes())
    return message[end:].copy().view(dtype).reshape(shape)


def as_bytes(array: Array) -> Array:
    """The array's memory as bytes, without copying."""
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def apart(array: Array, out: Array) -> Array:
    """The array, or a copy if it shares memory with `out` and is another one."""
    return array.copy() if out is not array and np.may_share_memory(array, out) else array


def _header(array: Array) -> Array:
    kind = pickle.dumps((array.dtype.str, array.shape))
    return np.frombuffer(len(kind).to_bytes(4, "little") + kind, np.uint8)
