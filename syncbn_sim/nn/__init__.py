"""Layers: state on top of `functional`."""

from .activations import Flatten, ReLU
from .averaged_batch_norm import AveragedBatchNorm
from .batch_norm import BatchNorm
from .containers import ModuleList, Sequential
from .contexts import check_no_contexts, clear_contexts, no_backward
from .convert import convert_sync_batchnorm, revert_sync_batchnorm
from .ghost_batch_norm import GhostBatchNorm
from .group_norm import GroupNorm
from .instance_norm import InstanceNorm
from .layer_norm import LayerNorm
from .linear import Linear
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from .module import Module, Parameter
from .rms_norm import RMSNorm
from .sync_batch_norm import SharedSums, SyncBatchNorm

__all__ = [
    "AveragedBatchNorm",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "CrossEntropyLoss",
    "Flatten",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Linear",
    "Loss",
    "MSELoss",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SharedSums",
    "SyncBatchNorm",
    "check_no_contexts",
    "clear_contexts",
    "convert_sync_batchnorm",
    "no_backward",
    "revert_sync_batchnorm",
]
