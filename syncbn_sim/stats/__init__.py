"""What a batch statistic is. NumPy only; knows no ranks."""

from .correlation import (
    cluster_size,
    design_effect,
    effective_rows,
    expected_local_variance,
    intra_class_correlation,
    predicted_sd_of_mean,
)
from .moments import Moments

__all__ = [
    "Moments",
    "cluster_size",
    "design_effect",
    "effective_rows",
    "expected_local_variance",
    "intra_class_correlation",
    "predicted_sd_of_mean",
]
