"""Alpha and beta of this machine, fitted from messages, and what they say about an all-reduce: ours, and the library's.

mpirun -n 2 python mpi_examples/measure_links.py
"""

from __future__ import annotations

import numpy as np

from syncbn_sim.cluster.closed_forms import allreduce_seconds
from syncbn_sim.cluster.measure import link_for, median_seconds, swap_links
from syncbn_sim.comm import Communicator, launch, schedules
from syncbn_sim.errors import SyncBNError


def measure(comm: Communicator) -> list[str]:
    """What both ranks do."""
    links = swap_links(comm)
    lines = [
        f"{low:>9,} to {high:>9,} bytes: alpha {1e6 * link.alpha:6.1f} us, bandwidth {1e-9 / max(link.beta, 1e-15):6.2f} GB/s"
        for (low, high), link in links
    ]
    for size in (1024, 16_384, 1 << 20):
        a = np.ones(size // 8)
        predicted = allreduce_seconds("recursive_doubling", 2, a.size, link_for(links, size))
        ours = median_seconds(comm, lambda a=a: schedules.recursive_doubling(comm, a))
        library = median_seconds(comm, lambda a=a: comm.allreduce(a))
        lines.append(
            f"{size:>9,} bytes: predicted {1e6 * predicted:7.1f} us, our schedule {1e6 * ours:7.1f} us, "
            f"the library's all-reduce {1e6 * library:7.1f} us"
        )
    return lines


def main() -> None:
    """Needs two MPI processes: between threads there is no link to measure."""
    try:
        found = launch(measure, 2, "mpi", checked=False)
    except SyncBNError as error:
        raise SystemExit(f"Start it with mpirun -n 2. {error}") from error
    if found is not None:
        print("\n".join(found[0]))
        print(
            "Look at our schedule: the constants predict it, since it is made of the very messages they were fitted to. They do not"
        )
        print(
            "predict the library's: it copies through shared memory without a header, in C, and changes its algorithm with the size."
        )


if __name__ == "__main__":
    main()
