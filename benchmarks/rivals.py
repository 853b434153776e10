"""One batch norm training step, forward and backward, as everybody does it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np
from syncbn_sim.functional.kernels import batch_of

from syncbn_sim import nn
from syncbn_sim.arrays import Array
from syncbn_sim.functional import batch_norm as readable
from syncbn_sim.workspace import Workspace

EPS, MOMENTUM = 1e-5, 0.1
Step = Callable[[], tuple[object, ...]]  # -> y, dx, gradient of weight, gradient of bias
TOLERANCE = 1e-3  # of the largest value; torch's way with rows keeps three digits


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


class Batch:
    """An input, a random cotangent, and parameters. `last`: the channels are on the last axis."""

    def __init__(self, shape: tuple[int, ...], last: bool = False, ratio: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.shape, self.last, self.channels = shape, last, shape[-1 if last else 1]
        self.x = (rng.normal(size=shape) + ratio).astype(np.float32)
        self.dy = rng.normal(size=shape).astype(np.float32)
        self.weight = rng.uniform(0.5, 2, self.channels).astype(np.float32)
        self.bias = rng.normal(size=self.channels).astype(np.float32)

    def second(self, array: Array) -> Array:
        """A view with the channels on axis 1."""
        return np.moveaxis(array, -1, 1) if self.last else array

    def back(self, array: Array) -> Array:
        """A view with the channels where the batch has them."""
        return np.moveaxis(array, 1, -1) if self.last else array


def ours(batch: Batch, make: Callable[..., nn.BatchNorm] = nn.BatchNorm, **options: object) -> Step:
    """The layer as a net uses it, running statistics and parameter gradients included."""
    layer = make(batch.channels, EPS, MOMENTUM, channel_axis=-1 if batch.last else 1, **options)
    layer.weight.data[:], layer.bias.data[:] = batch.weight, batch.bias

    def step() -> tuple[object, ...]:
        layer.weight.grad = layer.bias.grad = None
        y = layer(batch.x)
        return y, layer.backward(batch.dy), layer.weight.grad, layer.bias.grad

    return step


def our_functions(batch: Batch) -> Step:
    """The functions that the layer calls, without the layer: what its own bookkeeping costs is the difference."""
    space, second, back = Workspace(), batch.second, batch.back

    def step() -> tuple[object, ...]:
        x, dy = second(batch.x), second(batch.dy)
        kept = batch_of(x, None, space)
        local = kept.local_moments()
        y = kept.normalise(local.mean, local.var(), EPS, batch.weight, batch.bias)
        sums = kept.local_backward_sums(dy)
        dx = kept.input_gradient(batch.weight, sums, local.count)
        return back(y), back(dx), sums.dy_x_hat, sums.dy

    return step


def textbook(batch: Batch) -> Step:
    """functional/batch_norm.py, in float64 as it computes; the truth the others are held against."""
    x, dy = batch.second(batch.x), batch.second(batch.dy)

    def step() -> tuple[object, ...]:
        local = readable.local_moments(x)
        x_hat, inv_std = readable.standardize(x, local.mean, local.var(), EPS)
        y = readable.scale_and_shift(x_hat, batch.weight, batch.bias)
        sums = readable.local_backward_sums(dy, x_hat)
        dx = readable.input_gradient(dy, x_hat, inv_std, batch.weight, sums, local.count)
        return batch.back(y), batch.back(dx), sums.dy_x_hat, sums.dy

    return step


def plain(batch: Batch) -> Step:
    """What one would write in NumPy without thinking of float64, two passes for the variance."""
    axes = tuple(a for a in range(batch.x.ndim) if a != (batch.x.ndim - 1 if batch.last else 1))
    shape = [1 if a in axes else -1 for a in range(batch.x.ndim)]
    weight, bias, count = batch.weight.reshape(shape), batch.bias.reshape(shape), batch.x.size // batch.channels

    def step() -> tuple[object, ...]:
        inv_std = 1 / np.sqrt(batch.x.var(axis=axes, keepdims=True) + np.float32(EPS))
        x_hat = (batch.x - batch.x.mean(axis=axes, keepdims=True)) * inv_std
        y = weight * x_hat + bias
        db = batch.dy.sum(axis=axes, keepdims=True)
        dw = (batch.dy * x_hat).sum(axis=axes, keepdims=True)
        dx = weight * inv_std * (batch.dy - (db + x_hat * dw) / np.float32(count))
        return y, dx, dw.ravel(), db.ravel()

    return step


def torch_native(batch: Batch) -> Step:
    """Torch's own forward and backward functions, without autograd around them."""
    import torch

    x, dy, w, b = (
        torch.from_numpy(a) for a in (batch.second(batch.x), batch.second(batch.dy), batch.weight, batch.bias)
    )
    mean, var = torch.zeros(batch.channels), torch.ones(batch.channels)

    def step() -> tuple[object, ...]:
        y, m, inv_std = torch.native_batch_norm(x, w, b, mean, var, True, MOMENTUM, EPS)
        backward = torch.ops.aten.native_batch_norm_backward
        dx, dw, db = backward(dy, x, w, mean, var, m, inv_std, True, EPS, [True, True, True])
        return _last(batch, y), _last(batch, dx), dw, db

    return step


