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
        (lambda x, eps: x, "off by"),
        (lambda x, eps: x.mean(0), "shape"),
    ],
    "2.2": [
        (pixel_by_pixel, "axes 0, 2 and 3"),
        (no_affine, "weight and bias"),
        (no_bias, "shift is missing"),
        (affine_alone, "never normalised"),
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
        (lambda x, mean, var, eps: (x - mean) / var**0.5, "eps belongs"),
    ],
}
