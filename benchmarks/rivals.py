"""One training step of a norm, forward and backward, as everybody does it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from syncbn_sim import nn
from syncbn_sim.comm import Communicator
from syncbn_sim.functional.box import box_of
from syncbn_sim.kernels import steps

from .scale import Shape

EPS, MOMENTUM = 1e-5, 0.1
Step = Callable[[], tuple[object, ...]]  # -> y, dx, gradient of weight, gradient of bias
TOLERANCE = 1e-3  # of the largest value; torch's way with rows keeps three digits


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


class Batch:
    """An input, a random cotangent, parameters, and over what a norm sums.

    Attributes:
        x, dy: float32.
        weight, bias: (C,).
        view: shape of x in which the values of one statistic fill whole axes.
        axes: these.
        per_channel: shape of a number per channel, beside that view.
    """

    def __init__(self, shape: Shape, ratio: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.shape, size = shape, shape.size
        channel = -1 if shape.last or shape.norm == "LayerNorm" else 1
        self.channels = size[channel]
        self.x = (rng.normal(size=size) + ratio).astype(np.float32)
        self.dy = rng.normal(size=size).astype(np.float32)
        self.weight = rng.uniform(0.5, 2, self.channels).astype(np.float32)
        self.bias = rng.normal(size=self.channels).astype(np.float32)
        if shape.norm in ("GroupNorm", "InstanceNorm"):
            groups = shape.groups or self.channels
            self.view = (size[0], groups, self.channels // groups, *size[2:])
            self.axes = tuple(range(2, len(self.view)))
            self.per_channel = (1, *self.view[1:3], *(1 for _ in size[2:]))
        else:
            channel %= len(size)
            self.view, rest = size, tuple(axis for axis in range(len(size)) if axis != channel)
            self.axes = (channel,) if shape.norm == "LayerNorm" else rest
            self.per_channel = tuple(1 if axis in rest else self.channels for axis in range(len(size)))

    def tensors(self) -> list[Any]:
        """Torch's x and dy, with the channels on axis 1, weight and bias."""
        import torch

        x, dy, weight, bias = (torch.from_numpy(a) for a in (self.x, self.dy, self.weight, self.bias))
        return [x.movedim(-1, 1), dy.movedim(-1, 1), weight, bias] if self.shape.last else [x, dy, weight, bias]

    def back(self, tensor: Any) -> Any:
        """Torch's y or dx with the channels where the batch has them."""
        return tensor.movedim(1, -1) if self.shape.last else tensor


def ours(batch: Batch, comm: Communicator | None = None) -> Step:
    """The layer as a net uses it, running statistics and parameter gradients included; over ranks, if there are any."""
    shape, channels = batch.shape, batch.channels
    layer: Any
    if shape.norm == "BatchNorm":
        kind = nn.BatchNorm if comm is None else partial(nn.SyncBatchNorm, comm=comm)
        layer = kind(channels, EPS, MOMENTUM, channel_axis=-1 if shape.last else 1)
    else:
        layer = _with_arguments(getattr(nn, shape.norm), batch)
    layer.weight.data[:], layer.bias.data[:] = batch.weight, batch.bias

    def step() -> tuple[object, ...]:
        layer.weight.grad = layer.bias.grad = None
        y = layer(batch.x)
        return y, layer.backward(batch.dy), layer.weight.grad, layer.bias.grad

    return step


def _with_arguments(kind: Callable[..., Any], batch: Batch) -> Any:
    """A layer of ours or of torch's, which share names and arguments."""
    if batch.shape.norm == "GroupNorm":
        return kind(batch.shape.groups, batch.channels, EPS)
    return kind(batch.channels, EPS, **({"affine": True} if batch.shape.norm == "InstanceNorm" else {}))


def loops(batch: Batch) -> Step:
    """The steps that the layer takes, with everything ready: the rest of its time is its own."""
    step, shape = steps(), batch.shape
    groups = {"GroupNorm": shape.groups, "LayerNorm": 1}.get(shape.norm, batch.channels)
    box = box_of(batch.x, -1 if shape.last or shape.norm == "LayerNorm" else 1, groups)
    box = box if shape.norm == "BatchNorm" else box.by_row()
    x, dy = box.flat(batch.x), box.flat(batch.dy)
    y, dx = np.empty_like(x), np.empty_like(x)
    weight, bias = batch.weight.astype(np.float64), batch.bias.astype(np.float64)
    _, _, deviation_sq, mean, n = step.moments(x, box, None)
    var = deviation_sq / n
    inner = np.ones_like(weight) if shape.norm == "BatchNorm" else weight  # what cells sum, as the layers do
    scale = (weight if shape.norm == "BatchNorm" else 1.0) / n

    def each() -> tuple[object, ...]:
        step.moments(x, box, None)
        inv_std = step.normalise(x, box, mean, var, EPS, weight, bias, y)
        cells, channels = step.backward_sums(dy, x, box, mean, inv_std, inner)
        step.input_gradient(dy, x, box, None, mean, inv_std, weight, cells * scale, dx)
        return box.restored(y), box.restored(dx), channels[1], channels[0]

    return each


def plain(batch: Batch, dtype: type[np.floating] = np.float32) -> Step:
    """What one would write in NumPy, two passes for the variance; in float64 the truth that the others are held against."""
    view, axes, shape = batch.view, batch.axes, batch.shape.size
    x, dy = (a.reshape(view).astype(dtype) for a in (batch.x, batch.dy))
    weight, bias = (a.reshape(batch.per_channel).astype(dtype) for a in (batch.weight, batch.bias))
    others = tuple(axis for axis, n in enumerate(batch.per_channel) if n == 1)

    def step() -> tuple[object, ...]:
        centred = x - x.mean(axes, keepdims=True)
        inv_std = 1 / np.sqrt((centred * centred).mean(axes, keepdims=True) + dtype(EPS))
        x_hat = centred * inv_std
        y = weight * x_hat + bias
        g = weight * dy
        dx = inv_std * (g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True))
        return y.reshape(shape), dx.reshape(shape), (dy * x_hat).sum(others).ravel(), dy.sum(others).ravel()

    return step


