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
# # 01 Why normalise
#
# **You will** watch numbers grow or vanish on their way through a deep net, and predict how fast; see which learning rates train with and without normalisation; check on paper that
# the size of the weights before a batch normalisation (BN) does not matter; and know what BN does *not* bring.
#
# **Before:** what a fully connected layer, a ReLU and a gradient step are. How BN computes its numbers comes in lessons 02 and 03; here it is enough that it subtracts each unit's mean over the batch and divides
# by its standard deviation. **Time:** 25 minutes.

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

from syncbn_sim import data, nn, optim, train
from syncbn_sim.comm import launch
from syncbn_sim.experiments.norms import COLOURS
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE
from syncbn_sim.stats.estimates import mean_interval

# %matplotlib inline
plt.rcParams.update(STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## One layer multiplies; twenty layers multiply twenty times
#
# A layer sums $n$ products, $z = \sum_k w_k h_k$. Draw the weights independently with mean 0 and standard deviation $s$. Means and cross terms drop out, and on average over the weights
#
# $$\operatorname{E}[z^2] = s^2 \sum_k h_k^2 = n\, s^2\, \overline{h^2}.$$
#
# The next layer sees $h = \max(z, 0)$, which keeps half of $\overline{z^2}$, because $z$ is as often negative as positive. So from layer to layer $\overline{z^2}$ is multiplied by $n s^2/2$. Write
# $s = g\sqrt{2/n}$, and the size of the numbers is multiplied by the *gain* $g$ at every layer:
#
# $$\mathrm{rms}(z_d) = g^{\,d} \cdot \sqrt2\; \mathrm{rms}(x).$$
#
# On paper: after 20 layers a gain of 1.4 has become $1.4^{20} \approx 840$, a gain of 0.7 about $1/1250$. The gradient goes the same way back and is multiplied by $g$ at every layer too.
# (The usual default, uniform in $\pm 1/\sqrt n$, has $s^2 = 1/(3n)$, so $g = 1/\sqrt6 \approx 0.41$.)
#
# Here is such a net, on the handwritten digits of lesson 00. `norm` stands between each linear layer and its ReLU. (`launch` runs a function on
# ranks and hands each its communicator. Here there is one rank, and so nobody to talk to.)

# %%
NORMS = {"none": lambda width: None, "local": nn.BatchNorm, "layer": nn.LayerNorm}
NAMES = {"none": "no norm", "local": "BN", "layer": "LayerNorm"}
DEFAULT_GAIN = 6**-0.5
digits = data.split_digits(*data.load_digits(), seed=0)


def deep_net(norm, gain, depth, width, seed):
    rng, layers, inputs = np.random.default_rng(seed), [], 64
    for _ in range(depth):
        linear = nn.Linear(inputs, width, bias=False)
        linear.weight.data = rng.normal(0, gain * np.sqrt(2 / inputs), (width, inputs)).astype(np.float32)
        layers += [layer for layer in (linear, NORMS[norm](width), nn.ReLU()) if layer]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, 10, rng=rng))


def rms(values):
    return np.sqrt(np.mean(np.square(values, dtype=np.float64)))


def sizes_by_depth(norm, gain, seed=0, depth=20, scale=1.0):
    """The size of what enters each ReLU, and of the gradient there, when a random one of size 1 enters the last."""

    def measure(_comm):
        net, h, forward, backward = deep_net(norm, gain, depth, 128, seed), scale * digits.train.x[:128], [], []
        for layer in net.layers[:-1]:
            if isinstance(layer, nn.ReLU):
                forward.append(rms(h))
            h = layer(h)
        gradient = np.random.default_rng([seed, 1]).normal(size=h.shape).astype(h.dtype)
        for layer in reversed(net.layers[:-1]):
            gradient = layer.backward(gradient)
            if isinstance(layer, nn.ReLU):
                backward.insert(0, rms(gradient))
        return np.array(forward), np.array(backward) / backward[-1]

    return launch(measure)[0]


# %% [markdown]
# **What do you expect** with BN: does the size still grow with depth? And the gradient?


