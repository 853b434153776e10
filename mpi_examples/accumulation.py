"""Gradient accumulation with exact SyncBN: micro-batches as lockstep ranks that share their statistics.

Accumulating gradients over k micro-batches is not a batch k times as large: batch norm sees each micro-batch alone. Let each
micro-batch be a rank, and SyncBN makes it exact. The price is memory: all micro-batches are in flight at once.

python mpi_examples/accumulation.py    (under mpirun every process does the same by itself, and rank 0 prints)
"""

from __future__ import annotations

import tracemalloc

import numpy as np

from syncbn_sim import nn, optim, train
from syncbn_sim.comm import Communicator, launch

ROWS, MICRO_BATCHES = 512, 8
RNG = np.random.default_rng(0)
X, Y = (
    RNG.normal(size=(ROWS, 32)) + np.repeat(np.arange(MICRO_BATCHES), ROWS // MICRO_BATCHES)[:, None],
    RNG.integers(0, 4, ROWS),
)


def build(comm: Communicator | None) -> nn.Sequential:
    """The same net each time; synchronised if there is somebody to talk to."""
    draw, f64 = np.random.default_rng(1), np.float64
    norm = nn.BatchNorm(256, dtype=f64)
    net = nn.Sequential(nn.Linear(32, 256, False, f64, draw), norm, nn.ReLU(), nn.Linear(256, 4, dtype=f64, rng=draw))
    return net if comm is None else nn.convert_sync_batchnorm(net, comm)


def one_step(comm: Communicator, synchronise: bool) -> np.ndarray:
    """One step on all rows, in comm.size micro-batches; returns the first weights after it."""
    model = build(comm if synchronise else None)
    mine = np.array_split(np.arange(ROWS), comm.size)[comm.rank]
    train.step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1), comm, X[mine], Y[mine])
    return model.state_dict()["0.weight"]


def compare(_: Communicator) -> list[str]:
    """Both kinds of accumulation against the big batch; the micro-batches are ranks inside this process."""
    big = launch(one_step, 1, "serial", args=(False,))[0]
    lines = []
    for name, synchronise in (("plain accumulation", False), ("micro-batches as lockstep ranks, SyncBN", True)):
        tracemalloc.start()
        step = launch(one_step, MICRO_BATCHES, "lockstep", args=(synchronise,))[0]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        moved = np.abs(big - build(None).state_dict()["0.weight"]).max()
        off = np.abs(step - big).max() / moved
        lines.append(f"{name}: differs from the big batch by {off:.1e} of the step, peak {peak / 2**20:.1f} MiB")
    return lines


def main() -> None:
    """Prints what rank 0 has found."""
    found = launch(compare)
    if found is not None:
        print("\n".join(found[0]))
        print(
            "Look at the differences: only shared statistics make it the big batch. Look at the peak: plain accumulation could"
        )
        print(
            f"have freed each micro-batch before the next one; here all {MICRO_BATCHES} wait for each other, so none is saved."
        )


if __name__ == "__main__":
    main()
