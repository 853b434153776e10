"""Solutions of lesson 00."""

import numpy as np


def batch_of(order, rank, size, rows, step):
    length = len(order) // size
    mine = order[rank * length : (rank + 1) * length]
    return mine[step * rows : (step + 1) * rows]


def classes_seen(labels):
    on_each_rank = [len(np.unique(batch)) for batch in labels]
    return np.mean(on_each_rank), len(np.unique(labels))


def global_accuracy(comm, right):
    hits, rows = comm.allreduce(np.array([right.sum(), len(right)], dtype=np.float64))
    return hits / rows
