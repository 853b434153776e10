"""Data-parallel training and evaluation."""

from .evaluate import predict, with_averaged_statistics, with_statistics_of_rank_0
from .fit import fit
from .metrics import accuracy, auc, log_loss, normalised_entropy, r_squared
from .step import step, sum_gradients

__all__ = [
    "accuracy",
    "auc",
    "fit",
    "log_loss",
    "normalised_entropy",
    "predict",
    "r_squared",
    "step",
    "sum_gradients",
    "with_averaged_statistics",
    "with_statistics_of_rank_0",
]