def torch_autograd(batch: Batch) -> Step:
    """torch.nn.BatchNorm1d or 2d as a net uses it."""
    import torch

    layer = (torch.nn.BatchNorm1d if batch.x.ndim == 2 else torch.nn.BatchNorm2d)(batch.channels, EPS, MOMENTUM)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(batch.weight))
        layer.bias.copy_(torch.from_numpy(batch.bias))
    x, dy = torch.from_numpy(batch.second(batch.x)).requires_grad_(), torch.from_numpy(batch.second(batch.dy))

    def step() -> tuple[object, ...]:
        x.grad = layer.weight.grad = layer.bias.grad = None
        y = layer(x)
        y.backward(dy)
        return _last(batch, y.detach()), _last(batch, x.grad), layer.weight.grad, layer.bias.grad

    return step


def _last(batch: Batch, tensor):  # type: ignore[no-untyped-def]
    return tensor.movedim(1, -1) if batch.last else tensor


def jax_jit(batch: Batch) -> Step:
    """Forward and backward in one jitted function, so that XLA may fuse as it likes."""
    jax = single_threaded_jax()
    jnp, axis = jax.numpy, batch.x.ndim - 1 if batch.last else 1
    axes = tuple(a for a in range(batch.x.ndim) if a != axis)
    shape = [1 if a in axes else -1 for a in range(batch.x.ndim)]

    def forward(x, weight, bias):  # type: ignore[no-untyped-def]
        mean = x.mean(axes, keepdims=True)
        var = jnp.square(x - mean).mean(axes, keepdims=True)
        return weight.reshape(shape) * (x - mean) * jax.lax.rsqrt(var + EPS) + bias.reshape(shape)

    @jax.jit
    def both(x, dy, weight, bias):  # type: ignore[no-untyped-def]
        y, back = jax.vjp(forward, x, weight, bias)
        return y, *back(dy)

    given = [jax.device_put(a) for a in (batch.x, batch.dy, batch.weight, batch.bias)]
    return lambda: jax.block_until_ready(both(*given))


def single_threaded_jax():  # type: ignore[no-untyped-def]
    """The rival jax sizes its pool of threads by the cores it may use when it starts: it is started with one."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        import jax

        jax.devices("cpu")
    finally:
        os.sched_setaffinity(0, cores)
    return jax


def copy(batch: Batch) -> Callable[[], None]:
    """One copy of the input, to compare with: the step moves at least five arrays (x, y; x, dy, dx), as 2.5 copies do."""
    target = np.empty_like(batch.x)
    return lambda: np.copyto(target, batch.x)


def check_equal(name: str, step: Step, truth: tuple[object, ...]) -> None:
    """Nobody is timed who computes something else.

    Raises:
        AssertionError: an output differs by more than 1e-3 of its largest value.
    """
    outputs = step()
    assert len(outputs) in (2, 4), f"{name}: {len(outputs)} outputs"
    names = ("y", "dx", "gradient of weight", "gradient of bias")
    for what, got, wanted in zip(names, outputs, truth[: len(outputs)], strict=False):
        error = np.abs(np.asarray(got) - np.asarray(wanted)).max() / np.abs(np.asarray(wanted)).max()
        assert error < TOLERANCE, f"{name}: {what} is off by {error:.2g}"
