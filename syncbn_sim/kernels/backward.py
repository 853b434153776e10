"""The backward steps of a norm as plain loops, on the walks of `forward`; x_hat = (x - mean) inv_std is never stored."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .compiler import APPLIED, SUMMED, loop

ROWS = 16  # whose float32 are added up before float64 takes over


@loop(SUMMED)
def sums_of_columns(
    dy: Array, x: Array, offsets: Array, mean: Array, inv_std: Array, weight: Array, cells: Array, channels: Array
) -> None:
    """Writes sum(weight dy) and sum(weight dy x_hat) of each cell to `cells`, sum(dy) and sum(dy x_hat) of each channel to `channels`."""
    total, product = np.empty(len(weight)), np.empty(len(weight))
    channels[:] = 0.0
    for s in range(len(offsets) - 1):
        total[:] = 0.0
        product[:] = 0.0
        m = mean[s]
        for n in range(offsets[s], offsets[s + 1]):
            for c in range(len(weight)):
                total[c] += dy[n, 0, c]
                product[c] += dy[n, 0, c] * (x[n, 0, c] - m[c])
        for c in range(len(weight)):
            channels[0, c] += total[c]
            cells[0, s, c] = weight[c] * total[c]
        for c in range(len(weight)):
            product[c] *= inv_std[s, c]
            channels[1, c] += product[c]
            cells[1, s, c] = weight[c] * product[c]


@loop(SUMMED)
def sums_of_groups(
    dy: Array, x: Array, offsets: Array, mean: Array, inv_std: Array, weight: Array, cells: Array, channels: Array
) -> None:
    """The same where a group has several channels, side by side. Sums of a row, and of a few rows at a time, are of weight's dtype."""
    number, groups, width, done = x.dtype.type, x.shape[1], x.shape[2], 0
    a, run = weight.reshape(groups, width), np.zeros((2, groups, width), weight.dtype)
    cells[:] = 0.0
    channels[:] = 0.0
    for s in range(len(offsets) - 1):
        for n in range(offsets[s], offsets[s + 1]):
            for g in range(groups):
                m, r = number(mean[s, g]), number(inv_std[s, g])
                rest = number((m - mean[s, g]) * inv_std[s, g])
                t, q = weight.dtype.type(0), weight.dtype.type(0)
                for i in range(width):
                    x_hat = (x[n, g, i] - m) * r + rest
                    u = a[g, i] * dy[n, g, i]
                    t += u
                    q += u * x_hat
                    run[0, g, i] += dy[n, g, i]
                    run[1, g, i] += dy[n, g, i] * x_hat
                cells[0, s, g] += t
                cells[1, s, g] += q
            done += 1
            if done % ROWS == 0:
                settle_run(run, channels)
    settle_run(run, channels)


@loop(SUMMED)
def settle_run(run: Array, channels: Array) -> None:
    """Adds what a run has summed to the sums in float64, and begins a new one."""
    flat = run.reshape(channels.shape)
    for k in range(len(channels)):
        for c in range(channels.shape[1]):
            channels[k, c] += flat[k, c]
    run[:] = 0


@loop(SUMMED)
def sums_of_runs(
    dy: Array, x: Array, offsets: Array, mean: Array, inv_std: Array, weight: Array, cells: Array, channels: Array
) -> None:
    """The same where a channel has several positions, side by side."""
    groups = mean.shape[1]
    width, length = x.shape[1] // groups, x.shape[2]
    cells[:] = 0.0
    channels[:] = 0.0
    for s in range(len(offsets) - 1):
        for n in range(offsets[s], offsets[s + 1]):
            for g in range(groups):
                m = mean[s, g]
                for c in range(g * width, (g + 1) * width):
                    t, q = 0.0, 0.0
                    for i in range(length):
                        t += dy[n, c, i]
                        q += dy[n, c, i] * (x[n, c, i] - m)
                    q *= inv_std[s, g]
                    channels[0, c] += t
                    channels[1, c] += q
                    cells[0, s, g] += weight[c] * t
                    cells[1, s, g] += weight[c] * q


@loop(APPLIED)
def gradient_of_columns(
    dy: Array,
    x: Array,
    offsets: Array,
    counts: Array | None,
    mean: Array,
    inv_std: Array,
    weight: Array,
    cells: Array,
    dx: Array,
) -> None:
    """Writes dx = inv_std (weight dy - w (cells[0] + x_hat cells[1]))."""
    channels, number = len(weight), x.dtype.type
    m, r, a = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    k, q = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for s in range(len(offsets) - 1):
        for c in range(channels):
            m[c] = mean[s, c]
        for c in range(channels):
            r[c] = inv_std[s, c]
        for c in range(channels):
            a[c] = weight[c] * inv_std[s, c]
        for c in range(channels):
            k[c] = cells[1, s, c] * inv_std[s, c]
        for c in range(channels):
            q[c] = inv_std[s, c] * (cells[0, s, c] + cells[1, s, c] * inv_std[s, c] * (m[c] - mean[s, c]))
        for n in range(offsets[s], offsets[s + 1]):
            w = number(1) if counts is None else number(counts[n, 0])
            for c in range(channels):
                dx[n, 0, c] = a[c] * dy[n, 0, c] - w * (q[c] + k[c] * ((x[n, 0, c] - m[c]) * r[c]))


@loop(APPLIED)
def gradient_of_groups(
    dy: Array,
    x: Array,
    offsets: Array,
    counts: Array | None,
    mean: Array,
    inv_std: Array,
    weight: Array,
    cells: Array,
    dx: Array,
) -> None:
    """The same where a group has several channels, side by side."""
    number, groups, width = x.dtype.type, x.shape[1], x.shape[2]
    a = weight.astype(x.dtype).reshape(groups, width)
    for s in range(len(offsets) - 1):
        for n in range(offsets[s], offsets[s + 1]):
            w = number(1) if counts is None else number(counts[n, 0])
            for g in range(groups):
                m, r, k = number(mean[s, g]), number(inv_std[s, g]), number(cells[1, s, g])
                q = number(cells[0, s, g] + cells[1, s, g] * inv_std[s, g] * (m - mean[s, g]))
                for i in range(width):
                    dx[n, g, i] = r * (a[g, i] * dy[n, g, i] - w * (q + k * ((x[n, g, i] - m) * r)))


@loop(APPLIED)
def gradient_of_runs(
    dy: Array,
    x: Array,
    offsets: Array,
    counts: Array | None,
    mean: Array,
    inv_std: Array,
    weight: Array,
    cells: Array,
    dx: Array,
) -> None:
    """The same where a channel has several positions, side by side."""
    number, groups = x.dtype.type, mean.shape[1]
    width, length = x.shape[1] // groups, x.shape[2]
    for s in range(len(offsets) - 1):
        for n in range(offsets[s], offsets[s + 1]):
            for g in range(groups):
                m, r = number(mean[s, g]), number(inv_std[s, g])
                k = number(cells[1, s, g] * inv_std[s, g])
                q = number(inv_std[s, g] * (cells[0, s, g] + cells[1, s, g] * inv_std[s, g] * (m - mean[s, g])))
                for c in range(g * width, (g + 1) * width):
                    a = number(weight[c] * inv_std[s, g])
                    for i in range(length):
                        w = number(1) if counts is None else number(counts[n, i])
                        dx[n, c, i] = a * dy[n, c, i] - w * (q + k * ((x[n, c, i] - m) * r))
