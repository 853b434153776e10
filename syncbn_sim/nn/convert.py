"""Turning a model's batch normalisation into synchronised batch normalisation, and back."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from ..comm.base import Communicator
from ..errors import ArgumentError
from .averaged_batch_norm import AveragedBatchNorm
from .batch_norm import BatchNorm
from .module import Module
from .sync_batch_norm import SyncBatchNorm

M = TypeVar("M", bound=Module)


def convert_sync_batchnorm(model: M, comm: Communicator) -> M:
    """Makes every BatchNorm of `model` share its statistics over `comm`, in place.

    Only the layers' class changes: parameters (so a built optimiser stays valid), buffers, modes, hyper-parameters and
    sharing (a layer used twice stays one layer) are untouched, and the methods of your own subclass of BatchNorm survive, since it
    becomes a subclass of SyncBatchNorm *and* of yours. Layers that are synchronised already get the new communicator.

    Returns:
        The same model.

    Raises:
        ArgumentError: there is an AveragedBatchNorm, which talks already, and wrongly; or a subclass that changes where sums are
            taken itself (batch_statistics, sum_backward), which would be lost.
    """
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, BatchNorm)]
    for name, layer in layers:
        if isinstance(layer, AveragedBatchNorm):
            raise ArgumentError(
                f"layer {name!r}",
                got="an AveragedBatchNorm",
                expected="BatchNorm or SyncBatchNorm layers",
                do="Build that layer as a BatchNorm.",
            )
        for hook in ("batch_statistics", "sum_backward"):
            if not isinstance(layer, SyncBatchNorm) and getattr(type(layer), hook) is not getattr(BatchNorm, hook):
                raise ArgumentError(
                    f"layer {name!r}",
                    got=f"a {type(layer).__name__} with its own {hook}",
                    expected="a subclass that leaves the sums to BatchNorm",
                    do="Derive it from SyncBatchNorm instead.",
                )
    for _, layer in layers:
        if not isinstance(layer, SyncBatchNorm):
            layer.__class__ = _synchronised(cast(Any, type(layer)))
        cast(SyncBatchNorm, layer).comm = comm
    return model


def revert_sync_batchnorm(model: M) -> M:
    """Makes every SyncBatchNorm of `model` an ordinary BatchNorm (or the subclass it was) again, in place; returns the model."""
    for layer in model.modules():
        if isinstance(layer, SyncBatchNorm):
            del layer.comm
            layer.__class__ = _local(type(layer))  # type: ignore[assignment]
    return model


@cache
def _synchronised(kind: Any) -> type[SyncBatchNorm]:
    return SyncBatchNorm if kind is BatchNorm else type(f"Sync{kind.__name__}", (SyncBatchNorm, kind), {})


def _local(kind: type[SyncBatchNorm]) -> type[BatchNorm]:
    locals_ = (base for base in kind.__bases__ if issubclass(base, BatchNorm) and not issubclass(base, SyncBatchNorm))
    return next(locals_, BatchNorm)
