"""The steps of every norm, compiled from plain loops where numba is installed (extra "fast"); else those of `functional.steps`."""

from .choose import steps

__all__ = ["steps"]
