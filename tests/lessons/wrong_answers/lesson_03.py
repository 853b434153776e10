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


def strict_sum_of_squares(forward, backward, x, rng):
    truth = difference_quotient(lambda v: np.square(forward(v)).sum(), x)
    return np.allclose(backward(x, 2 * forward(x)), truth, rtol=1e-2, atol=1e-7)


def compared(agree):
    """A right check, but for its comparison agree(found, truth)."""

    def check(forward, backward, x, rng):
        dy = rng.normal(size=x.shape)
        return agree(backward(x, dy), difference_quotient(lambda v: (dy * forward(v)).sum(), x))

    return check


def within(tolerance):
    return compared(lambda found, truth: np.abs(found - truth).max() < tolerance * np.abs(truth).max())


def units(a, axis):
    return a / np.linalg.norm(a, axis=axis, keepdims=True)


def edge(a):
    """Where the first and last rows and channels are."""
    there = np.ones(a.shape, bool)
    there[1:-1, 1:-1] = False
    return there


def of_batch_norm_alone(forward, backward, x, rng):
    dy = rng.normal(size=x.shape)
    found, x_hat = backward(x, dy), (x - x.mean(0)) / x.std(0)
    return bool(compared(np.allclose)(forward, backward, x, rng) and np.abs((found * x_hat).sum(0)).max() < 0.01)


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


def divided_by_inv_std(dy, x, mean, var, weight, eps):
    right = evaluation(dy, x, mean, var, weight, eps)
    return right[0] * (var + eps), *right[1:]


def d_weight_with(factor):
    def gradients(dy, x, mean, var, weight, eps):
        right = evaluation(dy, x, mean, var, weight, eps)
        return right[0], (dy * factor(x, mean)).sum(0), right[2]

    return gradients


def d_bias_first(dy, x, mean, var, weight, eps):
    dx, d_weight, d_bias = evaluation(dy, x, mean, var, weight, eps)
    return dx, d_bias, d_weight


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
        (lambda dy, x_hat: (np.abs(np.sum(dy * x_hat, 0)), np.sum(dy, 0)), "off by"),
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
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, var=-1), "makes x_hat *smaller*"),
        (same_for_every_row, "the same for every row"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=-1), "so its path takes away"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, mean=-1, var=-1), "two signs"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, 1 / s, w), "divided by inv_std"),
        (
            lambda dy, x_hat, s, w: w * s * (dy - np.sum(dy) / len(dy) - x_hat * np.sum(dy * x_hat) / len(dy)),
            "sums run over everything",
        ),
        (lambda dy, x_hat, s, w: w * s * (dy - dy.mean() - x_hat * (x_hat * dy).mean()), "rows *and* channels"),
        (lambda dy, x_hat, s, w: 2 * dx(dy, x_hat, s, w), "off by"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, np.abs(w)), "off by"),
        (lambda dy, x_hat, s, w: dx(dy, x_hat, s, w, var=2), "off by"),
    ],
    "3.3": [
        (lambda forward, backward, x, rng: True, "everything passes"),
        (only_the_shape, "everything passes"),
        (exact, "nothing passes"),
        (plain_sum, "next to nothing through"),
        (strict_sum_of_squares, "next to nothing through"),
        (sum_of_squares, "next to nothing through"),
        (another_loss, "a right backward pass is refused. The dy"),
        (lambda forward, backward, x, rng: backward is not forward and x.size == 0, "nothing passes"),
        (compared(lambda f, t: np.allclose(np.abs(f), np.abs(t))), "sign turned"),
        (compared(lambda f, t: np.isclose(np.linalg.norm(f), np.linalg.norm(t))), "sign turned"),
        (compared(lambda f, t: np.allclose(units(f, 0), units(t, 0))), "weight's factor"),
        (compared(lambda f, t: np.allclose(units(f, None), units(t, None))), "four times"),
        (compared(lambda f, t: np.allclose(np.sort(f, 0), np.sort(t, 0))), "wrong rows"),
        (compared(lambda f, t: np.allclose(f.sum(1), t.sum(1))), "wrong channels"),
        (compared(lambda f, t: np.allclose(f[-1], t[-1])), "first row"),
        (compared(lambda f, t: np.allclose(f[0], t[0])), "last row"),
        (compared(lambda f, t: np.isclose(f[0, 0], t[0, 0])), "last row"),
        (compared(lambda f, t: np.isclose(f, t).any()), "first row"),
        (compared(lambda f, t: (f - t).max() < 1e-4), "last row"),
        (compared(lambda f, t: np.allclose(f[:, 1:], t[:, 1:])), "first channel"),
        (compared(lambda f, t: np.allclose(f[:, 0], t[:, 0])), "last channel"),
        (compared(lambda f, t: np.allclose(f[edge(f)], t[edge(t)])), "in the middle alone"),
        (compared(lambda f, t: not (np.abs(f - t) > 1e-4).any()), "with a NaN in it"),
        (within(0.2), "n - 1 in place of n"),
        (within(0.03), "2 % too large"),
        (compared(lambda f, t: np.allclose(f, t, atol=0.1)), "2 % too large"),
        (compared(np.isclose), "array of shape (6, 3)"),
        (compared(lambda f, t: float(np.allclose(f, t))), "says float 1.0"),
        (compared(lambda f, t: True if np.allclose(f, t) else None), "says NoneType None"),
        (of_batch_norm_alone, "of another function is refused"),
    ],
    "3.4": [
        (three_terms, "terms through the statistics"),
        (own_statistics, "batch's own statistics"),
        (own_x_hat, "*stored* statistics"),
        (no_weight, "factor is missing"),
        (no_eps, "eps was there"),
        (lambda dy, x, m, v, w, eps: evaluation(dy, x, m, (v**0.5 + eps) ** 2, w, 0), "outside the root"),
        (lambda dy, x, m, v, w, eps: evaluation(dy, x, m, (v + eps) ** 2, w, 0), "divided by the variance"),
        (divided_by_inv_std, "multiplied by the standard deviation"),
        (d_weight_with(lambda x, mean: x), "did not multiply x"),
        (d_weight_with(lambda x, mean: x - mean), "centred *and* divided"),
        (d_bias_first, "in another order"),
        (lambda dy, x, mean, var, weight, eps: evaluation(dy, x, mean, var, weight, eps)[0], "expected 3"),
        (lambda dy, x, mean, var, weight, eps: evaluation(-dy, x, mean, var, weight, eps), "off by"),
    ],
}
