"""What learners get wrong in lesson 00, and a word that the hint must contain."""

import numpy as np


def side_by_side(order, rank, size, rows, step):
    everybody = order[step * size * rows : (step + 1) * size * rows]
    return everybody[rank * rows : (rank + 1) * rows]


def beyond_the_stretch(order, rank, size, rows, step):
    start = rank * (len(order) // size) + step * rows
    return order[start : start + rows]


def places(order, rank, size, rows, step):
    start = rank * (len(order) // size) + step * rows
    return np.arange(start, start + rows)


def own(right):
    return right.sum() / max(len(right), 1)


def mean_of_accuracies(comm, right):
    return comm.allreduce(np.array(own(right))) / comm.size


def local_rows(comm, right):
    return comm.allreduce(np.array(float(np.count_nonzero(right)))) / max(right.size, 1)


def empty_rank_stays_away(comm, right):
    if len(right) == 0:
        return 0.0
    hits, rows = comm.allreduce(np.array([float(right.sum()), len(right)]))
    return hits / rows


def only_rank_0_talks(comm, right):
    return comm.allreduce(np.array([1.0])) if comm.rank == 0 else 0.0


def per_rank(labels):
    return np.mean([len(set(row)) for row in labels.tolist()])


WRONG = {
    "0.1": [
        (lambda order, rank, size, rows, step: order[rows * step :][:rows], "`rank` is not used"),
        (side_by_side, "side by side"),
        (lambda order, rank, size, rows, step: order[rank::size][rows * step :][:rows], "like cards"),
        (lambda order, rank, size, rows, step: order[rank * (len(order) // size) + step :][:rows], "moves by one row"),
        (places, "places in the order"),
        (beyond_the_stretch, "the next rank's"),
        (lambda order, rank, size, rows, step: order[:1], "shape"),
    ],
    "0.2": [
        (lambda labels: (per_rank(labels), per_rank(labels)), "unite the batches"),
        (lambda labels: (per_rank(labels), per_rank(labels) * len(labels)), "counted twice"),
        (lambda labels: (per_rank(labels.T), len(set(labels.ravel().tolist()))), "down the columns"),
        (lambda labels: (len(set(labels.ravel().tolist())), per_rank(labels)), "other order"),
        (lambda labels: 3, "expected 2"),
    ],
    "0.3": [
        (lambda comm, right: own(right), "its own accuracy: nobody has talked"),
        (lambda comm, right: right.mean(), "a rank without rows NaN"),
        (mean_of_accuracies, "mean of the ranks' accuracies: a rank"),
        (lambda comm, right: comm.allreduce(np.array(right.mean())) / comm.size, "makes it NaN on all"),
        (local_rows, "rows of this one"),
        (lambda comm, right: comm.allreduce(np.array(own(right))), "sum of the accuracies"),
        (lambda comm, right: comm.allreduce(np.array(float(right.sum()))), "Out of how many"),
        (only_rank_0_talks, "the ranks could not finish"),
        (empty_rank_stays_away, "the ranks could not finish"),
    ],
}
