"""Measures alpha and beta of this machine, fitted from messages, and what they say about an all-reduce: ours, and the library's.

mpirun -n 2 python mpi_examples/measure_links.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim.cluster.closed_forms import allreduce_seconds
from syncbn_sim.cluster.measure import link_for, median_seconds, swap_links
from syncbn_sim.comm import Communicator, launch, schedules
from syncbn_sim.errors import SyncBNError

CLOSE = 1.5  # a prediction that is off by no more is good enough to choose a schedule by


def conclusions(predicted: list[float], ours: list[float], library: list[float]) -> list[str]:
    """What the figures say of the constants, and of our schedule beside the library's."""
    lines = []
    for name, measured in (("our schedule", ours), ("the library's all-reduce", library)):
        off = max(max(p / m, m / p) for p, m in zip(predicted, measured, strict=True))
        verdict = "predict" if off <= CLOSE else "do not predict"
        lines.append(f"The constants {verdict} {name}: off by a factor of up to {off:.1f}.")
    if "do not" in lines[0]:
        lines.append(
            "Our schedule is made of the very messages that the constants were fitted to: something else took the time, then or now, "
            "such as other programs on these cores. Measure again on a quiet machine."
        )
    if "do not" in lines[1]:
        lines.append(
            "The library's copies through shared memory, in C, without a header, and changes its algorithm with the size."
        )
    return lines


def bandwidth(beta: float) -> str:
    """In words where the largest messages took no longer than the smallest."""
    return f"bandwidth {1e-9 / beta:6.2f} GB/s" if beta > 0 else "no time that grows with the size"


def measure(comm: Communicator) -> list[str]:
    """What both ranks do."""
    links = swap_links(comm)
    lines = [
        f"{low:>9,} to {high:>9,} bytes: alpha {1e6 * link.alpha:6.1f} us, {bandwidth(link.beta)}"
        for (low, high), link in links
    ]
    rows = []
    for size in (1024, 16_384, 1 << 20):
        a = np.ones(size // 8)
        predicted = allreduce_seconds("recursive_doubling", 2, a.size, link_for(links, size))
        ours = median_seconds(comm, lambda a=a: schedules.recursive_doubling(comm, a))
        library = median_seconds(comm, lambda a=a: comm.allreduce(a))
        rows.append((predicted, ours, library))
        lines.append(
            f"{size:>9,} bytes: predicted {1e6 * predicted:7.1f} us, our schedule {1e6 * ours:7.1f} us, "
            f"the library's all-reduce {1e6 * library:7.1f} us"
        )
    return lines + conclusions(*map(list, zip(*rows, strict=True)))


def main() -> None:
    """Needs two MPI processes: between threads there is no link to measure."""
    try:
        found = launch(measure, 2, "mpi", checked=False)
    except SyncBNError as error:
        raise SystemExit(f"Start it with mpirun -n 2. {error}") from error
    if found is not None:
        print("\n".join(found[0]))


if __name__ == "__main__":
    main()