def torch_native(batch: Batch) -> Step:
    """Torch's own forward and backward functions, without autograd around them."""
    import torch

    native, (x, dy, w, b), channels = torch.ops.aten, batch.tensors(), batch.channels
    n, length, all_three = len(x), x[0].numel() // channels, [True, True, True]

    def batch_norm() -> tuple[object, ...]:
        y, m, inv_std = native.native_batch_norm(x, w, b, mean, var, True, MOMENTUM, EPS)
        backward = native.native_batch_norm_backward
        dx, dw, db = backward(dy, x, w, mean, var, m, inv_std, True, EPS, all_three)
        return batch.back(y), batch.back(dx), dw, db

    def group_norm() -> tuple[object, ...]:
        groups = batch.shape.groups
        y, m, inv_std = native.native_group_norm(x, w, b, n, channels, length, groups, EPS)
        return y, *native.native_group_norm_backward(dy, x, m, inv_std, w, n, channels, length, groups, all_three)

    def instance_norm() -> tuple[object, ...]:
        # As torch.instance_norm: a batch of one with more channels.
        wide, weight = (1, n * channels, *x.shape[2:]), w.repeat(n)
        y, m, inv_std = native.native_batch_norm(x.view(wide), weight, b.repeat(n), None, None, True, 0.0, EPS)
        backward = native.native_batch_norm_backward
        dx, dw, db = backward(dy.view(wide), x.view(wide), weight, None, None, m, inv_std, True, EPS, all_three)
        return y.view(x.shape), dx.view(x.shape), dw.view(n, channels).sum(0), db.view(n, channels).sum(0)

    def layer_norm() -> tuple[object, ...]:
        y, m, inv_std = native.native_layer_norm(x, [channels], w, b, EPS)
        return y, *native.native_layer_norm_backward(dy, x, [channels], m, inv_std, w, b, all_three)

    mean, var = torch.zeros(channels), torch.ones(channels)
    ways = {"GroupNorm": group_norm, "InstanceNorm": instance_norm, "LayerNorm": layer_norm}
    return ways.get(batch.shape.norm, batch_norm)


def torch_autograd(batch: Batch) -> Step:
    """Torch's layer as a net uses it."""
    import torch

    norm = batch.shape.norm
    dimensions = {"BatchNorm": "1d" if batch.x.ndim == 2 else "2d", "InstanceNorm": "2d"}.get(norm, "")
    layer = _with_arguments(getattr(torch.nn, norm + dimensions), batch)
    x, dy, weight, bias = batch.tensors()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    x.requires_grad_()

    def step() -> tuple[object, ...]:
        x.grad = layer.weight.grad = layer.bias.grad = None
        y = layer(x)
        y.backward(dy)
        return batch.back(y.detach()), batch.back(x.grad), layer.weight.grad, layer.bias.grad

    return step


def jax_jit(batch: Batch) -> Step:
    """Forward and backward in one jitted function, so that XLA may fuse as it likes."""
    jax = one_thread_of_jax()
    jnp, view, axes = jax.numpy, batch.view, batch.axes

    def forward(x, weight, bias):  # type: ignore[no-untyped-def]
        x = x.reshape(view)
        mean = x.mean(axes, keepdims=True)
        var = jnp.square(x - mean).mean(axes, keepdims=True)
        weight, bias = weight.reshape(batch.per_channel), bias.reshape(batch.per_channel)
        return (weight * (x - mean) * jax.lax.rsqrt(var + EPS) + bias).reshape(batch.shape.size)

    @jax.jit
    def both(x, dy, weight, bias):  # type: ignore[no-untyped-def]
        y, back = jax.vjp(forward, x, weight, bias)
        return y, *back(dy)

    given = [jax.device_put(a) for a in (batch.x, batch.dy, batch.weight, batch.bias)]
    return lambda: jax.block_until_ready(both(*given))


def one_thread_of_jax(inline: bool | None = None):  # type: ignore[no-untyped-def]
    """The rival jax, whose pool of threads is sized by the cores that it may use when it starts.

    Args:
        inline: before its start: whether it is to compute in the thread that calls, and not to wake another one, as it does by default.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        import jax

        if inline is not None:
            jax.config.update("jax_cpu_enable_async_dispatch", not inline)
        jax.devices("cpu")
    finally:
        os.sched_setaffinity(0, cores)
    return jax


def copy(batch: Batch) -> Callable[[], None]:
    """One copy of the input, to compare with: the step moves at least five arrays (x, y; x, dy, dx), as 2.5 copies do."""
    target = np.empty_like(batch.x)
    return lambda: np.copyto(target, batch.x)


def check_equal(name: str, outputs: tuple[object, ...], truth: tuple[object, ...]) -> None:
    """Nobody is timed who computes something else.

    Raises:
        AssertionError: an output differs by more than 1e-3 of its largest value.
    """
    names = ("y", "dx", "gradient of weight", "gradient of bias")
    for what, got, wanted in zip(names, outputs, truth, strict=True):
        error = np.abs(np.asarray(got) - np.asarray(wanted)).max() / np.abs(np.asarray(wanted)).max()
        assert error < TOLERANCE, f"{name}: {what} is off by {error:.2g}"
