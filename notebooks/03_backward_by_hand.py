# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 Backward by hand
#
# **You will** derive the gradient of batch normalisation on three numbers, node by node; see its three terms, and what the last two remove; and learn why the two most usual gradient checks pass code that is wrong,
# and which check does not.
#
# **Before:** the chain rule; the forward pass of lesson 02. **Time:** 30 minutes.

# %% tags=["remove-cell"]
import importlib.util
import subprocess
import sys

# On a hosted notebook service: install from the repository.
if importlib.util.find_spec("syncbn_sim") is None:
    REPOSITORY = "git+https://github.com/syncbn-sim/syncbn-sim"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", f"syncbn-sim[lessons] @ {REPOSITORY}"])

# %%
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np

from syncbn_sim import nn
from syncbn_sim.functional import batch_norm as F
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE

# %matplotlib inline
plt.rcParams.update(STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## The question
#
# Training wants to know how the loss $L$ changes with each input. From above comes the *cotangent* $\mathrm dy_i = \partial L / \partial y_i$, one number for each output. From it we need
# $\mathrm d\beta = \partial L / \partial\beta$, $\mathrm d\gamma = \partial L / \partial\gamma$ and $\mathrm dx_i = \partial L/\partial x_i$. (A d before a letter: the gradient of $L$ with respect to it, as in code: `dy`, `dx`.)
#
# Three rows, one channel, $\gamma = 2$, and $\varepsilon = 0$ so that paper suffices. The loss is three times the first output, so $\mathrm dy = (3, 0, 0)$.

# %%
x, dy = np.array([[1.0], [1.0], [4.0]]), np.array([[3.0], [0.0], [0.0]])
weight, bias, n = 2.0, 0.5, 3
mean = x.mean()
deviation = x - mean
var = (deviation**2).mean()
s = 1 / np.sqrt(var)
x_hat = deviation * s
y = weight * x_hat + bias
print("mean", mean, " deviations", deviation.ravel(), " variance", var, " s = 1/sqrt(2) =", round(s, 4))
print("x_hat", x_hat.ravel(), " y", y.ravel())

# %% [markdown]
# The computation as a graph. Going forward, $x$ reaches $\hat x$ along **three** paths: straight on, through the mean, and through the variance. Going backward, each arrow is walked the other way, multiplied by its
# derivative, and where paths meet, gradients *add*.

# %%
NODES = {
    "x": (0, 1, "$x$"),
    "mean": (1.0, 0, r"mean $\mu$"),
    "dev": (2.0, 1, r"$c = x - \mu$"),
    "var": (3.0, 0, r"variance $\sigma^2$"),
    "s": (5.0, 0, r"$s = 1/\sqrt{\sigma^2 + \varepsilon}$"),
    "x_hat": (6.0, 1, r"$\hat x = s\,c$"),
    "y": (7.6, 1, r"$y = \gamma \hat x + \beta$"),
    "w": (7.6, 0, r"$\gamma, \beta$"),
}
ARROWS = {  # from, to: the derivative that the backward pass multiplies with, and where to write it
    ("x", "mean"): (r"$1/n$", -0.25, 0.0),
    ("x", "dev"): (r"$1$", 0, 0.13),
    ("mean", "dev"): (r"$-1$", 0.25, -0.05),
    ("dev", "var"): (r"$2c/n$", 0.32, 0.0),
    ("var", "s"): (r"$-\frac{1}{2}s^3$", -0.05, 0.17),
    ("s", "x_hat"): (r"$c$", 0.2, -0.05),
    ("dev", "x_hat"): (r"$s$", 0, 0.13),
    ("x_hat", "y"): (r"$\gamma$", 0, 0.13),
    ("w", "y"): (r"$\hat x,\ 1$", 0.3, 0.0),
}


def draw_graph():
    ax, boxes = plt.subplots(figsize=(10, 3.2))[1], {}
    for name, (across, up, text) in NODES.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "C0", "linewidth": 2}
        boxes[name] = ax.text(across, up, text, ha="center", va="center", bbox=box, fontsize=12).get_bbox_patch()
    style = {"arrowstyle": "-|>", "color": "C1", "shrinkA": 3, "shrinkB": 3, "linewidth": 2, "mutation_scale": 16}
    for (start, end), (text, right, up) in ARROWS.items():
        (x0, y0, _), (x1, y1, _) = NODES[start], NODES[end]
        clipped = {**style, "patchA": boxes[end], "patchB": boxes[start]}
        ax.annotate("", (x0, y0), (x1, y1), arrowprops=clipped)
        ax.text((x0 + x1) / 2 + right, (y0 + y1) / 2 + up, text, color="C1", ha="center", va="center", fontsize=13)
    ax.set_xlim(-0.4, 8.3)
    ax.set_ylim(-0.3, 1.3)
    ax.axis("off")
    ax.set_title(
        "Three paths lead from x_hat back to x\narrows: the backward pass, each with the factor it multiplies by"
    )
    plt.show()


