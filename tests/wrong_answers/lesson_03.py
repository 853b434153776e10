"""What learners get wrong in lesson 03, and a word that the hint must contain (and no other hint of that exercise)."""

import numpy as np


def dx(dy, x_hat, inv_std, weight, mean=1.0, var=1.0):
    """The right bracket, with factors on its terms."""
    n = len(dy)
    return weight * inv_std / n * (n * dy - mean * dy.sum(0) - var * x_hat * np.einsum("nc,nc->c", dy, x_hat))


def same_for_every_row(dy, x_hat, inv_std, weight):
    return weight * inv_std * (dy - np.mean(dy, 0) - np.mean(dy * x_hat, 0))


def difference_quotient(loss, x):
    gradient = np.empty_like(x)
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = 1e-5
        step = step.reshape(x.shape)
        gradient.ravel()[i] = (loss(x + step) - loss(x - step)) / 2e-5
    return gradient


def plain_sum(forward, backward, x, rng):
    found = backward(x, np.ones(x.shape))
    return bool(np.allclose(found, difference_quotient(lambda v: forward(v).sum(), x), atol=1e-3))


def sum_of_squares(forward, backward, x, rng):
    found = backward(x, 2 * forward(x))
    return bool(np.abs(found - difference_quotient(lambda v: np.square(forward(v)).sum(), x)).max() < 1e-3)


def exact(forward, backward, x, rng):
    dy = rng.normal(size=x.shape)
    return bool((backward(x, dy) == difference_quotient(lambda v: (dy * forward(v)).sum(), x)).all())


def another_loss(forward, backward, x, rng):
    dy = rng.normal(size=x.shape)
    return bool(np.allclose(backward(x, dy), difference_quotient(lambda v: forward(v).sum(), x), atol=1e-3))


def only_the_shape(forward, backward, x, rng):
    return backward(x, rng.normal(size=x.shape)).shape == x.shape


def evaluation(dy, x, mean, var, weight, eps):
    s = (var + eps) ** -0.5
    return dy * (weight * s), np.sum(dy * (x - mean) * s, 0), np.sum(dy, 0)


def three_terms(dy, x, mean, var, weight, eps):
    s = (var + eps) ** -0.5
    return dx(dy, (x - mean) * s, s, weight), *evaluation(dy, x, mean, var, weight, eps)[1:]


def own_statistics(dy, x, mean, var, weight, eps):
    return evaluation(dy, x, np.mean(x, 0), np.var(x, 0), weight, eps)


def own_x_hat(dy, x, mean, var, weight, eps):
    right = evaluation(dy, x, mean, var, weight, eps)
    return right[0], own_statistics(dy, x, mean, var, weight, eps)[1], right[2]


def no_weight(dy, x, mean, var, weight, eps):
    return evaluation(dy, x, mean, var, 1.0, eps)


def no_eps(dy, x, mean, var, weight, eps):
    return evaluation(dy, x, mean, var, weight, 0)


WRONG = {
    "3.1": [
        (lambda dy, x_hat: (np.sum(dy, 0), np.sum(dy * x_hat, 0)), "wrong order"),
        (lambda dy, x_hat: (np.mean(dy * x_hat, 0), np.mean(dy, 0)), "means over the rows"),
        (lambda dy, x_hat: (np.sum(dy, 0), np.sum(dy, 0)), "what does the weight multiply"),
        (lambda dy, x_hat: (np.sum(dy * x_hat, 1), np.sum(dy, 1)), "wrong axis"),
        (lambda dy, x_hat: (np.sum(dy, 0) * np.sum(x_hat, 0), np.sum(dy, 0)), "product of sums"),
        (lambda dy, x_hat: (dy * x_hat, dy), "shape"),
        (lambda dy, x_hat: np.sum(dy, 0), "expected 2"),
    ],
    "3.2": [
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=0, var=0), "*frozen* statistics"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=0), "a shift of the whole column"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, var=0), "stretches are not"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, 1.0), "nobody would see it"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, 1.0, w), "the standardisation divided"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=len(dy), var=len(dy)), "subtracted whole"),
        (
            lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=len(dy) / (len(dy) - 1), var=len(dy) / (len(dy) - 1)),
            "n - 1",
        ),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, var=-1), "a sign"),
        (same_for_every_row, "the same for every row"),
        (
            lambda dy, x_hat, s, w: w * s * (dy - np.sum(dy) / len(dy) - x_hat * np.sum(dy * x_hat) / len(dy)),
            "sums run over everything",
        ),
        (lambda dy, x_hat, s, w: w * s * (dy - dy.mean() - x_hat * (x_hat * dy).mean()), "rows *and* channels"),
        (lambda dy, x_hat, s, w: 2 * dx(dy, x_hat, s, w), "off by"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, var=2), "off by"),
    ],
    "3.3": [
        (lambda forward, backward, x, rng: True, "everything passes"),
        (only_the_shape, "everything passes"),
        (exact, "nothing passes"),
        (plain_sum, "a plain sum?"),
        (sum_of_squares, "a sum of squares?"),
        (another_loss, "two different losses"),
        (lambda forward, backward, x, rng: backward is not forward and x.size == 0, "nothing passes"),
    ],
    "3.4": [
        (three_terms, "terms through the statistics"),
        (own_statistics, "batch's own statistics"),
        (own_x_hat, "*stored* statistics"),
        (no_weight, "factor is missing"),
        (no_eps, "eps was there"),
        (lambda dy, x, mean, var, weight, eps: evaluation(dy, x, mean, var, weight, eps)[0], "expected 3"),
        (lambda dy, x, mean, var, weight, eps: evaluation(-dy, x, mean, var, weight, eps), "off by"),
    ],
}
