"""The forward steps of a norm as plain loops, made into machine code: what a fused kernel on a GPU does, a thread per cell or channel.

Each step walks through memory once and does all it can with a number while that is in a register; NumPy walks once per operation.
The three walks are those of `functional.box`, and so is the shape of x. Without the decorator the functions give the same, slowly.

Sums are float64, of differences from a number near the mean, so that nothing is lost however far from 0 the data are. What is
applied to each number is computed in x's dtype: x - (the mean in this dtype) is exact, or nearly; `rest` is what the mean has beyond that.

Traps. A loop is vectorised only if the compiler can make sure, with eight comparisons, that what it writes overlaps nothing else:
hence a loop for each coefficient. The innermost index starts at 0: of x[n, c * L + i] it would ask each time whether it is negative.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .compiler import APPLIED, SUMMED, loop

# Once more, around the mean, where (mean - first)^2 > FAR variance: below, the squares have lost two digits of sixteen.
FAR = 100.0


@loop(SUMMED)
def settle(s: int, n: float, near: Array, total: Array, squares: Array, out: Array) -> bool:
    """Makes the moments of a stretch's cells of sums around `near`, and `near` the means; says whether these were far away."""
    far = False
    for g in range(len(near)):
        shift = total[g] / n if n > 0 else 0.0
        mean = near[g] + shift
        # never below 0 by rounding; nan stays nan
        deviation_sq = squares[g] - shift * total[g]
        deviation_sq = 0.0 if deviation_sq < 0 else deviation_sq
        far |= shift * total[g] > FAR * deviation_sq
        out[0, s, g], out[1, s, g], out[2, s, g] = n * mean, deviation_sq + n * mean * mean, deviation_sq
        out[3, s, g], out[4, s, g], near[g] = mean, n, mean
    return far


@loop(SUMMED)
def moments_of_columns(x: Array, offsets: Array, counts: Array | None, out: Array) -> None:
    """Writes sum(w x), sum(w x^2), sum(w (x - mean)^2), mean and count n of each cell to out[0] to out[4]; 0 for a cell without rows."""
    groups = out.shape[2]
    near, total, squares = np.zeros(groups), np.empty(groups), np.empty(groups)
    for s in range(len(offsets) - 1):
        low, high = offsets[s], offsets[s + 1]
        count = float(high - low) if counts is None else counts[low:high].sum()
        for g in range(groups):
            near[g] = x[low, 0, g] if high > low else 0.0
        for _ in range(2):
            total[:] = 0.0
            squares[:] = 0.0
            for n in range(low, high):
                w = 1.0 if counts is None else counts[n, 0]
                for g in range(groups):
                    d = x[n, 0, g] - near[g]
                    total[g] += w * d
                    squares[g] += w * d * d
            if not settle(s, count, near, total, squares, out):
                break


@loop(SUMMED)
def settle_one(n: float, near: float, total: float, squares: float) -> tuple[float, float, bool]:
    """Mean and sum((x - mean)^2) of one cell from the same."""
    shift = total / n if n > 0 else 0.0
    deviation_sq = squares - shift * total
    deviation_sq = 0.0 if deviation_sq < 0 else deviation_sq
    return near + shift, deviation_sq, shift * total > FAR * deviation_sq


@loop(SUMMED)
def moments_of_groups(x: Array, offsets: Array, counts: Array | None, out: Array) -> None:
    """The same where a group has several channels, side by side. Cells are many and small: each by itself, in registers."""
    groups, width = x.shape[1], x.shape[2]
    for s in range(len(offsets) - 1):
        low, high = offsets[s], offsets[s + 1]
        count = width * (float(high - low) if counts is None else counts[low:high].sum())
        for g in range(groups):
            mean, deviation_sq = float(x[low, g, 0]) if high > low else 0.0, 0.0
            for _ in range(2):
                near, total, squares = mean, 0.0, 0.0
                for n in range(low, high):
                    t, q = 0.0, 0.0
                    for i in range(width):
                        d = x[n, g, i] - near
                        t += d
                        q += d * d
                    w = 1.0 if counts is None else counts[n, 0]
                    total += w * t
                    squares += w * q
                mean, deviation_sq, far = settle_one(count, near, total, squares)
                if not far:
                    break
            out[0, s, g], out[1, s, g], out[2, s, g] = count * mean, deviation_sq + count * mean * mean, deviation_sq
            out[3, s, g], out[4, s, g] = mean, count


