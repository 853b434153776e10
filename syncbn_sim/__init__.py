"""Batch normalisation and its synchronisation over ranks, by hand in NumPy, to look inside."""

from . import comm, data, experiments, functional, nn, optim, stats, train

__version__ = "0.3.0"
__all__ = ["comm", "data", "experiments", "functional", "nn", "optim", "stats", "train"]
