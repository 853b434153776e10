"""How much to measure: all of it, a smoke run, or next to nothing for the tests."""

from __future__ import annotations

import os
from dataclasses import dataclass

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Shape:
    """Of a batch norm's input; `last`: channels on the last axis."""

    size: tuple[int, ...]
    last: bool = False

    def __str__(self) -> str:
        return str(self.size).replace(" ", "") + (" channels last" if self.last else "")

    @property
    def bytes(self) -> int:
        """In float32."""
        count = 4
        for n in self.size:
            count *= n
        return count


SHAPES = (
    Shape((32, 64, 56, 56)),
    Shape((8, 256, 14, 14)),
    Shape((16, 128, 28, 28)),
    Shape((1, 64, 112, 112)),
    Shape((2, 16, 8, 8)),
    Shape((4096, 256)),
    Shape((32, 56, 56, 64), last=True),
    Shape((256, 128)),
    Shape((64, 1024)),
    Shape((4, 16)),
)


@dataclass(frozen=True)
class Scale:
    """Numbers of everything.

    Attributes:
        rounds: interleaved rounds of what is compared; shapes below 1 MiB get `small_rounds`.
        shapes: of the batch norm step.
        processes: numbers of MPI processes.
        lockstep, threads: numbers of ranks in one process.
        sizes: bytes of an all-reduce.
        steps: training steps per sample.
        growth: how many doublings of each size.
        heavy: seconds of compute per rank in the step that is mostly compute.
        repeats: how often each MPI library takes its turn.
    """

    rounds: int
    small_rounds: int
    shapes: tuple[Shape, ...]
    processes: tuple[int, ...]
    lockstep: tuple[int, ...]
    threads: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: int
    growth: int
    heavy: float
    repeats: int


FULL = Scale(
    rounds=50,
    small_rounds=200,
    shapes=SHAPES,
    processes=(1, 2, 4, 8),
    lockstep=(2, 8, 32, 128, 1024),
    threads=(2, 4, 8, 32, 64),
    sizes=(8, 128, 1032, 8192, 65_536, 524_288, 4_194_304),
    steps=20,
    growth=6,
    heavy=6e-3,
    repeats=3,
)
QUICK = Scale(
    rounds=8,
    small_rounds=30,
    shapes=SHAPES[1:2] + SHAPES[4:5] + SHAPES[7:],
    processes=(1, 2, 8),
    lockstep=(2, 8, 128),
    threads=(2, 8),
    sizes=(8, 1032, 65_536),
    steps=10,
    growth=4,
    heavy=6e-3,
    repeats=1,
)
TINY = Scale(
    rounds=3,
    small_rounds=3,
    shapes=(Shape((2, 16, 8, 8)), Shape((2, 3, 3, 5), last=True), Shape((4, 16))),
    processes=(1, 2),
    lockstep=(2, 3),
    threads=(2,),
    sizes=(8, 1032),
    steps=2,
    growth=2,
    heavy=1e-4,
    repeats=1,
)