@loop(SUMMED)
def moments_of_runs(x: Array, offsets: Array, counts: Array | None, out: Array) -> None:
    """The same where a channel has several positions, side by side."""
    groups, length = out.shape[2], x.shape[2]
    width = x.shape[1] // groups
    near, total, squares = np.zeros(groups), np.empty(groups), np.empty(groups)
    for s in range(len(offsets) - 1):
        low, high = offsets[s], offsets[s + 1]
        count = width * (float(high - low) * length if counts is None else counts[low:high].sum())
        for g in range(groups):
            near[g] = x[low, g * width, 0] if high > low else 0.0
        for _ in range(2):
            total[:] = 0.0
            squares[:] = 0.0
            for n in range(low, high):
                for g in range(groups):
                    for c in range(g * width, (g + 1) * width):
                        t, q = 0.0, 0.0
                        for i in range(length):
                            w = 1.0 if counts is None else counts[n, i]
                            d = x[n, c, i] - near[g]
                            t += w * d
                            q += w * d * d
                        total[g] += t
                        squares[g] += q
            if not settle(s, count, near, total, squares, out):
                break


@loop(APPLIED)
def normalise_columns(
    x: Array, offsets: Array, mean: Array, var: Array, eps: float, weight: Array, bias: Array, inv_std: Array, y: Array
) -> None:
    """Writes inv_std = 1 / sqrt(var + eps) and y = weight (x - mean) inv_std + bias."""
    channels = len(weight)
    m, a, b = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for s in range(len(offsets) - 1):
        for c in range(channels):
            inv_std[s, c] = 1.0 / np.sqrt(var[s, c] + eps)
        for c in range(channels):
            m[c] = mean[s, c]
        for c in range(channels):
            a[c] = weight[c] * inv_std[s, c]
        for c in range(channels):
            b[c] = bias[c] + weight[c] * inv_std[s, c] * (m[c] - mean[s, c])
        for n in range(offsets[s], offsets[s + 1]):
            for c in range(channels):
                y[n, 0, c] = (x[n, 0, c] - m[c]) * a[c] + b[c]


@loop(APPLIED)
def normalise_groups(
    x: Array, offsets: Array, mean: Array, var: Array, eps: float, weight: Array, bias: Array, inv_std: Array, y: Array
) -> None:
    """The same where a group has several channels, side by side."""
    number, groups, width = x.dtype.type, x.shape[1], x.shape[2]
    a, b = weight.astype(x.dtype).reshape(groups, width), bias.astype(x.dtype).reshape(groups, width)
    for s in range(len(offsets) - 1):
        for g in range(groups):
            inv_std[s, g] = 1.0 / np.sqrt(var[s, g] + eps)
        for n in range(offsets[s], offsets[s + 1]):
            for g in range(groups):
                m, r = number(mean[s, g]), number(inv_std[s, g])
                rest = number((m - mean[s, g]) * inv_std[s, g])
                for i in range(width):
                    y[n, g, i] = ((x[n, g, i] - m) * r + rest) * a[g, i] + b[g, i]


@loop(APPLIED)
def normalise_runs(
    x: Array, offsets: Array, mean: Array, var: Array, eps: float, weight: Array, bias: Array, inv_std: Array, y: Array
) -> None:
    """The same where a channel has several positions, side by side."""
    number, groups = x.dtype.type, mean.shape[1]
    width, length = x.shape[1] // groups, x.shape[2]
    for s in range(len(offsets) - 1):
        for g in range(groups):
            inv_std[s, g] = 1.0 / np.sqrt(var[s, g] + eps)
        for n in range(offsets[s], offsets[s + 1]):
            for g in range(groups):
                m = number(mean[s, g])
                for c in range(g * width, (g + 1) * width):
                    scale = weight[c] * inv_std[s, g]
                    a, b = number(scale), number(bias[c] + scale * (m - mean[s, g]))
                    for i in range(length):
                        y[n, c, i] = (x[n, c, i] - m) * a + b
