"""Fifty float64 training steps on any communicator: what must not depend on what a rank is made of."""

from __future__ import annotations

from itertools import islice

import numpy as np

from syncbn_sim import data, nn, optim, train
from syncbn_sim.comm import Communicator


def fifty_steps(comm: Communicator) -> dict[str, np.ndarray]:
    """Trains a small SyncBN net on uneven and sometimes empty batches; returns its state and its outputs on new rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(303, 6)) * 3 + 1, rng.integers(0, 3, 303)
    draw = np.random.default_rng(1)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False, dtype=np.float64, rng=draw),
        nn.SyncBatchNorm(8, dtype=np.float64, comm=comm),
        nn.ReLU(),
        nn.Linear(8, 3, dtype=np.float64, rng=draw),
    )
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), 1e-2)
    batches = islice(data.epochs(data.iid, y, comm.rank, comm.size, 5, 50, [2]), 50)
    for _ in train.fit(model, loss, optimizer, comm, x, y, batches):
        pass
    return {**model.state_dict(), "outputs": train.predict(model, rng.normal(size=(20, 6)))}
