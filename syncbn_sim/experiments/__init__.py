"""One question a file: Config -> run() -> Result."""

from . import sorted_batches

__all__ = ["sorted_batches"]
