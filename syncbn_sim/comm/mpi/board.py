"""A notice board in memory that all MPI ranks of one machine share: who is about to enter which collective."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calls import Call, rank_name

if TYPE_CHECKING:
    from mpi4py import MPI

_DEPTH = 64  # a rank can run ahead of a broadcast it has sent, but not this far
# Seconds that a rank which has found a mismatch waits for the others' calls, to name them all.
LATECOMERS = 1.0
_NOTICE = np.dtype([("stamp", np.int64), ("asked", "S128"), ("where", "S256")])
# A stamp is the call's number, then so many bits of a checksum of what is asked: one comparison does for both.
_BITS = 32
# In which call a rank is stuck, and how often that was looked at.
_LOOK = np.dtype([("call", np.int64), ("look", np.int64)])


class Board:
    """Each rank pins up its k-th call before it enters it, and reads what the others have pinned up as their k-th.

    Whoever pins last sees all the others, so of two ranks that disagree at least one knows before it enters, without
    a message, where comparing by an all-reduce costs as much as the call itself.

    On the world's board the watchdogs also say whether their rank is stuck.
    """

    def __init__(self, comm: MPI.Intracomm, name: Callable[[int], str] = rank_name) -> None:
        """Collective over `comm`, whose ranks must share memory.

        Args:
            comm: the ranks.
            name: of one of them, in words.
        """
        from mpi4py import MPI

        self.name = name
        # The last column: who tells of a mismatch, and behind all notices what the watchdogs see.
        notices = _NOTICE.itemsize * (_DEPTH + 1) * comm.size
        size = notices + _LOOK.itemsize * comm.size
        self._window = MPI.Win.Allocate_shared(size if comm.rank == 0 else 0, 1, comm=comm)
        memory: Any = self._window.Shared_query(0)[0]
        self._notices = np.frombuffer(memory, _NOTICE, comm.size * (_DEPTH + 1)).reshape(comm.size, _DEPTH + 1)
        self._looks = np.frombuffer(memory, _LOOK, comm.size, notices)
        self._seen: np.ndarray[Any, Any] | None = None
        self._rank = comm.rank
        self._stamps, self._asked, self._where = (self._notices[name] for name in ("stamp", "asked", "where"))
        self._stamps[self._rank], self._looks[self._rank] = 0, (0, 0)
        comm.Barrier()

    def pin(self, call: Call) -> dict[int, Call] | None:
        """Announces this rank's next call. Returns everybody's, if one of those announced so far differs, else None."""
        slot, number = call.number % _DEPTH, call.number
        asked, checksum = _encoded(call.op, call.detail)
        mine = number << _BITS | checksum
        self._asked[self._rank, slot], self._where[self._rank, slot] = asked, call.where.encode()[:256]
        self._stamps[self._rank, slot] = mine  # last: the notice counts from here on
        if not [stamp for stamp in self._stamps[:, slot].tolist() if stamp != mine and stamp >> _BITS == number]:
            return None
        deadline = time.monotonic() + LATECOMERS
        while (self._stamps[:, slot] >> _BITS != number).any() and time.monotonic() < deadline:
            time.sleep(0.01)
        return {rank: self._call(rank, number) for rank in range(len(self._notices))}

    def accuse(self) -> bool:
        """Whether this rank is the first to have found a mismatch, and so the one to tell it."""
        accuser = self._stamps[:1, _DEPTH]
        if accuser[0] == 0:
            accuser[0] = self._rank + 1
        return bool(accuser[0] == self._rank + 1)

    def absent(self, number: int, needed: Sequence[int]) -> str:
        """Which of these ranks have not announced the call of this number, a line each with their latest; "" if all have."""
        latest = (self._stamps[:, :_DEPTH] >> _BITS).max(1)
        late = [rank for rank in needed if latest[rank] < number]
        return "\n".join(f"  {self.name(rank)}: {self._call(rank, number)}" for rank in late)

    def all_stuck(self, call: int) -> bool:
        """Says in which call this rank is stuck, and returns whether all are, for good.

        Looks come from threads of their own, at any time: a rank that was seen waiting a moment ago may just be going on. So all must
        have been seen in some calls, and then each once more, by a look begun later, in the *same* call: between those two nobody left his,
        and nobody came to another's, so nobody ever will.

        Args:
            call: a number of that call, other for each of this rank's calls; 0: it can go on.
        """
        mine = self._looks[self._rank]
        mine["call"] = call
        mine["look"] += 1  # last: the look counts from here on
        now, seen = self._looks.copy(), self._seen
        if not now["call"].all():
            self._seen = None
        elif seen is None or (now["call"] != seen["call"]).any():
            self._seen = now
        else:
            # Of looks since then one may have begun before, and the last one may be half written.
            return bool((now["look"] >= seen["look"] + 3).all())
        return False

    def _call(self, rank: int, number: int) -> Call:
        """A rank's call of this number, or, where it has not come so far, its latest."""
        row = self._notices[rank, :_DEPTH]
        notice = row[number % _DEPTH]
        if notice["stamp"] >> _BITS != number:
            notice = row[row["stamp"].argmax()]
        its_number = int(notice["stamp"]) >> _BITS
        if its_number == 0:
            return Call("not here; it has made no call", "", 0, "all")
        op, _, detail = notice["asked"].decode().partition("\0")
        late = "" if its_number == number else "not here; its last was "
        return Call(late + op, detail, its_number, notice["where"].decode())

    def close(self) -> None:
        """Frees the memory. Collective."""
        self._window.Free()


@lru_cache(maxsize=1024)
def _encoded(op: str, detail: str) -> tuple[bytes, int]:
    """What is asked, as it is pinned up, and its checksum."""
    asked = f"{op}\0{detail}".encode()[:128]
    return asked, zlib.crc32(asked)
