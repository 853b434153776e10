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
# # 02 Forward by hand
#
# **You will** compute a batch-normalised output on paper and find the same numbers in the engine; see what $\varepsilon$ is for;
# and know which of two variances normalises and which is stored.
#
# **Before:** what a mean and a variance are; lesson 01 says why one would normalise at all. **Time:** 20 minutes.

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
# ## A batch that fits on paper
#
# Three rows, two channels. Take a pencil: the mean of each column, then the variance, *dividing by 3*.

# %%
x = np.array([[1.0, 10.0], [2.0, 10.0], [6.0, 10.0]])

# %% [markdown]
# $$\mu_c = \frac1n \sum_i x_{ic} \qquad\qquad \sigma_c^2 = \frac1n \sum_i (x_{ic} - \mu_c)^2$$
#
# First column: $\mu = (1+2+6)/3 = 3$, deviations $-2, -1, 3$, so $\sigma^2 = (4+1+9)/3 = 14/3$. Second column: $\mu = 10$, $\sigma^2 = 0$.
#
# The engine asks for these in a roundabout way: it computes the count, the sum and the sum of squares (`Moments`), and gets mean and
# variance from those. Lesson 04 shows why, and lesson 06 what it is good for.

# %%
moments = F.local_moments(x)
print("count", moments.count, " sum", moments.total, " sum of squares", moments.total_sq)
print("mean ", moments.mean, " variance", moments.var(), " 14/3 =", 14 / 3)

# %% [markdown]
# ## Normalise
#
# $$\hat x_{ic} = \frac{x_{ic} - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}} \qquad\qquad y_{ic} = \gamma_c\, \hat x_{ic} + \beta_c$$
#
# The second column is constant. **What do you expect there?** Without $\varepsilon$ it would be 0/0.

# %%
x_hat, inv_std = F.standardize(x, moments.mean, moments.var(), eps=1e-5)
print(x_hat)
print("1 / sqrt(var + eps):", inv_std)

# %% [markdown]
# Zero in the constant column: nothing to tell apart, so nothing is said. But look at the second number of the last line: $1/\sqrt{10^{-5}}$, about 316.
# A *nearly* constant column is blown up by it. Three pixels of the digits in lesson 00 are always black; a bright speck on one of them in the test would
# be the loudest thing the net has ever seen.
#
# $\gamma$ (`weight`) and $\beta$ (`bias`) are learned. With them the layer can undo the normalisation, if that is what helps.

# %%
weight, bias = np.array([2.0, 1.0]), np.array([0.5, -3.0])
y = F.scale_and_shift(x_hat, weight, bias)
print(y)

# %% [markdown]
# The layer `nn.BatchNorm` is these steps and a memory. The same numbers come out:

# %%
layer = nn.BatchNorm(2, dtype=np.float64)
layer.weight.data, layer.bias.data = weight, bias
print("largest difference:", np.abs(layer(x) - y).max())
assert np.allclose(layer(x), y, rtol=0, atol=1e-12)

# %% [markdown]
# ## What epsilon does to a narrow column
#
# The output's standard deviation should be 1. With $\varepsilon$ it is $\sqrt{\sigma^2 / (\sigma^2 + \varepsilon)}$. **Before you look:** how narrow must a column be
# before $\varepsilon = 10^{-5}$ takes half of it?


# %%
def spread_of_output(sigma, eps):
    """Measured: the standard deviation of x_hat for one column of that standard deviation."""
    column = np.random.default_rng(0).normal(size=(1000, 1))
    column = sigma * (column - column.mean()) / column.std()
    moments = F.local_moments(column)
    return F.standardize(column, moments.mean, moments.var(), eps)[0].std()


def draw_epsilon(*exponents):
    sigmas = np.logspace(-5, 0, 26)
    fine = np.logspace(-5, 0, 400)
    for number, exponent in enumerate(exponents):
        colour, eps = f"C{number}", 10.0**exponent
        plt.plot(fine, fine / np.sqrt(fine**2 + eps), color=colour, label=f"eps = 1e{exponent:g}")
        plt.plot(sigmas, [spread_of_output(s, eps) for s in sigmas], "o", markersize=4, color=colour)
        half = np.sqrt(eps / 3)
        plt.plot(half, 0.5, "k|", markersize=16)
    plt.xscale("log")
    plt.xlabel("standard deviation of the input column")
    plt.ylabel("sd of x_hat")
    plt.title(
        "Columns narrower than sqrt(eps) stay small\nlines: sigma / sqrt(sigma^2 + eps); dots: measured; bars: half"
    )
    plt.legend()
    plt.show()


draw_epsilon(-8, -5, -2)