# %%
def draw_depth(*gains, depth=20):
    layers = np.arange(1, depth + 1)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4))
    for number, gain in enumerate(gains):
        colour = f"C{number}"
        axes[0].plot(layers, gain**layers * np.sqrt(2) * rms(digits.train.x[:128]), color=colour)
        axes[1].plot(layers, gain ** (depth - layers), color=colour)
        for seed in range(3):
            for ax, sizes in zip(axes, sizes_by_depth("none", gain, seed, depth), strict=True):
                label = f"no norm, g = {gain:.2g}" if seed == 0 else None
                ax.plot(layers, sizes, "o", color=colour, markersize=4, alpha=0.7, label=label)
    normalised = sizes_by_depth("local", gains[-1], 0, depth)
    for ax, sizes in zip(axes, normalised, strict=True):
        ax.plot(layers, sizes, "k^", markersize=6, label=f"BN, g = {gains[-1]:.2g}")
    axes[1].plot(layers, np.sqrt(np.pi / (np.pi - 1)) ** (depth - layers), color="black", linewidth=1, linestyle="--")
    for ax, name in zip(axes, ("values entering the ReLU", "gradient there, relative to the last layer"), strict=True):
        ax.set_yscale("log")
        ax.set_xticks(range(0, depth + 1, 4))
        ax.set_xlabel("layer")
        ax.set_ylabel("root mean square")
        ax.set_title(name)
    axes[0].legend(fontsize=10)
    figure.suptitle(
        "Without normalisation the size is gain^depth; BN sets it to 1 at every layer\n"
        "dots: measured, 3 seeds; lines: the theory above; dashed: sqrt(pi / (pi - 1)) = 1.21 per layer",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    plt.show()


draw_depth(0.7, 1.0, 1.4)
for gain in (0.7, 1.4):
    forward, backward = sizes_by_depth("none", gain)
    print(f"g = {gain}: layer 20 / layer 1 = {forward[-1] / forward[0]:8.3g}, theory {gain**19:.3g}")
    assert 0.3 < forward[-1] / forward[0] / gain**19 < 3
normalised = {gain: sizes_by_depth("local", gain) for gain in (0.7, 1.4)}
apart = np.abs(normalised[0.7][0] - normalised[1.4][0]).max()
print(f"BN: gains 0.7 and 1.4 give the same sizes, to {apart:.0e}")
assert all(np.allclose(forward, 1, atol=0.02) for forward, _ in normalised.values())

# %% [markdown]
# (The deepest dots lie below their line, here by a factor of about two. The line is a mean over many draws of the weights, and such a mean is carried by the few largest; the narrower and deeper the net, the more so.)
#
# Left, BN does what it promises: the triangles stay at 1, whatever the gain. The right side is less often told. With BN the gradient does not stay flat: it *grows* on its way down. Forward, $z$ gets its
# variance from that of the ReLU's output, which for a bell-shaped $\hat z$ of variance 1 is $\tfrac12 - \tfrac1{2\pi}$; BN brings it back to 1 and divides by the root of this. Backward, the gradient is divided by the same root, but the ReLU takes
# away only half of its square. So it is multiplied by about
#
# $$\sqrt{\frac{1/2}{1/2 - 1/(2\pi)}} = \sqrt{\frac{\pi}{\pi-1}} \approx 1.21$$
#
# per layer: by 38 from layer 20 to layer 1. A gain of 1 without BN does better in that respect.

# %%
growth = normalised[1.4][1][0] ** (1 / 19)
predicted = np.sqrt(np.pi / (np.pi - 1))
print(f"BN: gradient of layer 1 / layer 20 = {normalised[1.4][1][0]:.3g}, predicted {predicted**19:.3g}")
print(f"a layer: {growth:.3f}, predicted {predicted:.3f}")
assert 1.1 < growth < 1.35

# %% [markdown]
# Inputs of another unit do the same as weights of another size. Raw pixels run from 0 to 16, not from 0 to 1:

# %%
for norm in NORMS:
    first, raw = (sizes_by_depth(norm, 1.0, scale=scale)[0][-1] for scale in (1, 16))
    print(f"{NAMES[norm]:9}: rms in layer 20 with pixels 0..1: {first:7.3f}, 0..16: {raw:7.3f}")

# %% [markdown]
# Move the gain:

# %% tags=["remove-cell"]
interact(
    lambda gain: draw_depth(gain),
    gain=widgets.FloatSlider(value=0.41, min=0.3, max=2, step=0.01, description="gain", continuous_update=False),
)
# %% [markdown]
# The same for the usual default, and a gain of 2:

# %%
draw_depth(DEFAULT_GAIN, 2.0)

# %% [markdown]
# ## Which learning rates train?
#
# Four hidden layers of 32, plain stochastic gradient descent, 40 steps of 64 images: a sprint. Three normalisations, two starts ($g = 1$, and the default $g = 0.41$), six learning rates, four seeds. **Before you look:** with how many of the six learning rates will the net without normalisation reach 50 %?


# %%
def train_net(comm, norm, gain, lr, seed, steps=40):
    """Test accuracy in percent after so many steps; a net that has exploded guesses: 10 %."""
    net, loss = deep_net(norm, gain, 4, 32, seed), nn.CrossEntropyLoss()
    optimizer, rng = optim.SGD(net.parameters(), lr), np.random.default_rng([seed, 2])
    batches = rng.integers(0, len(digits.train.y), (steps, 64))
    # A learning rate that is too large overflows; that is a result here.
    with np.errstate(all="ignore"):
        for _, mean_loss in train.fit(net, loss, optimizer, comm, digits.train.x, digits.train.y, batches):
            if not mean_loss < 1e6:
                return 10.0
        return 100 * train.accuracy(train.predict(net, digits.test.x), digits.test.y, comm)


RATES, SEEDS = (0.03, 0.1, 0.3, 1, 3, 10), range(4)


def sweep(comm):
    return {
        (norm, gain): [mean_interval([train_net(comm, norm, gain, lr, seed) for seed in SEEDS]) for lr in RATES]
        for norm in NORMS
        for gain in (1.0, DEFAULT_GAIN)
    }


found = launch(sweep)[0]

# %%
half = {key: sum(i.mean >= 50 for i in intervals) for key, intervals in found.items()}
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
for ax, gain in zip(axes, (1.0, DEFAULT_GAIN), strict=True):
    for norm, marker in zip(NORMS, "sov", strict=True):
        intervals, colour = found[norm, gain], COLOURS[norm]
        ax.plot(RATES, [i.mean for i in intervals], marker=marker, color=colour, label=NAMES[norm])
        low, high = np.clip([(i.low, i.high) for i in intervals], 0, 100).T
        ax.fill_between(RATES, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.axhline(10, color="black", linewidth=1, linestyle=":")
    ax.set_xscale("log")
    ax.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    ax.minorticks_off()
    ax.set_ylim(0, 125)
    ax.set_yticks(range(0, 101, 20))
    ax.set_xlabel("learning rate")
    ax.set_title(f"gain {gain:.2g}: " + ", ".join(f"{NAMES[norm]} {half[norm, gain]}" for norm in NORMS))
axes[0].set_ylabel("test accuracy (%)")
axes[0].legend(loc="upper left", ncols=3, fontsize=10)
figure.suptitle(
    "BN trains over the widest range: how many of 6 learning rates reach 50 % in 40 steps\n"
    "bands: 95 % intervals over 4 seeds; dotted: a guess",
    x=0.01,
    ha="left",
    fontsize=12,
)
plt.show()
assert all(half["local", gain] > half["layer", gain] >= half["none", gain] for gain in (1.0, DEFAULT_GAIN))
assert max(i.mean for i in found["none", DEFAULT_GAIN]) < 40 < 75 < max(i.mean for i in found["local", DEFAULT_GAIN])

# %% [markdown]
# Two things come with BN in this net: it works with a start at which the bare net hardly learns, and the learning rate may be wrong by more than a power of ten. LayerNorm lies between.
#
# ## What BN does not bring
#
# That was a sprint with arbitrary starts. Take the good start ($g = 1$), one sensible learning rate for both (0.1), and give both time: 300 steps.


# %%
def long_run(comm):
    return {norm: [train_net(comm, norm, 1.0, 0.1, seed, 300) for seed in SEEDS] for norm in ("none", "local")}


long = launch(long_run)[0]
for norm, values in long.items():
    interval = mean_interval(values)
    print(f"{NAMES[norm]:7}: {interval.mean:.1f} % [{interval.low:.1f}, {interval.high:.1f}] after 300 steps")
gap = mean_interval(np.subtract(long["local"], long["none"]))
print(f"BN minus no norm: {gap.mean:+.1f} points [{gap.low:+.1f}, {gap.high:+.1f}], paired by seed")
assert min(long["none"]) > 80

# %% [markdown]
# At a well-chosen start and learning rate the small net learns without any normalisation, if later; the last line says how far behind it still is. What BN brings here is speed and ease, not an ability.
#
# *Why* it does so is not settled. The paper that introduced it (Ioffe & Szegedy, 2015) said: because it reduces "internal covariate shift", the drift of each layer's inputs while the layers below learn. Santurkar et al.
# (2018) dispute that: they report nets with BN in which that shift is put back by added noise, and which train well all the same; they explain the effect by a smoother loss. Neither is shown here.
#
# ## The size of the weights does not matter
#
# One thing can be shown exactly. Four rows, two inputs, one unit: take a pencil.

# %%
x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
w = np.array([[1.0, 1.0]])


def unit(weights, dy):
    """BN of x W^T: the output, and the gradient of sum(dy y) with respect to the weights."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False, dtype=np.float64), nn.BatchNorm(1, eps=0, dtype=np.float64))
    net[0].weight.data = weights
    y = net(x)
    net.backward(dy)
    return y.ravel(), net[0].weight.grad.ravel()


# %% [markdown]
# $z = xw = (1, 1, -1, -1)$ has mean 0 and variance 1, so with $\varepsilon = 0$ the output is $z$ itself. With $10\,w$, $z$ is ten times as large, so is its standard deviation, and the output is the same.
#
# Now the gradient. Let $L(w)$ be any loss of the output. It does not change with the length of $w$: $L(\alpha w) = L(w)$ for every $\alpha > 0$. Differentiate both sides
#
# - by $w$: $\alpha\, \nabla L(\alpha w) = \nabla L(w)$, so the gradient is *divided* by $\alpha$;
# - by $\alpha$, at $\alpha = 1$: $w \cdot \nabla L(w) = 0$, so the gradient is at right angles to the weights.
#
# With $L = y_1$ (the first row's output) lesson 03 gives $\partial L/\partial z = (\tfrac12, -\tfrac12, 0, 0)$, so $\nabla L = (\tfrac12, -\tfrac12)$: at right angles to $(1, 1)$ indeed.

# %%
dy = np.array([[1.0], [0.0], [0.0], [0.0]])
for factor in (1, 10, 0.1):
    y, gradient = unit(factor * w, dy)
    print(f"weights {factor * w[0]}: y {y}, gradient {gradient}, w . gradient {factor * w[0] @ gradient:.1g}")
    assert np.allclose(y, [1, 1, -1, -1])
    assert np.allclose(gradient, np.array([0.5, -0.5]) / factor)

# %% [markdown]
# So ten times larger weights take steps ten times *smaller*, and are ten times as long: relative to their length they turn a hundred times more slowly. A learning rate a hundred times larger makes up for it exactly.
# Try it, five steps downhill on $y_1$:

# %%


def after_five_steps(weights, lr):
    for _ in range(5):
        weights = weights - lr * unit(weights, dy)[1]
    return weights


for start, lr in ((w, 0.5), (10 * w, 0.5), (10 * w, 50)):
    end = after_five_steps(start, lr)
    print(
        f"from {start[0]} with learning rate {lr:4}: y {unit(end, dy)[0]}, |w| from {np.linalg.norm(start):.3f} to {np.linalg.norm(end):.3f}"
    )
assert np.allclose(unit(after_five_steps(w, 0.5), dy)[0], unit(after_five_steps(10 * w, 50), dy)[0])

# %% [markdown]
# The first and the last line agree, in a net of weights ten times as large. This is one reason for the wide range above: too large a step makes the weights longer (the step is at right angles, so by Pythagoras $|w|$ can only grow), and longer weights take smaller relative steps.
#
# **What do you expect** of the gradient without normalisation, when the weights of one middle layer of the deep net are multiplied by $\alpha$?


# %%
def gradient_size(norm, factor):
    net, loss = deep_net(norm, 1.0, 4, 32, seed=0), nn.CrossEntropyLoss()
    linear = [layer for layer in net.layers if isinstance(layer, nn.Linear)][2]
    linear.weight.data = linear.weight.data * np.float32(factor)
    loss(net(digits.train.x[:64]), digits.train.y[:64])
    net.backward(loss.backward())
    return np.linalg.norm(linear.weight.grad)


factors = 2.0 ** np.arange(-3, 4)
sizes = {norm: np.array([gradient_size(norm, factor) for factor in factors]) for norm in NORMS}
for norm, marker in zip(NORMS, "sov", strict=True):
    plt.plot(factors, sizes[norm] / sizes[norm][3], marker, color=COLOURS[norm], markersize=9, label=NAMES[norm])
plt.plot(factors, 1 / factors, "k-", linewidth=1, label="theory: 1 / factor")
slopes = {norm: np.polyfit(np.log(factors), np.log(sizes[norm]), 1)[0] for norm in NORMS}
plt.xscale("log", base=2)
plt.yscale("log", base=2)
plt.xlabel("factor on the weights of the third layer")
plt.ylabel("size of their gradient, relative")
plt.title(
    f"Larger weights, smaller gradient: slope {slopes['local']:.2f} with BN, {slopes['layer']:.2f} with LayerNorm\n"
    f"and {slopes['none']:+.2f} with no normalisation at all"
)
plt.legend()
plt.show()
assert abs(slopes["local"] + 1) < 0.02
assert abs(slopes["layer"] + 1) < 0.02
assert slopes["none"] > 0

# %% [markdown]
# Without normalisation the gradient never shrinks here: smaller weights leave it as it was, and larger ones blow up all that comes after them, the error included, and the gradient grows. Nothing holds them back.
#
# ## A bias before BN is useless
#
# $z + b$ has the mean $\mu + b$, and BN subtracts it: $b$ is gone before it did anything. Its gradient is zero. In floating point it is *nearly* zero, and that is worse than it sounds: Adam divides each
# gradient by its own usual size, so it makes full steps out of rounding noise.

# %%
net = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 10))
loss, optimizer, start = nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=1e-2), net[0].bias.data.copy()
rng = np.random.default_rng(0)
for step in range(100):
    rows = rng.integers(0, len(digits.train.y), 64)
    loss(net(digits.train.x[rows]), digits.train.y[rows])
    net.backward(loss.backward())
    if step == 0:
        print(
            f"largest gradient: bias {np.abs(net[0].bias.grad).max():.1g}, weight {np.abs(net[0].weight.grad).max():.1g}"
        )
        assert np.abs(net[0].bias.grad).max() < 1e-4 * np.abs(net[0].weight.grad).max()
    optimizer.step()
moved = np.abs(net[0].bias.data - start)
print(f"after 100 steps of Adam the biases have moved by {moved.mean():.2f} on average, for nothing")
assert moved.mean() > 0.02

# %% [markdown]
# So the linear layers above had `bias=False`. BN's own bias, added after the normalisation, does the job.
#
# ## The price: rows depend on each other
#
# BN takes its mean over the batch. **Before you look:** row 0 stays the same and the *last* row of the batch is replaced. Which of these change row 0's output?

# %%
batch, other = digits.train.x[:4].astype(np.float64), digits.train.x[:4].astype(np.float64)
other[-1] = digits.train.x[9]
norm, layer = nn.BatchNorm(64, dtype=np.float64), nn.LayerNorm(64, dtype=np.float64)
change = {"BN in training": np.abs(norm(batch)[0] - norm(other)[0]).max()}
change["LayerNorm"] = np.abs(layer(batch)[0] - layer(other)[0]).max()
norm.eval()
change["BN in evaluation"] = np.abs(norm(batch)[0] - norm(other)[0]).max()
for name, size in change.items():
    print(f"{name:17}: largest change of row 0's output: {size:.3g}")
assert change["BN in training"] > 0.1
assert change["LayerNorm"] == change["BN in evaluation"] == 0

# %% [markdown]
# LayerNorm takes mean and variance along each row: rows do not see each other, and training and evaluation are the same. BN needs two modes, and its training depends on *who is in the batch*. That is where
# the trouble of lesson 00 comes from, and what the rest of these lessons is about.
#
# ## Summary
#
# - Without normalisation the size of values and gradients is multiplied by the gain at every layer. BN sets the values to size 1; its gradients still grow, by about 1.21 per layer.
# - Weights before BN have a direction but no size: $\alpha w$ gives the same output and a gradient $1/\alpha$ as large. A bias before BN does nothing.
# - In a net of four hidden layers BN trained over the widest range of learning rates; with a good start, a good rate and time, the net without it learned too. Why BN helps is disputed.
# - The price: in training a row's output depends on its batch.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **1.1** A net of `depth` linear layers, each with `width` inputs, weights of mean 0 and standard deviation `sd`, no bias, a ReLU *between* layers. The inputs have root mean square `input_rms`. Predict the
# root mean square of what the last linear layer puts out.


# %%
def predicted_rms(input_rms, width, sd, depth):
    return None  # your code here


check("1.1", predicted_rms)

# %% [markdown]
# **1.2** The weights `w` of a layer before BN have the gradient `gradient`. Now the layer has `factor * w` instead ($\varepsilon$ is negligible). Return two things: the new gradient; and how far one step of plain
# gradient descent with learning rate `lr` moves the new weights, as a fraction of their length.


# %%
def with_scaled_weights(w, gradient, factor, lr):
    return None  # your code here


check("1.2", with_scaled_weights)

# %% [markdown]
# **1.3** A trained net has a linear layer with a useless `bias` (C,) before its BN, whose stored statistics are `running_mean` and `running_var` (C,). The bias is to be taken out, and no prediction may change.
# Return the new running mean and the new running variance.


# %%
def statistics_without_bias(bias, running_mean, running_var):
    return None  # your code here


check("1.3", statistics_without_bias)

# %% [markdown]
# **1.4** `x` has shape (N, C, H, W). Return the means that BN subtracts, one per channel, and the means that a LayerNorm over (C, H, W) subtracts, one per row.


# %%
def two_means(x):
    return None  # your code here


check("1.4", two_means)
