"""Data-parallel training and evaluation."""

from .evaluate import predict, with_averaged_statistics, with_statistics_of_rank_0
from .metrics import accuracy, auc, log_loss, normalised_entropy
from .step import step, sum_gradients

__all__ = [
    "accuracy",
    "auc",
    "log_loss",
    "normalised_entropy",
    "predict",
    "step",
    "sum_gradients",
    "with_averaged_statistics",
    "with_statistics_of_rank_0",
]
