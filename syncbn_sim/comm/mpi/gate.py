"""Where the ranks of one machine wait for one another: they look a little, then they sleep, and only sleepers are woken."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from .pipes import Pipes

if TYPE_CHECKING:
    from mpi4py import MPI

# So often a rank looks, and offers its core in between, before it sleeps. Where nobody wants the core that takes 50 us.
LOOKS = 100
# Nanoseconds. A core that was offered and comes back later has been with a busy program: other ranks are done sooner.
TAKEN = 1_000_000
# Then no rank looks for so many nanoseconds; for twice as many if the last rest was followed by less than 10 times as long without such
# a look; and so on up to the second number. On a busy core to sleep is quickest: who is woken gets it at once, an offered one costs ms.
SHORT_REST, LONG_REST = 20_000_000, 3_000_000_000


class Gate:
    """All ranks come to it, rank 0 opens it, all go on: meeting after meeting.

    To sleep and be woken takes longer than a small sum, since a core that has nothing to do stops; a look takes half a microsecond.

    Each rank says in shared memory which meeting it has come to (rank 0: which one it has opened), and whether it is asleep. No wake is
    lost: who goes to sleep says so and *then* looks once more; who comes says so and *then* looks who is asleep. With a fence between
    the two halves on either side, at least one of them sees what the other has said. If both do, a byte is left in the pipe and will cut
    a sleep short, so whoever was woken looks again.

    Relied upon: an aligned int64 is written and read in one piece (on every processor of 64 bits), and MPI_Win_sync is a fence, which
    also keeps the word that an array is there behind the array.
    """

    def __init__(self, comm: MPI.Intracomm, pipes: Pipes) -> None:
        """Collective over `comm`, whose ranks must be on one machine; they sleep by these pipes."""
        from mpi4py import MPI

        self._rank, self._pipes, self._meeting = comm.rank, pipes, 0
        self._window = MPI.Win.Allocate_shared(16 * (comm.size + 1) if comm.rank == 0 else 0, 1, comm=comm)
        self._window.Lock_all(MPI.MODE_NOCHECK)
        self._fence = self._window.Sync
        shared: Any = self._window.Shared_query(0)[0]
        # Items of a memoryview are plain numbers, and there several times as quickly as those of an array.
        words = memoryview(shared).cast("B").cast("q")
        self._come, self._asleep = words[: comm.size], words[comm.size : -2]
        # When the latest rest from looking ends, and how long it is.
        self._rest = words[-2:]
        self._come[self._rank] = self._asleep[self._rank] = self._rest[0] = self._rest[1] = 0
        self._awaited = self._come[:1] if self._rank else self._come[1:]
        comm.Barrier()

    def assemble(self) -> None:
        """On rank 0: returns once all others have called it. On those: at once."""
        self._meeting += 1
        if self._rank == 0:
            self._wait()
            return
        self._say()
        # Not by the last one alone: until rank 0 gets a core on a busy machine, the others come.
        if self._asleep[0]:
            self._pipes.wake(0)

    def release(self) -> None:
        """On rank 0: at once. On the others: returns once rank 0 has called it."""
        if self._rank != 0:
            self._wait()
            return
        self._say()
        for rank, asleep in enumerate(self._asleep):
            if asleep:
                self._pipes.wake(rank)

    def close(self) -> None:
        """Frees memory and pipes. Collective."""
        self._window.Unlock_all()
        self._window.Free()
        self._pipes.close()

    def _say(self) -> None:
        self._fence()
        self._come[self._rank] = self._meeting
        self._fence()

    def _wait(self) -> None:
        if not self._are_there() and not self._look():
            self._asleep[self._rank] = 1
            self._fence()
            while not self._are_there():
                self._pipes.sleep()
            self._asleep[self._rank] = 0
        self._fence()

    def _are_there(self) -> bool:
        return min(self._awaited) == self._meeting

    def _look(self) -> bool:
        """Whether they have come while this rank looked."""
        before = time.monotonic_ns()
        if before < self._rest[0]:
            return False
        for _ in range(LOOKS):
            os.sched_yield()
            now = time.monotonic_ns()
            if now - before > TAKEN:
                self._stop_looking(now)
                break
            if self._are_there():
                return True
            before = now
        return False

    def _stop_looking(self, now: int) -> None:
        """Tells all ranks, if nobody has yet."""
        end, length = self._rest
        if now >= end:
            length = min(2 * length, LONG_REST) if now < end + 10 * length else SHORT_REST
            self._rest[0], self._rest[1] = now + length, length
