"""What a batch statistic is. NumPy only; knows no ranks."""

from .correlation import (
    adjusted_cluster_size,
    cluster_size,
    design_effect,
    effective_rows,
    expected_local_variance,
    intra_class_correlation,
    predicted_sd_of_mean,
    same_entity,
)
from .moments import Moments
from .reading import Behind, MeasuredReading, behind, readers_needed, shuffled_reading, sorted_reading

__all__ = [
    "Behind",
    "MeasuredReading",
    "Moments",
    "adjusted_cluster_size",
    "behind",
    "cluster_size",
    "design_effect",
    "effective_rows",
    "expected_local_variance",
    "intra_class_correlation",
    "predicted_sd_of_mean",
    "readers_needed",
    "same_entity",
    "shuffled_reading",
    "sorted_reading",
]
