"""What learners get wrong in lesson 01, and a word that the hint must contain (and no other hint of that exercise)."""

import math

import numpy as np


def _layers(input_rms, depth, first, later):
    for layer in range(depth):
        input_rms *= first if layer == 0 else later
    return input_rms


def no_relu(input_rms, width, sd, depth):
    return _layers(input_rms, depth, sd * math.sqrt(width), sd * math.sqrt(width))


def relu_on_inputs(input_rms, width, sd, depth):
    return _layers(input_rms, depth, sd * math.sqrt(width / 2), sd * math.sqrt(width / 2))


def relu_halves_the_root(input_rms, width, sd, depth):
    return _layers(input_rms, depth, sd * math.sqrt(width), sd * math.sqrt(width) / 2)


def no_root(input_rms, width, sd, depth):
    return _layers(input_rms**2, depth, sd**2 * width, sd**2 * width / 2)


def signs_forgotten(input_rms, width, sd, depth):
    return _layers(input_rms, depth, sd * width, sd * width / math.sqrt(2))


def by_addition(input_rms, width, sd, depth):
    size = input_rms * sd * math.sqrt(width)
    each = size * sd * math.sqrt(width / 2) - size
    return size + (depth - 1) * each


def length(v):
    return math.sqrt(float(np.dot(v, v)))


def gradient_unchanged(w, gradient, factor, lr):
    return gradient, lr * length(gradient) / length(w * factor)


def gradient_multiplied(w, gradient, factor, lr):
    return gradient * factor, lr * length(gradient) / length(w)


def old_length(w, gradient, factor, lr):
    return gradient / factor, lr * length(gradient) / factor / length(w)


def not_relative(w, gradient, factor, lr):
    return gradient / factor, lr * length(gradient) / factor


def no_learning_rate(w, gradient, factor, lr):
    return gradient / factor, length(gradient) / factor**2 / length(w)


def divided_twice(w, gradient, factor, lr):
    return gradient / factor**2, lr * length(gradient) / factor**3 / length(w)


WRONG = {
    "1.1": [
        (no_relu, "what does a ReLU keep"),
        (relu_on_inputs, "one ReLU too many"),
        (relu_halves_the_root, "halved its root"),
        (no_root, "this is the mean square"),
        (signs_forgotten, "random signs"),
        (by_addition, "Layers multiply"),
        (lambda input_rms, width, sd, depth: input_rms, "off by"),
    ],
    "1.2": [
        (gradient_unchanged, "the *output* does not change"),
        (gradient_multiplied, "the wrong way"),
        (old_length, "*new* weights' length"),
        (not_relative, "length of the step"),
        (no_learning_rate, "times something"),
        (divided_twice, "once too often"),
        (lambda w, gradient, factor, lr: gradient / factor, "expected 2"),
    ],
    "1.3": [
        (lambda bias, mean, var: (mean, var), "*stored* mean"),
        (lambda bias, mean, var: (mean + bias, var), "the sign"),
        (lambda bias, mean, var: (mean - bias, var - np.square(bias)), "change a variance"),
        (lambda bias, mean, var: (mean - np.mean(bias), var), "one number for all"),
        (lambda bias, mean, var: (np.zeros_like(mean), var), "one of its own"),
        (lambda bias, mean, var: (mean - 0.1 * bias, var), "off by"),
    ],
    "1.4": [
        (lambda x: (x.mean((1, 2, 3)), x.mean((0, 2, 3))), "the wrong way round"),
        (lambda x: (np.mean(x, 0), np.mean(x, (1, 2, 3))), "still an image"),
        (lambda x: (np.mean(x, (0, 2, 3)), np.mean(x, (2, 3))), "InstanceNorm"),
        (lambda x: (np.mean(x, (0, 2, 3)), np.mean(x, 0)), "must not run over the rows"),
        (lambda x: (np.mean(x), np.mean(x)), "neither of the two"),
        (lambda x: (np.mean(x, (0, 2, 3)), np.mean(x)), "shape"),
    ],
}
