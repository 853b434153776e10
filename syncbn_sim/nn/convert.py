"""Turning a model's batch normalisation into synchronised batch normalisation, and back."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from ..comm.base import Communicator, check_communicator
from ..comm.serial import SerialCommunicator
from ..errors import ArgumentError
from .averaged_batch_norm import AveragedBatchNorm
from .batch_norm import BatchNorm
from .ghost_batch_norm import GhostBatchNorm
from .module import Module
from .sync_batch_norm import SharedSums, SyncBatchNorm

M = TypeVar("M", bound=Module)


def convert_sync_batchnorm(model: M, comm: Communicator) -> M:
    """Makes every batch norm of `model` share its sums over `comm`, in place.

    Only the layers' class changes: parameters (so a built optimiser stays valid), buffers, modes, hyper-parameters and
    sharing (a layer used twice stays one layer) are untouched. Your own subclass of BatchNorm keeps its methods, `statistics` and
    `statistics_backward` among them: it becomes a subclass of SyncBatchNorm *and* of yours. Layers that are synchronised already get
    the new communicator.

    Returns:
        The same model.

    Raises:
        ArgumentError: comm is no communicator; there is an AveragedBatchNorm, which talks already, and wrongly; a GhostBatchNorm, which
            parts rows where SyncBatchNorm joins them; or a subclass that sums over the batch or cuts it itself (sum_forward,
            sum_backward, stretches, cuts), which would be lost.
    """
    check_communicator(comm)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, BatchNorm)]
    for name, layer in layers:
        if isinstance(layer, AveragedBatchNorm | GhostBatchNorm):
            expected, do = "BatchNorm or SyncBatchNorm layers", "Build that layer as a BatchNorm."
            raise ArgumentError(f"layer {name!r}", got=type(layer).__name__, expected=expected, do=do)
        for hook in ("sum_forward", "sum_backward", "stretches", "cuts"):
            if not isinstance(layer, SharedSums) and getattr(type(layer), hook) is not getattr(BatchNorm, hook):
                got, do = f"a {type(layer).__name__} with its own {hook}", "Derive it from SyncBatchNorm instead."
                expected = "a subclass that leaves the sums over all rows to BatchNorm (its own `statistics` may stay)"
                raise ArgumentError(f"layer {name!r}", got=got, expected=expected, do=do)
    # All classes first: where one cannot be made, nothing has been converted.
    kinds = [type(m) if isinstance(m, SharedSums) else _synchronised(cast(Any, type(m))) for _, m in layers]
    for (_, layer), kind in zip(layers, kinds, strict=True):
        layer.__class__ = kind
        cast(SyncBatchNorm, layer).comm = comm
    return model


def revert_sync_batchnorm(model: M) -> M:
    """Makes every synchronised batch norm of `model` an ordinary BatchNorm (or the subclass it was) again, in place; returns the model.

    A layer of your own subclass of SyncBatchNorm keeps its class, and so its methods; its statistics become those of this rank alone.
    """
    for layer in model.modules():
        if not isinstance(layer, SharedSums) or isinstance(layer, AveragedBatchNorm):
            continue
        kind = cast(Any, type(layer))
        local: Any = BatchNorm if kind is SyncBatchNorm else vars(kind).get("converted_from")
        if local is None:
            layer.comm = SerialCommunicator()
        else:
            del layer.comm
            layer.__class__ = local
    return model


@cache
def _synchronised(kind: Any) -> type[SyncBatchNorm]:
    if kind is BatchNorm:
        return SyncBatchNorm
    own = {"converted_from": kind, "__reduce_ex__": _reduced, "__module__": kind.__module__}
    return type(f"Sync{kind.__name__}", (SyncBatchNorm, kind), own)


def _reduced(layer: Any, protocol: int) -> tuple[Any, ...]:
    """How to copy or pickle a layer whose class has no name to import it by: by the class it was made from."""
    return _restored, (type(layer).converted_from,), layer.__getstate__()


def _restored(kind: Any) -> SyncBatchNorm:
    made = _synchronised(kind)
    return made.__new__(made)
