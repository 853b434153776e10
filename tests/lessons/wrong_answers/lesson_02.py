"""What learners get wrong in lesson 02, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def no_eps(x, eps):
    mean = x.sum(0) / len(x)
    return (x - mean) / ((x - mean) ** 2).mean(0) ** 0.5


def eps_outside(x, eps):
    return (x - x.mean(0)) / (np.sqrt(x.var(0)) + eps)


def unbiased(x, eps):
    mean = x.mean(0)
    return (x - mean) / np.sqrt(((x - mean) ** 2).sum(0) / (len(x) - 1) + eps)


def over_the_row(x, eps):
    return ((x.T - x.mean(1)) / np.sqrt(x.var(1) + eps)).T


def one_for_all(x, eps):
    return (x - np.mean(x)) / np.sqrt(np.var(x) + eps)


def not_centred(x, eps):
    return x * (1 / np.sqrt(x.var(0) + eps))


def pixel_by_pixel(x, weight, bias, eps):
    x_hat = (x - x.mean(0)) / np.sqrt(x.var(0) + eps)
    return weight.reshape(1, -1, 1, 1) * x_hat + bias.reshape(1, -1, 1, 1)


def images(axes, sd=lambda var, eps: (var + eps) ** 0.5, unbiased=False):
    def normalised(x, weight, bias, eps):
        mean = np.mean(x, axes, keepdims=True)
        var = np.var(x, axes, ddof=int(unbiased), keepdims=True)
        return weight[:, None, None] * (x - mean) / sd(var, eps) + bias[:, None, None]

    return normalised


def no_affine(x, weight, bias, eps):
    return (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)


def no_bias(x, weight, bias, eps):
    return no_affine(x, weight, bias, eps) * weight.reshape(1, -1, 1, 1)


def affine_alone(x, weight, bias, eps):
    return x * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


WRONG = {
    "2.1": [
        (no_eps, "Where does eps go"),
        (eps_outside, "another place"),
        (unbiased, "unbiased"),
        (over_the_row, "LayerNorm"),
        (one_for_all, "channels are mixed"),
        (not_centred, "not centred"),
        (lambda x, eps: (x - x.mean(0)) / (x.var(0) + eps), "is its root"),
        (lambda x, eps: x, "off by"),
        (lambda x, eps: x.mean(0), "shape"),
    ],
    "2.2": [
        (pixel_by_pixel, "axes 0, 2 and 3"),
        (no_affine, "weight and bias"),
        (no_bias, "shift is missing"),
        (affine_alone, "never normalised"),
        (images((2, 3)), "InstanceNorm"),
        (images((1, 2, 3)), "LayerNorm"),
        (images((0, 1, 2, 3)), "channels are mixed"),
        (images((0, 2, 3), sd=lambda var, eps: var + eps), "where is the root"),
        (images((0, 2, 3), sd=lambda var, eps: var**0.5), "eps is missing"),
        (images((0, 2, 3), sd=lambda var, eps: var**0.5 + eps), "outside the root"),
        (images((0, 2, 3), unbiased=True), "unbiased"),
        (lambda x, weight, bias, eps: images((0, 2, 3))(x, bias, weight, eps), "changed places"),
    ],
    "2.3": [
        (lambda running, x, momentum: running * (1 - momentum) + momentum * np.var(x, axis=0), "n - 1"),
        (
            lambda running, x, momentum: running * momentum + (1 - momentum) * np.var(x, axis=0, ddof=1),
            "wrong way round",
        ),
        (lambda running, x, momentum: running * momentum + (1 - momentum) * np.var(x, axis=0), "two things"),
        (lambda running, x, momentum: running + momentum * np.var(x, axis=0, ddof=1), "grows for ever"),
        (lambda running, x, momentum: np.var(x, axis=0, ddof=1), "the past is forgotten"),
    ],
    "2.4": [
        (lambda x, mean, var, eps: (x - x.mean(0)) / np.sqrt(x.var(0) + eps), "training mode"),
        (lambda x, mean, var, eps: (x - mean) / (var + eps), "square root"),
        (lambda x, mean, var, eps: (x - mean) / var**0.5, "eps belongs to"),
        (lambda x, mean, var, eps: (x - mean) / (var**0.5 + eps), "outside the root"),
        (lambda x, mean, var, eps: (x - mean) / (var + 1e-5) ** 0.5, "off by"),
    ],
}
