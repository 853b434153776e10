"""Optimisers and learning-rate schedules."""

from .adam import Adam
from .base import Optimizer
from .schedules import linear_decay
from .sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "linear_decay"]
