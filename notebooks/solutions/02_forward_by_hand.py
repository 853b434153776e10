"""Solutions of lesson 02."""

import numpy as np


def standardize(x, eps):
    mean = x.mean(axis=0)
    var = ((x - mean) ** 2).mean(axis=0)
    return (x - mean) / np.sqrt(var + eps)


def batch_norm_images(x, weight, bias, eps):
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    var = x.var(axis=(0, 2, 3), keepdims=True)
    x_hat = (x - mean) / np.sqrt(var + eps)
    return weight[:, None, None] * x_hat + bias[:, None, None]


def update_running_var(running, x, momentum):
    return (1 - momentum) * running + momentum * x.var(axis=0, ddof=1)


def evaluate(x, mean, var, eps):
    return (x - mean) / np.sqrt(var + eps)