draw_graph()

# %% [markdown]
# ## Backward, node by node
#
# Start at the right. $\beta$ is added to every output and $\gamma$ multiplies every $\hat x_i$, so they collect from all rows:
#
# $$\mathrm d\beta = \sum_i \mathrm dy_i = 3, \qquad \mathrm d\gamma = \sum_i \mathrm dy_i\,\hat x_i = 3 \cdot \left(-\tfrac{1}{\sqrt2}\right) \approx -2.12, \qquad \mathrm d\hat x = \gamma\,\mathrm dy = (6, 0, 0).$$

# %%
d_bias, d_weight, d_x_hat = dy.sum(), (dy * x_hat).sum(), weight * dy
print("d_bias", d_bias, " d_weight", round(d_weight, 4), " d_x_hat", d_x_hat.ravel())

# %% [markdown]
# $\hat x = s\,c$ has two factors. $s$ is one number for all rows, so it collects a sum, and passes it on to the variance:
#
# $$\mathrm ds = \sum_i \mathrm d\hat x_i\, c_i = 6\cdot(-1) = -6, \qquad \mathrm d\sigma^2 = -\tfrac12 s^3\, \mathrm ds = \tfrac{3}{2\sqrt2} \approx 1.06.$$

# %%
d_s = (d_x_hat * deviation).sum()
d_var = -0.5 * s**3 * d_s
print("d_s", d_s, " d_var", round(d_var, 4))

# %% [markdown]
# Two arrows arrive at $c$: straight from $\hat x$, and from the variance. They add up:
# $\mathrm dc_i = s\,\mathrm d\hat x_i + \tfrac{2 c_i}{n}\,\mathrm d\sigma^2$. Then the mean, which was subtracted from every row, collects $\mathrm d\mu = -\sum_i \mathrm dc_i$, and each $x_i$ is $1/n$ of it.
#
# **Before you look:** which sum must the three numbers of $\mathrm dx$ have? (What happens to $y$ if you add 1 to all of $x$?)

# %%
d_deviation = s * d_x_hat + 2 * deviation / n * d_var
d_mean = -d_deviation.sum()
dx = d_deviation + d_mean / n
print("d_deviation", d_deviation.ravel(), " d_mean", round(d_mean, 4))
print("dx", dx.ravel().round(9) + 0.0, " sum", dx.sum().round(9) + 0.0)
assert np.allclose(dx.ravel(), [1.5 * np.sqrt(2), -1.5 * np.sqrt(2), 0])

# %% [markdown]
# ## Three terms
#
# Put everything into one line (the path $c \to \sigma^2$ adds nothing to $\mathrm d\mu$, because the deviations sum to zero), and three terms remain:
#
# $$\mathrm dx_j = \gamma s \Bigl(\underbrace{\mathrm dy_j}_{\text{direct}} \;-\; \underbrace{\frac1n \sum_i \mathrm dy_i}_{\text{through the mean}} \;-\;
# \underbrace{\frac{\hat x_j}{n} \sum_i \mathrm dy_i\,\hat x_i}_{\text{through the variance}}\Bigr).$$
#
# On paper: direct $(3, 0, 0)$; through the mean $3/3 = 1$ for each row; through the variance $\hat x_j/3 \cdot (-3/\sqrt2)$, with $\hat x = (-1, -1, 2)/\sqrt2$ that is $(\tfrac12, \tfrac12, -1)$. What is left is
# $(1.5, -1.5, 0)$, times $\gamma s = \sqrt2$.

