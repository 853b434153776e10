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
# # 04 Moments and merging
#
# **You will** merge the statistics of uneven and empty batches, exactly; see which part of a variance is lost when variances are averaged;
# watch one formula for the variance destroy itself, and five others survive; and know what the engine sends instead of means, and how exact that is.
#
# **Before:** mean and variance of a batch (lesson 02). A *rank* here is just somebody who holds some of the rows; how ranks talk is lesson 05. **Time:** 30 minutes.

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
from syncbn_sim.comm import launch
from syncbn_sim.experiments.norms import COLOURS
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE
from syncbn_sim.stats import Moments, variance
from syncbn_sim.stats.estimates import mean_interval

# %matplotlib inline
plt.rcParams.update(STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## Three numbers that add
#
# Take the batch $[1, 2, 6]$ of lesson 02 and give $[1, 2]$ to one rank and $[6]$ to another. Each rank writes down three numbers about its rows:
#
# | | count $n$ | sum $\sum x$ | sum of squares $\sum x^2$ |
# |---|---|---|---|
# | rank A: 1, 2 | 2 | 3 | 5 |
# | rank B: 6 | 1 | 6 | 36 |
# | together | 3 | 9 | 41 |
#
# Mean and variance of all follow from the last line alone: $\mu = 9/3 = 3$ and $\sigma^2 = 41/3 - 3^2 = 14/3$.
#
# **What do you expect** if the two means, 1.5 and 6, are averaged instead?

# %%
a, b = Moments.of(np.array([[1.0], [2.0]])), Moments.of(np.array([[6.0]]))
both = a + b
print("together:      count", both.count, " sum", both.total, " sum of squares", both.total_sq)
print("from the sums: mean", both.mean, " variance", both.var(), " 14/3 =", 14 / 3)
print("mean of means:", (a.mean + b.mean) / 2)
assert both.mean == 3
assert np.isclose(both.var(), 14 / 3)

# %% [markdown]
# 3.75 is not the mean of 1, 2 and 6: one row spoke as loudly as two. Means can be mended with weights $n_r/n$, since $n_r \mu_r$ is the sum again.
#
# Sums need no mending. Cut a batch of 40 rows in six places, anywhere; some parts will be empty:

# %%
rng = np.random.default_rng(0)
x = rng.normal(3, 2, size=(40, 2))
parts = np.split(x, [0, 3, 3, 17, 39, 40])
total = Moments.of(parts[0])
for part in parts[1:]:
    total = total + Moments.of(part)
print("rows of each part:", [len(part) for part in parts])
print("largest error of the mean    ", np.abs(total.mean - x.mean(0)).max())
print("largest error of the variance", np.abs(total.var() - x.var(0)).max())
filled = [part for part in parts if len(part)]
print("mean of means is off by      ", np.abs(np.mean([part.mean(0) for part in filled], axis=0) - x.mean(0)).max())
assert np.allclose(total.var(), x.var(0), rtol=1e-12)

# %% [markdown]
# An empty part has the moments $(0, 0, 0)$: it changes nothing and needs no special case. (Its mean would be 0/0: whoever sends means has to leave empty ranks out by hand.)
#
# The count need not count rows. With frequency weights it is their sum: a row of weight 2 is there twice, one of weight 0 not at all, whatever stands in it.

# %%
weighted = Moments.of(np.array([[1.0], [np.nan], [6.0]]), weights=[1.0, 0.0, 2.0])
print(
    "rows 1, nan, 6 with weights 1, 0, 2: count",
    weighted.count,
    " sum",
    weighted.total,
    " sum of squares",
    weighted.total_sq,
)
assert list(weighted.pack()) == [13.0, 73.0, 3.0]

# %% [markdown]
# ## What averaging variances loses
#
# Now average the variances, properly weighted: rank A has $1/4$, rank B has 0, so $\frac23 \cdot \frac14 + \frac13 \cdot 0 = \frac16$. The truth is $\frac{14}3 = \frac{28}6$. Where is the rest?
# In the distance *between* the ranks. The law of total variance says so:
#
# $$\sigma^2 = \underbrace{\sum_r \tfrac{n_r}{n}\, \sigma_r^2}_{\text{within}} + \underbrace{\sum_r \tfrac{n_r}{n}\, (\mu_r - \mu)^2}_{\text{between}}$$
#
# On paper: between is $\frac23 (1.5 - 3)^2 + \frac13 (6 - 3)^2 = 1.5 + 3 = 4.5$, and $\frac16 + 4.5 = \frac{14}3$.

# %%
counts, means, variances = np.array([2, 1]), np.array([1.5, 6.0]), np.array([0.25, 0.0])
share = counts / counts.sum()
within = (share * variances).sum()
between = (share * (means - (share * means).sum()) ** 2).sum()
print(f"within {within:.4f} + between {between:.4f} = {within + between:.4f}")
assert np.isclose(within + between, both.var()[0])

# %% [markdown]
# If every rank's rows are a fair sample, the means are close and little is lost. If ranks hold different classes or users, their means are far apart. Two ranks, each with
# variance 1, one with three quarters of the rows, their means $d$ apart: between is $\frac34 \cdot \frac14 \, d^2$. **Before you look:** at which $d$ does averaging lose half of the variance?


# %%
def two_ranks(distance, share):
    """Rows of two ranks, each with mean 0 and variance 1 before the second is moved."""
    sizes = round(2000 * share), 2000 - round(2000 * share)
    rows = [np.random.default_rng(seed).normal(size=(n, 1)) for seed, n in enumerate(sizes)]
    rows = [(r - r.mean()) / r.std() for r in rows]
    return rows[0], rows[1] + distance


def averaged_and_union(distance, share):
    local = [Moments.of(rows) for rows in two_ranks(distance, share)]
    averaged = sum(m.count * m.var()[0] for m in local) / 2000
    return averaged, (local[0] + local[1]).var()[0]


def draw_union(*distances, share=0.75):
    figure, axes = plt.subplots(1, len(distances) + 1, figsize=(3.2 * len(distances) + 4, 3.4))
    for ax, distance in zip(axes, distances, strict=False):
        averaged, union = averaged_and_union(distance, share)
        rows = [r[:, 0] for r in two_ranks(distance, share)]
        ax.hist(rows, bins=40, stacked=True, color=["C6", "C5"], label=["rank A", "rank B"])
        centre = (1 - share) * distance
        for height, var, name in ((230, union, "sync"), (200, averaged, "averaged")):
            ax.errorbar(centre, height, xerr=var**0.5, color=COLOURS[name], capsize=5, fmt="o", linewidth=2.5)
        ax.set(xlabel="x", ylim=(0, 260), title=f"d = {distance:g}: union {union:.2f},\naveraged {averaged:.2f}")
    fine = np.linspace(0, 6, 50)
    axes[-1].plot(fine, 1 + share * (1 - share) * fine**2, color=COLOURS["sync"], label="union")
    axes[-1].axhline(1, color=COLOURS["averaged"], label="averaged")
    for distance in (*distances, 0, 1, 3, 5, 6):
        averaged, union = averaged_and_union(distance, share)
        axes[-1].plot([distance], [union], "o", color=COLOURS["sync"])
        axes[-1].plot([distance], [averaged], "o", color=COLOURS["averaged"])
    axes[-1].set(xlabel="d (sd of one rank)", ylabel="variance", ylim=0, title="lines: theory\ndots: measured")
    axes[-1].legend()
    axes[0].legend(fontsize=9, loc="center left", handlelength=1)
    axes[0].set_ylabel("rows (bars: mean +- sd)")
    averaged, union = averaged_and_union(max(distances), share)
    figure.suptitle(
        f"Averaged variances miss what lies between ranks: {averaged:.3g} instead of {union:.3g} at d = {max(distances):g}"
    )
    plt.show()


draw_union(0, 2, 4)
averaged, union = averaged_and_union(4, 0.75)
assert np.isclose(averaged, 1)
assert np.isclose(union, 1 + 0.75 * 0.25 * 4**2)

# %% [markdown]
# Half is lost where $\frac3{16} d^2 = 1$, at $d \approx 2.3$; nothing is lost at $d = 0$.
#
# With shuffled rows, are the means equal? Not quite: means of $n$ rows differ by chance, and their variance is $\sigma^2/n$. So averaging then loses about $1/n$: little with 32 rows per rank,
# half with 2. The share that is left, for 8 ranks of independent rows, should be $(1 - \frac1n) / (1 - \frac1{8n})$:

# %%
for n in (2, 8, 32):
    kept = []
    for seed in range(400):
        ranks = np.random.default_rng(seed).normal(size=(8, n))
        kept.append(ranks.var(axis=1).mean() / ranks.var())
    found, theory = mean_interval(kept), (1 - 1 / n) / (1 - 1 / (8 * n))
    print(
        f"{n:2} rows per rank: averaged / union = {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], theory {theory:.3f}"
    )
    assert abs(found.mean - theory) < 0.02

# %% [markdown] tags=["remove-cell"]
# Move the ranks apart yourself, and give one of them nearly all rows:

# %% tags=["remove-cell"]
interact(
    lambda distance, share: draw_union(distance, share=share),
    distance=widgets.FloatSlider(value=3, min=0, max=6, step=0.5, continuous_update=False),
    share=widgets.FloatSlider(
        value=0.5, min=0.05, max=0.95, step=0.05, description="share of A", continuous_update=False
    ),
)

# %% [markdown]
# ## The formula that destroys itself
#
# $\frac1n \sum x^2 - \mu^2$ is right on paper. On a computer it subtracts two large numbers to get a small one. Three numbers suffice: 9999, 10000 and 10001, variance $\frac23$.
# A float32 has 24 bits; near $10^8$ neighbouring float32 numbers are 8 apart:
#
# | $x$ | $x^2$ | in float32 |
# |---|---|---|
# | 9999 | 99,980,001 | 99,980,000 |
# | 10000 | 100,000,000 | 100,000,000 |
# | 10001 | 100,020,001 | 100,020,000 |
#
# The two ones are gone, and they were all the information there was. **Predict** the variance that comes out.

# %%
three = np.array([9999, 10000, 10001], np.float32)
print("squares:", [f"{float(square):,.0f}" for square in three * three])
for name, algorithm in variance.ALGORITHMS.items():
    print(f"{name:18} {algorithm(three):.4f}")
assert variance.one_pass(three) == 0
assert abs(variance.two_pass(three) - 2 / 3) < 1e-6

# %% [markdown]
# The others all subtract *before* they square. What decides is how far the numbers are from 0 compared with their spread, $k = \sqrt{1 + \mu^2/\sigma^2} \approx |\mu|/\sigma$.
# That is not exotic. A time stamp, in seconds since 1970, over one day:

# %%
day = 1.75e9 + np.linspace(0, 86_400, 1000)
print(f"mean / sd = {day.mean() / day.std():,.0f}")

# %% [markdown]
# With $n$ numbers and unit round-off $u$ ($2^{-24} = 6 \cdot 10^{-8}$ for float32), the relative error is bounded by about (Chan, Golub & LeVeque 1983)
#
# | one pass | Welford | two passes | Chan's tree |
# |---|---|---|---|
# | $n u k^2$ | $n u k$ | $n u + n^2 u^2 k^2$ | $\log_2 n \cdot u k$ |
#
# These are worst cases; real roundings partly cancel. But the *slope* should show. **What do you expect** for one pass at $\mu/\sigma = 1000$?

# %%
ROWS, SEEDS, RATIOS = 512, 6, np.logspace(0, 4, 13)


def sample(ratio, seed, rows=ROWS):
    return ratio + np.random.default_rng(seed).normal(size=rows)


errors = {  # relative error in float32, root mean square over seeds
    name: np.array(
        [
            np.mean(
                [variance.relative_error(algorithm, sample(k, seed).astype(np.float32)) ** 2 for seed in range(SEEDS)]
            )
            ** 0.5
            for k in RATIOS
        ]
    )
    for name, algorithm in variance.ALGORITHMS.items()
}

# %%
u, k = 2.0**-24, np.sqrt(1 + RATIOS**2)
bounds = {
    "one-pass": ROWS * u * k**2,
    "Welford": ROWS * u * k,
    "two-pass": ROWS * u + (ROWS * u * k) ** 2,
    "Chan tree": np.log2(ROWS) * u * k,
}
steep = RATIOS >= 30


def slope(name):
    return np.polyfit(np.log(RATIOS[steep]), np.log(errors[name][steep]), 1)[0]


figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
for number, (name, error) in enumerate(errors.items()):
    panel = panels[0 if name in ("one-pass", "Welford", "Chan tree") else 1]
    panel.plot(RATIOS, error, "os^vDP"[number], color=f"C{number}", markersize=6, label=name)
    if name in bounds:
        panel.plot(RATIOS, bounds[name], color=f"C{number}", linewidth=1)
ceiling = max(errors[name].max() for name in ("shifted", "two-pass", "corrected two-pass"))
titles = "grow with the mean", f"stay below {10 ** np.ceil(np.log10(ceiling)):.0e}"
for panel, title in zip(panels, titles, strict=True):
    panel.set(xscale="log", yscale="log", xlabel="mean / sd", title=title)
    panel.axhline(1, color="black", linewidth=1, linestyle=":")
    panel.legend(fontsize=10, loc="upper left")
panels[0].set_ylabel("relative error of the variance")
at_1000 = errors["one-pass"][np.argmin(np.abs(RATIOS - 1000))]
figure.suptitle(
    f"In float32 one pass is off by {100 * at_1000:.0f} % at mean/sd = 1000: its error grows with the square\n"
    f"dots: measured, {ROWS} rows, rms of {SEEDS} seeds; lines: the bounds; dotted: an error of 100 %"
)
plt.show()
for name in ("one-pass", "Welford", "Chan tree"):
    print(f"{name}: the error grows like (mean/sd)^{slope(name):.2f}")
assert abs(slope("one-pass") - 2) < 0.4
assert abs(slope("Welford") - 1) < 0.4
assert abs(slope("Chan tree") - 1) < 0.4
assert all((errors[name] < bound).all() for name, bound in bounds.items())

# %% [markdown]
# *Shifted* is one pass over $x - x_0$: cured, as long as the first number is typical. *Corrected two-pass* also removes the rounding of the mean, which is what bends the two-pass
# bound upwards on the right.
#
# ## Welford: one number at a time
#
# Two passes need all numbers twice. Welford (1962) keeps a count, a mean and $M_2 = \sum (x - \mu)^2$, and moves them with each number:
#
# $$d = x - \mu \qquad \mu \leftarrow \mu + \frac dk \qquad M_2 \leftarrow M_2 + d\,(x - \mu_{\text{new}})$$
#
# On paper for 1, 2, 6. Note that $M_2$ gets the old distance times the new one:
#
# | $k$ | $x$ | $d$ | mean | $M_2$ |
# |---|---|---|---|---|
# | 1 | 1 | 1 | 1 | 0 |
# | 2 | 2 | 1 | 1.5 | $1 \cdot 0.5 = 0.5$ |
# | 3 | 6 | 4.5 | 3 | $0.5 + 4.5 \cdot 3 = 14$ |

# %%
mean, m2 = 0.0, 0.0
for k, value in enumerate((1.0, 2.0, 6.0), start=1):
    d = value - mean
    mean += d / k
    m2 += d * (value - mean)
    print(f"k {k}  x {value:g}  d {d:g}  mean {mean:g}  M2 {m2:g}")
print("M2 / 3 =", m2 / 3, "  variance.welford:", variance.welford(np.array([1.0, 2.0, 6.0])))
assert m2 == 14

# %% [markdown]
# ## Chan: two parts at a time
#
# Two parts with $(n_a, \mu_a, M_a)$ and $(n_b, \mu_b, M_b)$ and $d = \mu_b - \mu_a$ (Chan, Golub & LeVeque 1979):
#
# $$\mu = \mu_a + d\, \frac{n_b}{n} \qquad\qquad M = M_a + M_b + d^2\, \frac{n_a n_b}{n}$$
#
# It is the law of total variance again, times $n$: the last term is the *between*. For $[1, 2]$ and $[6]$: $d = 4.5$, $\mu = 1.5 + 4.5/3 = 3$, $M = 0.5 + 0 + 20.25 \cdot \frac23 = 14$.

# %%
part_a = variance.Part(2, np.float64(1.5), np.float64(0.5))
part_b = variance.Part(1, np.float64(6.0), np.float64(0.0))
print(variance.chan_merge(part_a, part_b))
assert variance.chan_merge(part_a, part_b).m2 == 14

# %% [markdown]
# Merged parts can be merged again, so eight ranks need three levels of a tree. Each line below is one level:

# %%
eight = np.split(sample(3, seed=0, rows=64), 8)
level = [variance.Part(len(rows), rows.mean(), ((rows - rows.mean()) ** 2).sum()) for rows in eight]
while True:
    print(
        f"{len(level)} part(s) of {level[0].count:2} rows, variances:",
        np.array([part.m2 / part.count for part in level]),
    )
    if len(level) == 1:
        break
    level = [variance.chan_merge(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
assert np.isclose(level[0].m2 / 64, np.concatenate(eight).var())

# %% [markdown]
# ## What the engine does
#
# Chan's merge is accurate, but it is not a sum, and a plain all-reduce (lesson 05) can only add. So the engine takes the good of both:
#
# 1. each rank measures its rows accurately: in float64, two passes, $\mu_r$ and $M_r$;
# 2. only then it forms $n_r$, $\sum x = n_r \mu_r$ and $\sum x^2 = M_r + n_r \mu_r^2$, and those are added: $2C + 1$ numbers for $C$ channels (`Moments.pack`).
#
# The subtraction is still there, at the end, but in float64, and after one addition per rank instead of one per row. Its error should be about $(\mu/\sigma)^2 \cdot 10^{-16}$. **Guess** how far from 0 a
# feature may be before the sums are worse than a thousandth.


# %%
def of_rows(rows):
    return Moments.of(rows[:, None])


def sums_on_the_wire(x):
    parts = [of_rows(rows) for rows in np.split(x, 8)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.var()[0]


def chan_on_the_wire(x):
    merged = variance.Part(0, np.float64(0), np.float64(0))
    for rows in np.split(x, 8):
        local = of_rows(rows)
        merged = variance.chan_merge(merged, variance.Part(len(rows), local.mean[0], local.deviation_sq[0]))
    return merged.m2 / merged.count


ways = {
    "one pass, float32": lambda x: variance.one_pass(x.astype(np.float32)),
    "one pass, float64": variance.one_pass,
    "engine: local moments, then sums": sums_on_the_wire,
    "local moments, then Chan": chan_on_the_wire,
}
far = np.logspace(0, 8, 17)
worst = {name: [] for name in ways}
for ratio in far:
    samples = [sample(ratio, seed) for seed in range(SEEDS)]
    exact = [variance.exact_variance(x) for x in samples]
    for name, way in ways.items():
        worst[name].append(max(abs(way(x) / truth - 1) for x, truth in zip(samples, exact, strict=True)))

# %%
plt.figure(figsize=(9, 4.6))
for number, (name, error) in enumerate(worst.items()):
    plt.plot(far, np.maximum(error, 1e-17), "o^sD"[number], color=("C1", "C3", "C0", "C2")[number], label=name)
plt.plot(far, far**2 * 1e-16, color="C0", linewidth=1, label="(mean/sd)^2 1e-16")
plt.xscale("log")
plt.yscale("log")
plt.ylim(1e-17, 1e4)
plt.xlabel("mean / sd")
plt.ylabel("relative error of the variance")
sums = np.array(worst["engine: local moments, then sums"])
at = {ratio: sums[np.argmin(np.abs(far - ratio))] for ratio in (1e4, 1e6, 1e8)}
plt.title(
    f"Sums of accurate local moments are off by {at[1e4]:.0e} at mean/sd = 1e4, and useless at 1e8\n"
    f"8 ranks x {ROWS // 8} rows, largest error of {SEEDS} seeds"
)
plt.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
print("engine, error / ((mean/sd)^2 1e-16): at most", round(float((sums / (far**2 * 1e-16)).max()), 1))
print(f"engine at mean/sd = 1e4: {at[1e4]:.0e}; at 1e6: {at[1e6]:.0e}; at 1e8: {at[1e8]:.0e}")
assert (sums < 20 * far**2 * 1e-16 + 1e-15).all()
assert at[1e4] < 1e-6
assert at[1e8] > 0.1
print(f"the first ratio with an error above a thousandth: {far[np.argmax(sums > 1e-3)]:.0e}")
assert max(worst["local moments, then Chan"]) < 1e-6

# %% [markdown]
# So this is the price of sums: beyond a million they are imprecise, and at $10^8$ they are wrong, while Chan's merge is still right. And the time stamps from above, shuffled over 8 ranks?

# %%
shuffled = np.random.default_rng(0).permutation(day)
truth = variance.exact_variance(day)
for name, way in ways.items():
    print(f"{name:33} relative error {abs(way(shuffled) / truth - 1):.0e}")
assert abs(sums_on_the_wire(shuffled) / truth - 1) < 1e-4

# %% [markdown]
# Good enough by sums in float64, hopeless by one pass in float32: centre such a feature before it enters a net.
#
# The layer takes no chances: where a mean is more than 10,000 standard deviations from 0, the first all-reduce is only good for the common mean, and a second one adds the squares *around* it.


# %%
def stored_by_the_layer(comm):
    # Momentum 1: store this batch's alone.
    layer = nn.SyncBatchNorm(1, momentum=1.0, dtype=np.float64, comm=comm)
    layer(np.array_split(shuffled, comm.size)[comm.rank][:, None])
    return layer.running_var[0] * (len(day) - 1) / len(day)  # stored is the unbiased variance


by_layer = launch(stored_by_the_layer, ranks=8, backend="lockstep")[0]
print(f"SyncBatchNorm on 8 ranks: relative error {abs(by_layer / truth - 1):.0e}")
assert abs(by_layer / truth - 1) < 1e-12

# %% [markdown]
# ## Summary
#
# - Count, sum and sum of squares add, for any split: uneven, empty, weighted. Means and variances do not.
# - The variance of all is the mean of the variances **plus the variance of the means**. Averaging variances loses the second part, which is the large one where ranks differ.
# - $\frac1n\sum x^2 - \mu^2$ loses $(\mu/\sigma)^2$ in relative precision. Subtract first, then square: two passes, Welford, Chan.
# - The engine measures locally in float64 with two passes, then sends sums: error about $(\mu/\sigma)^2 \cdot 10^{-16}$; far from 0 it sends sums around the common mean as well.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **4.1** Mean and (biased) variance of each channel, from the count, the sums and the sums of squares. Return both: `mean, var`.


# %%
def mean_and_variance(count, total, total_sq):
    return None  # your code here


check("4.1", mean_and_variance)

# %% [markdown]
# **4.2** Mean and variance of the union, from each rank's count, mean and variance (three arrays, one entry per rank). A rank may be empty: count 0, and zeros beside it.


# %%
def union(counts, means, variances):
    return None  # your code here


check("4.2", union)

# %% [markdown]
# **4.3** Chan's merge. Return the merged `n, mean, m2`.


# %%
def merge(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    return None  # your code here


check("4.3", merge)

# %% [markdown]
# **4.4** Count, sum and sum of squares of `x`, shape (N, C), with a frequency weight $\ge 0$ for each row. Rows of weight 0 may hold anything, even NaN; a NaN in a row that counts has to show. Return `count, total, total_sq`.


# %%
def weighted_moments(x, weights):
    return None  # your code here


check("4.4", weighted_moments)

# %% [markdown]
# **4.5** One step of Welford: what `count, mean, m2` become when `value` arrives.


# %%
def welford_step(count, mean, m2, value):
    return None  # your code here


check("4.5", welford_step)