# %% [markdown]
# Half is lost where $\sigma^2 = \varepsilon/3$, so at a standard deviation of 0.0018 for the usual $10^{-5}$.

# %% [markdown] tags=["remove-cell"]
# Move it yourself:

# %% tags=["remove-cell"]
interact(
    lambda exponent: draw_epsilon(exponent),
    exponent=widgets.FloatSlider(value=-5, min=-9, max=-1, step=1, description="log10 eps", continuous_update=False),
)
# %% [markdown]
# ## Two variances
#
# Divide by $n$, or by $n-1$? Both, for different jobs. To *normalise* this batch, its own spread is wanted: divide by $n$ (biased). What is *stored* for later
# must estimate the spread of all data, and a small batch looks narrower than the world it comes from: divide by $n-1$ (unbiased).
#
# **What do you expect** for batches of two rows from a distribution of variance 1?

# %%
rng = np.random.default_rng(0)
for rows in (2, 4, 32):
    batches = rng.normal(size=(20_000, rows))
    print(
        f"{rows:3} rows: mean biased variance {batches.var(axis=1).mean():.3f}, unbiased {batches.var(axis=1, ddof=1).mean():.3f}"
    )

# %% [markdown]
# Two rows see half of the variance. That a batch is too *small* can be repaired by a factor, $n/(n-1)$. That its rows are *alike* cannot: lesson 07.
#
# ## Training and evaluation
#
# In training each forward pass moves the running statistics a little: new = 0.9 old + 0.1 batch. `momentum=0.1` is the weight of the **new** value (Keras and
# Flax call 0.9 what we call 0.1). In evaluation the stored ones are used, and the batch no longer matters.

# %%
layer = nn.BatchNorm(2, dtype=np.float64)
layer(x)
print("running mean", layer.running_mean, " = 0.9 * 0 + 0.1 * mean")
print("running var ", layer.running_var, " = 0.9 * 1 + 0.1 * unbiased variance, the first:", 0.9 + 0.1 * 7)
layer.eval()
print("one row alone:     ", layer(x[:1])[0])
print("in the whole batch:", layer(x)[0])

# %% [markdown]
# How long until the running statistics can be trusted? After $t$ steps the initial values still weigh $(1-a)^t$.


# %%
def draw_momentum(*momenta):
    steps = np.arange(200)
    for number, momentum in enumerate(momenta):
        colour = f"C{number}"
        layer, rng, seen = nn.BatchNorm(1, momentum=momentum, dtype=np.float64), np.random.default_rng(0), []
        for _ in steps:
            seen.append(layer.running_mean[0])
            layer(rng.normal(5, 1, size=(4, 1)))
        plt.plot(steps, seen, ".", color=colour, markersize=4)
        plt.plot(steps, 5 * (1 - (1 - momentum) ** steps), color=colour, label=f"momentum {momentum:g}")
    plt.axhline(5, color="black", linewidth=1, linestyle=":")
    plt.xlabel("training steps")
    plt.ylabel("running mean")
    plt.title(
        "A small momentum is steadier, and slower to forget the initial 0\nlines: 5 (1 - (1 - a)^t); dots: batches of 4 rows with mean 5"
    )
    plt.legend()
    plt.show()


draw_momentum(0.5, 0.1, 0.01)

# %% tags=["remove-cell"]
interact(
    lambda momentum: draw_momentum(momentum),
    momentum=widgets.FloatSlider(value=0.1, min=0.01, max=0.9, step=0.01, continuous_update=False),
)

# %% [markdown]
# ## Summary
#
# - Down the columns: each channel has a mean and a variance over the batch (for images, over rows and columns of pixels too).
# - The biased variance normalises, the unbiased one is stored.
# - $\varepsilon$ stands beside the variance, under the root; a constant column gives $y = \beta$.
# - Evaluation uses what is stored, and every row is on its own.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **2.1** $\hat x$ for `x` of shape (N, C). Use NumPy alone.


# %%
def standardize(x, eps):
    return None  # your code here


check("2.1", standardize)

# %% [markdown]
# **2.2** Images: `x` has shape (N, C, H, W); `weight` and `bias` have shape (C,).


# %%
def batch_norm_images(x, weight, bias, eps):
    return None  # your code here


check("2.2", batch_norm_images)

# %% [markdown]
# **2.3** The running variance after one more batch `x` (N, C), with PyTorch's meaning of `momentum`.


# %%
def update_running_var(running, x, momentum):
    return None  # your code here


check("2.3", update_running_var)

# %% [markdown]
# **2.4** $\hat x$ in evaluation, from the stored `mean` and `var`.


# %%
def evaluate(x, mean, var, eps):
    return None  # your code here


check("2.4", evaluate)
