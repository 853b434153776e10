"""How much to measure: all of it, a smoke run, or next to nothing for the tests."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Shape:
    """Of a norm's input.

    Attributes:
        size: of each axis.
        last: whether the channels are on the last axis.
        norm: a layer's name in `nn` and in torch (there with 1d or 2d where it has it).
        groups: of channels, for GroupNorm.
    """

    size: tuple[int, ...]
    last: bool = False
    norm: str = "BatchNorm"
    groups: int = 0

    def __str__(self) -> str:
        norm = "" if self.norm == "BatchNorm" else f"{self.norm}{f'({self.groups})' if self.groups else ''} "
        return norm + str(self.size).replace(" ", "") + (" channels last" if self.last else "")

    @property
    def bytes(self) -> int:
        """In float32."""
        return 4 * math.prod(self.size)


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
    *(
        Shape(size, norm="GroupNorm", groups=size[1] // 4)
        for size in ((16, 128, 28, 28), (8, 256, 14, 14), (2, 16, 8, 8))
    ),
    *(Shape(size, norm="InstanceNorm") for size in ((16, 128, 28, 28), (8, 256, 14, 14), (2, 16, 8, 8))),
    *(Shape(size, norm="LayerNorm") for size in ((4096, 256), (256, 128), (4, 16))),
)


@dataclass(frozen=True)
class Scale:
    """Numbers of everything.

    Attributes:
        rounds: interleaved rounds of what is compared; shapes below 1 MiB get `small_rounds`.
        shapes: of a norm's step.
        processes: numbers of MPI processes.
        lockstep, threads: numbers of ranks in one process.
        simulated: ranks and rows per rank of a training step that is simulated on one machine.
        most: of each kind of ranks the most for which such a step is timed, in powers of 4.
        sizes: bytes of an all-reduce.
        steps: training steps per sample.
        growth: how many doublings of each size.
        repeats: how often each MPI library takes its turn, and how often a process is started.
    """

    rounds: int
    small_rounds: int
    shapes: tuple[Shape, ...]
    processes: tuple[int, ...]
    lockstep: tuple[int, ...]
    threads: tuple[int, ...]
    simulated: tuple[tuple[int, int], ...]
    most: dict[str, int]
    sizes: tuple[int, ...]
    steps: int
    growth: int
    repeats: int


FULL = Scale(
    rounds=50,
    small_rounds=200,
    shapes=SHAPES,
    processes=(1, 2, 4, 8),
    lockstep=(2, 8, 32, 128, 1024),
    threads=(2, 4, 8, 32, 64),
    simulated=((8, 4), (32, 32), (128, 4), (1024, 4)),
    most={"stacked": 4096, "JAX": 4096, "lockstep": 1024, "threads": 64, "mpi": 16},
    sizes=(8, 128, 1032, 8192, 65_536, 524_288, 4_194_304),
    steps=20,
    growth=6,
    repeats=3,
)
QUICK = Scale(
    rounds=8,
    small_rounds=30,
    shapes=SHAPES[1:2] + SHAPES[4:5] + SHAPES[7:10] + SHAPES[12::3],
    processes=(1, 2, 4),
    lockstep=(2, 8, 128),
    threads=(2, 8),
    simulated=((8, 4), (32, 32), (128, 4)),
    most={"stacked": 256, "JAX": 256, "lockstep": 64, "threads": 16, "mpi": 4},
    sizes=(8, 1032, 65_536),
    steps=10,
    growth=4,
    repeats=1,
)
TINY = Scale(
    rounds=3,
    small_rounds=3,
    shapes=(
        Shape((2, 16, 8, 8)),
        Shape((2, 3, 3, 5), last=True),
        Shape((4, 16)),
        Shape((2, 4, 3, 3), norm="GroupNorm", groups=2),
    ),
    processes=(1, 2),
    lockstep=(2, 3),
    threads=(2,),
    simulated=((8, 4), (2, 3)),
    most={"stacked": 4, "JAX": 4, "lockstep": 4, "threads": 4, "mpi": 1},
    sizes=(8, 1032),
    steps=2,
    growth=2,
    repeats=1,
)

SCALES = {"full": FULL, "quick": QUICK, "tiny": TINY}