# %%
direct, through_mean = dy, np.full_like(dy, dy.mean())
through_var = x_hat * (dy * x_hat).mean()
for name, term in (("direct", direct), ("through the mean", through_mean), ("through the variance", through_var)):
    print(f"{name:21}", term.ravel())
left = direct - through_mean - through_var
print(f"{'left':21}", left.ravel().round(9) + 0.0, " times", round(weight * s, 4))
assert np.allclose(weight * s * left, dx)

# %% [markdown]
# The engine has the same line (`F.input_gradient`), and takes the two sums from outside. For synchronised BN they are summed over ranks: lesson 06.

# %%
sums = F.local_backward_sums(dy, x_hat)
engine = F.input_gradient(dy, x_hat, np.array([s]), np.array([weight]), sums, n)
print("engine:", engine.ravel().round(9) + 0.0, " sums:", sums.dy, sums.dy_x_hat)
assert np.allclose(engine, dx, rtol=0, atol=1e-12)

# %% [markdown]
# ## What is removed
#
# The first subtracted term is the same for every row; the second is proportional to $\hat x$, so it is a straight line in $x$. Level and slope: together they are a *regression line* through the points
# $(x_i, \mathrm dy_i)$, and $\mathrm dx$ is what the line cannot explain, its residuals, times $\gamma s$. So (for $\varepsilon = 0$)
#
# $$\sum_j \mathrm dx_j = 0 \qquad\text{and}\qquad \sum_j \mathrm dx_j\, \hat x_j = 0.$$
#
# This must be so: BN undoes any shift and any stretch of a column, so the loss cannot ask for one. **What do you expect** of a cotangent that *is* a straight line in $x$, without noise?


