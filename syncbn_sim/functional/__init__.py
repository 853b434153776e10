"""Hand-derived forward and backward pairs: pure functions, no state, no ranks."""

from . import activations, batch_norm, linear, losses

__all__ = ["activations", "batch_norm", "linear", "losses"]
