"""Data sets, the order in which they are read, and the shard that each rank reads."""

from .dataset import Dataset, Split, share
from .digits import load_digits, split_digits
from .orders import batches, epochs, iid, sorted_by_entity, steps_per_epoch
from .own_log import Log, LogOptions, Source, read_log
from .request_log import request_log

__all__ = [
    "Dataset",
    "Log",
    "LogOptions",
    "Source",
    "Split",
    "batches",
    "epochs",
    "iid",
    "load_digits",
    "read_log",
    "request_log",
    "share",
    "sorted_by_entity",
    "split_digits",
    "steps_per_epoch",
]