# %%
def draw_line(slope, noise, rows=12):
    rng = np.random.default_rng(1)
    x = rng.normal(5, 2, size=(rows, 1))
    layer = nn.BatchNorm(1, eps=0, dtype=np.float64)
    x_hat = layer(x)
    dy = 1 + slope * x_hat + noise * rng.normal(size=(rows, 1))
    dx = layer.backward(dy)
    level_and_slope = np.polyfit(x.ravel(), dy.ravel(), 1)
    residuals = dy - np.polyval(level_and_slope, x)
    assert np.allclose(dx, residuals / x.std(), rtol=0, atol=1e-10)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True, sharey=True)
    across = np.linspace(x.min() - 0.5, x.max() + 0.5, 2)
    axes[0].axhline(dy.mean(), color="C2", linestyle="--", label="through the mean: the level")
    axes[0].plot(
        across, np.polyval(level_and_slope, across), color="C1", label="... and through the variance: the slope"
    )
    axes[0].vlines(x, np.polyval(level_and_slope, x), dy, color="C4", linewidth=1)
    axes[0].plot(x, dy, "o", color="C0", label="dy")
    axes[1].axhline(0, color="black", linewidth=1)
    axes[1].vlines(x, 0, residuals, color="C4", linewidth=1)
    axes[1].plot(x, x.std() * dx, "o", color="C0")
    axes[0].legend(fontsize=10)
    axes[0].set_title("what comes from above", fontsize=11)
    axes[1].set_title("what goes on below: dx / (weight s)", fontsize=11)
    axes[0].set_ylabel("gradient")
    for ax in axes:
        ax.set_xlabel("x")
    kept = np.square(residuals).sum() / np.square(dy).sum()
    figure.suptitle(
        f"dx is what a straight line does not explain of dy: {100 * kept:.0f} % of its squares",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    plt.show()
    return kept


kept = draw_line(slope=1.0, noise=0.5)
assert 0.01 < kept < 0.5
kept = draw_line(slope=1.0, noise=0.0)
assert kept < 1e-20

# %% [markdown]
# In the second figure, nothing: a whole batch of large gradients from above, and nothing goes on below. Keep this picture in mind for the next section.

# %% tags=["remove-cell"]
interact(
    lambda slope, noise: print(f"{100 * draw_line(slope, noise):.1f} % goes on below"),
    slope=widgets.FloatSlider(value=1, min=-2, max=2, step=0.25, continuous_update=False),
    noise=widgets.FloatSlider(value=0.5, min=0, max=2, step=0.25, continuous_update=False),
)
# %% [markdown]
# Two of the batch's $n$ dimensions are gone. With three rows one is left (that is why $\mathrm dx$ above had such a simple form). With **two** rows, none:

# %%
two = nn.BatchNorm(1, eps=0, dtype=np.float64)
two(np.array([[1.0], [4.0]]))
dx_of_two = two.backward(np.array([[3.0], [-5.0]]))
print("two rows, dx:", dx_of_two.ravel())
assert np.abs(dx_of_two).max() < 1e-12

# %% [markdown]
# A unit with local BN and two rows per rank sends no gradient down at all (but for what $\varepsilon$ lets through).
#
# ## Checking a gradient
#
# Is the formula right? Nudge one input by $\pm h$, see how the loss moves, and compare: $\partial L/\partial x_j \approx \bigl(L(x + h e_j) - L(x - h e_j)\bigr) / 2h$. A loss is needed. Any
# loss will do, it seems.


# %%
def numeric_gradient(f, x, h=1e-5):
    """Central differences: the error falls with h squared, the rounding grows with 1/h."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (f(up) - f(down)) / (2 * h)
    return gradient


def forward(x, weight, bias, eps=1e-5):
    moments = F.local_moments(x)
    x_hat, inv_std = F.standardize(x, moments.mean, moments.var(), eps)
    return F.scale_and_shift(x_hat, weight, bias), x_hat, inv_std


print("on the three numbers:")
numeric = numeric_gradient(lambda x: (dy * forward(x, np.array([2.0]), np.array([0.5]), eps=0)[0]).sum(), x)
print(numeric.ravel(), "against", dx.ravel().round(9) + 0.0)
assert np.allclose(numeric, dx, rtol=0, atol=1e-8)

# %% [markdown]
# Now plant bugs. Each of these is a backward pass with one mistake. (`zero`: an array that nobody filled; `four times`: a gradient summed over four ranks once too often;
# `half the count`: on two ranks, each divides the sums of both by its own number of rows.)


# %%
def backward_with(bug, dy, x_hat, inv_std, weight):
    n = len(dy)
    mean_term, var_term = dy.mean(axis=0), x_hat * (dy * x_hat).mean(axis=0)
    if bug == "no mean term":
        mean_term = 0
    if bug == "no variance term":
        var_term = 0
    if bug == "direct term only":
        mean_term = var_term = 0
    if bug == "half the count":
        mean_term, var_term = 2 * mean_term, 2 * var_term
    if bug == "n - 1 for n":
        mean_term, var_term = mean_term * n / (n - 1), var_term * n / (n - 1)
    if bug == "unbiased variance":
        inv_std = inv_std * np.sqrt((n - 1) / n)
    if bug == "weight lost":
        weight = 1.0
    dx = weight * inv_std * (dy - mean_term - var_term)
    return dx * {"zero": 0, "four times": 4, "sign": -1}.get(bug, 1)


BUGS = (
    "none",
    "weight lost",
    "four times",
    "sign",
    "zero",
    "unbiased variance",
    "no variance term",
    "no mean term",
    "direct term only",
    "half the count",
    "n - 1 for n",
)

# %% [markdown]
# And four checks. The loss is $\sum y$; or $\sum y^2$; or $\sum r\,y$ with $r$ a *random* cotangent, once for a new layer ($\gamma = 1$, $\beta = 0$, as a test finds it) and once with random $\gamma$ and $\beta$. A backward pass
# passes if no number differs from the numeric gradient by more than 0.001, an ordinary tolerance. All in float64.
#
# **Before you look:** which bugs will $\sum y$ find? Its cotangent is $(1, \dots, 1)$. Which will $\sum y^2$ find? Its cotangent is $2y$, and $y$ is a straight line in $x$.

# %%
rng = np.random.default_rng(0)
batch, r = rng.normal(size=(8, 3)) * [1, 2, 3] + 1, rng.normal(size=(8, 3))
random_affine, fresh = (rng.uniform(1.5, 2.5, 3), rng.normal(size=3)), (np.ones(3), np.zeros(3))
CHECKS = {  # name: the loss, its cotangent, (weight, bias)
    "sum(y)": (lambda y: y.sum(), lambda y: np.ones_like(y), random_affine),
    "sum(y^2)": (lambda y: (y**2).sum(), lambda y: 2 * y, random_affine),
    "random r,\nnew layer": (lambda y: (r * y).sum(), lambda y: r, fresh),
    "random r,\nrandom weight": (lambda y: (r * y).sum(), lambda y: r, random_affine),
}


def true_and_found(name, bug):
    loss, cotangent, (weight, bias) = CHECKS[name]
    y, x_hat, inv_std = forward(batch, weight, bias)
    truth = numeric_gradient(lambda x: loss(forward(x, weight, bias)[0]), batch)
    return truth, backward_with(bug, cotangent(y), x_hat, inv_std, weight)


errors = np.array([[np.abs(np.subtract(*true_and_found(c, b))).max() for c in CHECKS] for b in BUGS])
passes = errors < 1e-3
caught = (~passes[1:]).sum(axis=0)
for name, number in zip(CHECKS, caught, strict=True):
    largest = np.abs(true_and_found(name, "none")[0]).max()
    print(f"{' '.join(name.split()):24} largest true |dx| {largest:.1e}; catches {number} of {len(BUGS) - 1} bugs")
assert passes[0].all()

# %%
ax = plt.subplots(figsize=(9, 5))[1]
ax.imshow(np.where(passes[1:], 1.0, 0.0), cmap="Greys", vmin=-0.3, vmax=2.2, aspect="auto")
for (down, across), passed in np.ndenumerate(passes[1:]):
    ax.text(across, down, "passes: MISSED" if passed else "caught", ha="center", va="center", fontsize=11)
ax.set_xticks(range(len(CHECKS)), list(CHECKS))
ax.set_yticks(range(len(BUGS) - 1), BUGS[1:])
ax.set_ylabel("planted bug")
ax.grid(False)
ax.set_title(
    f"sum(y) catches {caught[0]} of {len(BUGS) - 1} bugs, sum(y^2) {caught[1]}, a random cotangent {caught[2]},\n"
    f"and with random weights {caught[3]} (the right backward pass passes all four)"
)
plt.show()
assert caught[3] == len(BUGS) - 1 > caught[2] >= len(BUGS) - 2
assert max(caught[:2]) <= 6

# %% [markdown]
# Look at the largest true $|\mathrm dx|$ that was printed. Under $\sum y$ the gradient is exactly zero (what is printed is rounding noise): $\sum_i y_i = n\beta$ whatever $x$ is. Zero times four is zero, and so is minus zero.
# Such a check only catches a bug that makes *something out of nothing*. Under $\sum y^2 = n\bigl(\gamma^2 \sigma^2/(\sigma^2 + \varepsilon) + \beta^2\bigr)$, only $\varepsilon$ keeps it from zero. A random cotangent has parts that no line
# explains. And with $\gamma = 1$ a lost $\gamma$ cannot be seen, so the weights must be random too.
#
# Would a stricter tolerance save $\sum y^2$? Count again, for every tolerance. The grey line is what the *right* backward pass differs by when the outputs are rounded to float32 (and
# $h = 0.01$): a test that also runs in float32 cannot be stricter than that.

# %%
tolerances = np.logspace(-9, 1, 200)
noise = np.abs(
    numeric_gradient(lambda x: float((r * forward(x, *random_affine)[0]).astype(np.float32).sum()), batch, h=1e-2)
    - true_and_found("random r,\nrandom weight", "none")[0]
).max()
for number, (name, marker) in enumerate(zip(CHECKS, ("-", "--", ":", "-."), strict=True)):
    counts = [(errors[1:, number] >= tolerance).sum() for tolerance in tolerances]
    plt.plot(tolerances, counts, marker, color=f"C{number}", label=" ".join(name.split()))
plt.axvline(noise, color="grey", linewidth=4, alpha=0.4, label="float32 rounding")
plt.xscale("log")
plt.xlabel("tolerance")
plt.ylabel(f"bugs caught, of {len(BUGS) - 1}")
last = [tolerances[errors[1:, number].min() > tolerances].max(initial=0) for number in (1, 3)]
plt.title(
    f"sum(y^2) catches all bugs only below a tolerance of {last[0]:.0e}, less than float32 rounding;\n"
    f"a random cotangent with random weights up to {last[1]:.0e}"
)
plt.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()
print(f"float32: off by {noise:.0e}")
assert last[0] < noise < 1e-2 < last[1]

# %% [markdown]
# The same holds for $\mathrm d\gamma$ and $\mathrm d\beta$, which are not small; here is the engine's layer, all three gradients against differences:

# %%
layer = nn.BatchNorm(3, dtype=np.float64)
layer.weight.data, layer.bias.data = random_affine
layer(batch)
layer_dx = layer.backward(r)
weight3, bias3 = random_affine
truths = {
    "dx": (layer_dx, numeric_gradient(lambda v: (r * forward(v, weight3, bias3)[0]).sum(), batch)),
    "d_weight": (layer.weight.grad, numeric_gradient(lambda v: (r * forward(batch, v, bias3)[0]).sum(), weight3)),
    "d_bias": (layer.bias.grad, numeric_gradient(lambda v: (r * forward(batch, weight3, v)[0]).sum(), bias3)),
}
for name, (found, truth) in truths.items():
    print(f"{name:8} largest {np.abs(truth).max():.2f}, largest error {np.abs(found - truth).max():.1e}")
    assert np.abs(found - truth).max() < 1e-7 < 0.1 < np.abs(truth).max()

# %% [markdown]
# A rule to take home: **print the size of the true gradient beside the error**. An error of $10^{-8}$ of nothing is nothing.
#
# ## Frozen statistics
#
# In evaluation mode mean and variance are stored constants. Two of the three paths are cut, and only the direct term is left: $\mathrm dx = \gamma s\, \mathrm dy$. (One needs it for fine-tuning with frozen BN, or to ask what in an image
# a trained net looks at.) **What do you expect** of $\sum y$ as a check now?

# %%
layer.eval()


def evaluated(x):
    with nn.no_backward(layer):
        return layer(x)


layer(batch)
frozen = layer.backward(r)
truth = numeric_gradient(lambda x: (r * evaluated(x)).sum(), batch)
print(
    f"largest error of weight s dy: {np.abs(frozen - truth).max():.1e}, of a gradient of size {np.abs(truth).max():.2f}"
)
print("sum of dx over the rows:", frozen.sum(axis=0), "  in training:", np.abs(layer_dx.sum(axis=0)).round(12))
size_of_sum = np.abs(numeric_gradient(lambda x: evaluated(x).sum(), batch)).max()
print(f"largest |dx| of sum(y) in evaluation: {size_of_sum:.2f}")
assert np.abs(frozen - truth).max() < 1e-7
assert size_of_sum > 0.1

# %% [markdown]
# In evaluation $\sum y$ has a real gradient: the blindness is a matter of the batch statistics.
#
# ## Summary
#
# - An input moves the output along three paths: directly, through the mean, and through the variance.
# - The two extra terms remove a straight line from the cotangent: no shift and no stretch of the batch gets a gradient.
# - Their sums, $\sum \mathrm dy$ and $\sum \mathrm dy\,\hat x$, are the gradients of bias and weight too.
# - $\sum y$ and $\sum y^2$ are (nearly) such lines: they check next to nothing. Use a random cotangent, random weights, float64, and look at the size of the true gradient.
# - In evaluation only the direct term is left.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **3.1** The gradients of weight and bias, in this order, from `dy` and `x_hat`, both (N, C).


# %%
def parameter_gradients(dy, x_hat):
    return None  # your code here


check("3.1", parameter_gradients)

# %% [markdown]
# **3.2** The gradient of the input in training, (N, C), from `dy`, `x_hat`, `inv_std` (C,) and `weight` (C,). Use NumPy alone.


# %%
def input_gradient(dy, x_hat, inv_std, weight):
    return None  # your code here


check("3.2", input_gradient)

# %% [markdown]
# **3.3** A gradient check. `forward(x)` returns y; `backward(x, dy)` claims to return dx. Return True if the claim holds, False if not; draw what you need from `rng`. You may use `numeric_gradient`. Your check is tried
# on right backward passes and on many wrong ones, in any order.


# %%
def backward_is_right(forward, backward, x, rng):
    return None  # your code here


check("3.3", backward_is_right)

# %% [markdown]
# **3.4** The backward pass in evaluation. Return `dx`, `d_weight` and `d_bias`.


# %%
def backward_in_evaluation(dy, x, running_mean, running_var, weight, eps):
    return None  # your code here


check("3.4", backward_in_evaluation)
