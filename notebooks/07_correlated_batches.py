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
# # 07 Correlated batches
#
# **You will** measure how much noisier the mean of a batch is when its rows belong to a few users; predict it with one formula, the *design effect*; find how many ranks SyncBN needs to make the mean as
# steady as a shuffled local one; correct the formula for a data set of few classes; and see what all this does and does not say about accuracy.
#
# **Before:** mean, variance and covariance; that local BN uses the statistics of one rank's rows and SyncBN those of all ranks (lesson 06; lesson 00 shows the effect). **Time:** 40 minutes, and 30 more for the exercises.

# %% tags=["remove-cell"]
import importlib.util
import subprocess
import sys

# On a hosted notebook service: install from the repository.
if importlib.util.find_spec("syncbn_sim") is None:
    REPOSITORY = "git+https://github.com/syncbn-sim/syncbn-sim"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", f"syncbn-sim[lessons] @ {REPOSITORY}"])

# %%
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np

from syncbn_sim import data, stats
from syncbn_sim.comm import launch
from syncbn_sim.data.request_log import user_activity
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import Arm
from syncbn_sim.experiments.arms_table import table
from syncbn_sim.experiments.norms import COLOURS
from syncbn_sim.experiments.tasks import TASKS
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE
from syncbn_sim.stats.estimates import mean_interval

# %matplotlib inline
plt.rcParams.update(STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## Four rows of two users, on paper
#
# A feature of a row is $x = \mu + b_{\text{user}} + e$: something that all rows of the user share, and something of the row's own. The share of the variance that is the user's is the **intra-class correlation**
#
# $$\rho = \frac{\mathrm{Var}(b)}{\mathrm{Var}(b) + \mathrm{Var}(e)}, \qquad \mathrm{Cov}(x_i, x_j) = \sigma^2 \cdot \begin{cases} 1 & i = j \\ \rho & \text{same user} \\ 0 & \text{otherwise} \end{cases}$$
#
# A batch holds three rows of user A and one of user B. The variance of its mean is the sum of all 16 covariances over $4^2$: four times $\sigma^2$ on the diagonal, and six times $\rho\sigma^2$ for the
# ordered pairs within A. With $\rho = 0.5$: $(4 + 6 \cdot 0.5)/16 = 7/16$, where independent rows have $4/16$. The noise is **1.75** times as large.
#
# In general, with $n_j$ rows of user $j$ among $n$:
#
# $$\mathrm{Var}(\bar x) = \frac{1}{n^2}\Big(n + \sum_j n_j (n_j - 1)\,\rho\Big)\sigma^2 = \frac{\sigma^2}{n}\,\underbrace{\big(1 + (S - 1)\,\rho\big)}_{\text{design effect}}, \qquad S = \sum_j \frac{n_j^2}{n}$$
#
# (Here users are drawn from very many, and their number is all that chance brings together. What changes where entities are few comes below.)
#
# $S$ is the number of rows of its own user that the average *row* meets in its batch, itself included: here $(9 + 1)/4 = 2.5$. The average *user* has $4/2 = 2$ rows. **Which of the two** gives 1.75?

# %%
user, rho = np.array(["A", "A", "A", "B"]), 0.5
covariance = np.where(user[:, None] == user, rho, 0.0)
np.fill_diagonal(covariance, 1.0)
print(covariance)
by_covariances = covariance.sum() / 16 / (1 / 4)
S = stats.cluster_size([user])
print(f"noise against independent rows: {by_covariances}")
print(
    f"S = {S}: 1 + (S - 1) rho = {stats.design_effect(S, rho)};  mean rows per user 2: 1 + (2 - 1) rho = {stats.design_effect(2, rho)}"
)
assert by_covariances == stats.design_effect(S, rho)

# %% [markdown]
# So four rows are worth $4/1.75 \approx 2.3$ independent ones: the **effective rows** $n / \mathrm{deff}$.
#
# ## On a request log
#
# A recommender's log: thousands of users with a power law of activity: most have a handful of rows, a few have hundreds (quantiles below). Ten features describe the user ($\rho = 1$), ten the item ($\rho = 0.3$, since a user is shown similar items),
# four the context ($\rho = 0.5$). The log is stored user by user, and a batch is 32 rows of it.

# %%
ROWS, SEEDS = 32, range(4)
KINDS = {"user": slice(0, 10), "context": slice(20, 24), "item": slice(10, 20)}


def reading(log, order, rows=ROWS):
    """Indices (batches, rows): the log in that order, cut into batches."""
    indices = {"sorted": data.sorted_by_entity, "shuffled": data.iid}[order](log.entity, np.random.default_rng(1))
    return indices[: len(indices) // rows * rows].reshape(-1, rows)


def users_per_batch(labels):
    return np.mean([len(np.unique(batch)) for batch in labels])


logs = [data.request_log(102_400, 100, seed=seed, dtype=np.float64).train for seed in SEEDS]
log = logs[0]
rho = stats.intra_class_correlation(log.x, log.entity)
activity = np.bincount(log.entity)  # rows of each user
print(f"{len(log):,} rows of {len(activity):,} users")
points = (0.1, 0.5, 0.9, 0.99, 1)
print(
    "rows of a user:", ", ".join(f"{q:.0%}: {np.quantile(activity, q):.0f}" for q in points), "(quantiles over users)"
)
print(f"{(activity > 100).sum()} users have more than 100")
assert np.median(activity) < 10 < 200 < activity.max()
print("intra-class correlation:", ", ".join(f"{kind} {rho[which].mean():.2f}" for kind, which in KINDS.items()))
for order in ("sorted", "shuffled"):
    labels = log.entity[reading(log, order)]
    users = users_per_batch(labels)
    print(
        f"{order:8}: {users:4.1f} users per batch, so {ROWS / users:4.1f} rows per user; S = {stats.cluster_size(labels):5.2f}"
    )

# %% [markdown]
# Look at the sorted line: the average user has few rows in a batch, but the average row lives in a much bigger crowd, because the crowd is where the rows are. **What do you expect** for the measured noise of
# the means: does it follow $S$, or rows per user?


# %%
def noise_of_means(means, log):
    """Computes Var(batch mean) / (sigma^2 / n) of each feature: 1 for independent rows."""
    return means.var(axis=0) / (log.x.var(axis=0) / ROWS)


found, S, mean_size = {}, {}, {}
for order in ("sorted", "shuffled"):
    chosen = reading(log, order)
    found[order] = noise_of_means(log.x[chosen].mean(axis=1), log)
    S[order], mean_size[order] = stats.cluster_size(log.entity[chosen]), ROWS / users_per_batch(log.entity[chosen])
noisier = found["sorted"][KINDS["user"]].mean()
print(f"user features, sorted: noise x {noisier:.1f}; S = {S['sorted']:.1f}, rows per user {mean_size['sorted']:.1f}")
assert abs(noisier / S["sorted"] - 1) < 0.1

# %% tags=["hide-input"]
fine = np.linspace(0, 1, 50)
for order, colour in (("sorted", COLOURS["local"]), ("shuffled", COLOURS["none"])):
    plt.plot(rho, found[order], "o", color=colour, label=f"{order}: measured, one dot per feature")
    plt.plot(fine, 1 + (S[order] - 1) * fine, color=colour, label=f"1 + (S - 1) rho, S = {S[order]:.1f}")
size = mean_size["sorted"]
plt.plot(fine, 1 + (size - 1) * fine, ":", color="black", label=f"with rows per user, {size:.1f}, for S")
plt.xlabel("intra-class correlation rho of the feature")
plt.ylabel("variance of batch means\nover that of independent rows")
plt.title(
    f"Sorted by user, the mean of a user feature is {noisier:.0f} times as noisy, as S says; rows per user say {size:.0f}"
)
plt.legend(fontsize=10)
plt.show()

# %% [markdown]
# One log could be luck. Measured over predicted, on four logs with other users:

# %%
labels = [each.entity[reading(each, "sorted")] for each in logs]
means = [each.x[reading(each, "sorted")].mean(axis=1) for each in logs]  # of each batch and feature
rhos = np.array([stats.intra_class_correlation(each.x, each.entity) for each in logs])
by_row = np.array([stats.cluster_size(each) for each in labels])  # S
by_user = np.array([ROWS / users_per_batch(each) for each in labels])
noise = np.array([noise_of_means(m, each) for m, each in zip(means, logs, strict=True)])
for kind, which in KINDS.items():
    right, wrong = (
        mean_interval((noise / (1 + (size[:, None] - 1) * rhos))[:, which].mean(axis=1)) for size in (by_row, by_user)
    )
    print(
        f"{kind:8} measured / predicted: {right.mean:.3f} [{right.low:.3f}, {right.high:.3f}] with S, "
        f"{wrong.mean:.2f} [{wrong.low:.2f}, {wrong.high:.2f}] with the mean number of rows per user"
    )
    assert abs(right.mean - 1) < 0.06 < 0.3 < wrong.mean - 1

# %% [markdown]
# ## The variance is wrong too, and Bessel does not help
#
# The rows of a batch scatter around *their* mean, not around $\mu$. Whatever the mean has wandered off is missing: $\mathrm E[\sigma_B^2] = \sigma^2 - \mathrm{Var}(\bar x)$ (law of total variance), so
#
# $$\mathrm E[\sigma_B^2] = \sigma^2 \Big(1 - \frac{\mathrm{deff}}{n}\Big)$$
#
# For independent rows, $\mathrm{deff} = 1$, that is the familiar $\frac{n-1}{n}$, and Bessel's factor $\frac{n}{n-1}$ repairs it. On paper, for A, A, A, B: $1 - 1.75/4 = 0.5625$, and Bessel makes it $0.75$. **What do you expect**
# on the log?

# %%
centring = np.eye(4) - 1 / 4
print("A, A, A, B: E[biased variance] =", np.trace(centring @ covariance) / 4)
sizes = np.array([8, 16, 32, 64, 128])
which = KINDS["user"]


def local_variances(order):
    """For each size: mean biased variance, with Bessel's factor, and theory; in units of the population's variance."""
    found = []
    for rows in sizes:
        chosen = reading(log, order, rows)
        deff = 1 + (stats.cluster_size(log.entity[chosen]) - 1) * rho[which].mean()
        biased = (log.x[:, which][chosen].var(axis=1) / log.x[:, which].var(axis=0)).mean()
        found.append((biased, biased * rows / (rows - 1), stats.expected_local_variance(1.0, rows, deff)))
    return np.array(found).T


shown = {order: local_variances(order) for order in ("sorted", "shuffled")}
for order, (biased, bessel, theory) in shown.items():
    print(
        f"{order:8} 32 rows: biased {biased[2]:.2f}, with Bessel's factor {bessel[2]:.2f}; theory {theory[2]:.2f} biased"
    )
    assert np.abs(biased - theory).max() < 0.04
assert np.abs(shown["shuffled"][1] - 1).max() < 0.03
assert shown["sorted"][1][2] < 0.7

# %% tags=["hide-input"]
for (order, (biased, bessel, theory)), name in zip(shown.items(), ("local", "none"), strict=True):
    plt.plot(sizes, theory, color=COLOURS[name], label=f"{order}: 1 - deff / n")
    plt.plot(sizes, biased, "o", color=COLOURS[name])
    plt.plot(
        sizes, bessel, "^", color=COLOURS[name], markerfacecolor="none", label=f"{order}: with Bessel's n / (n - 1)"
    )
plt.axhline(1, color="black", linewidth=1, linestyle=":")
plt.xscale("log", base=2)
plt.xticks(sizes, sizes)
plt.xlabel("rows per batch")
plt.ylabel("mean batch variance,\nshare of the true one")
plt.ylim(0, 1.1)
plt.title(
    f"32 rows sorted by user show {100 * shown['sorted'][0][2]:.0f} % of the variance of a user feature; Bessel makes it {100 * shown['sorted'][1][2]:.0f} %\n"
    "lines: theory; dots: biased variance"
)
plt.legend(fontsize=10, loc="lower right")
plt.show()

# %% [markdown]
# Small is repaired by a factor. Alike is not.
#
# ## How many ranks until the mean is steady?
#
# SyncBN averages over $W$ ranks with $n$ rows each. If no user is on two ranks, the ranks' means are independent, so the variance is divided by $W$:
#
# $$\mathrm{Var}(\bar x_{\text{sync}}) = \frac{\sigma^2}{nW}\,\mathrm{deff}$$
#
# Compare that with a *shuffled local* batch of the same $n$ rows, $\sigma^2/n$. They are equal when $W = \mathrm{deff}$. **So SyncBN restores the noise of an IID local mean exactly when there are at least as many ranks as
# the design effect.** **Before you look:** $S$ stands above; how many ranks do user features need, and how many item features?


# %%
def sd_of_mean(ranks, kind, dealt=False):
    """Measured over all logs. Each rank reads a stretch of its own; `dealt`: rows go to the ranks in turn, like cards."""
    variances = []
    for each in means:
        steps = len(each) // ranks
        batches = each[: steps * ranks, KINDS[kind]]
        if dealt:  # then W n neighbouring rows make one step
            joined = batches.reshape(steps, ranks, -1).mean(axis=1)
        else:
            joined = batches.reshape(ranks, steps, -1).mean(axis=0)
        variances.append(np.mean(joined**2))
    return np.sqrt(np.mean(variances))


worlds = np.array([1, 2, 4, 8, 16, 32, 64])
iid = stats.predicted_sd_of_mean(1.0, ROWS, 1.0)
deffs = {kind: stats.design_effect(by_row.mean(), rhos[:, KINDS[kind]].mean()) for kind in ("user", "item")}
measured = {kind: np.array([sd_of_mean(w, kind) for w in worlds]) for kind in deffs}
predicted = {
    kind: np.array([stats.predicted_sd_of_mean(1.0, ROWS * w, d) for w in worlds]) for kind, d in deffs.items()
}
dealt = np.array([sd_of_mean(w, "user", dealt=True) for w in worlds])
for kind, deff in deffs.items():
    enough = worlds[measured[kind] < iid].min()
    print(
        f"{kind} features: deff {deff:4.1f}; of the numbers of ranks tried, {enough} is the first that is enough; measured / predicted = {measured[kind] / predicted[kind]}"
    )
    assert np.abs(measured[kind] / predicted[kind] - 1).max() < 0.15
    assert (measured[kind][worlds < 0.8 * deff] > iid).all()
    assert (measured[kind][worlds > 1.3 * deff] < iid).all()
assert (dealt[2:] > measured["user"][2:]).all()

# %% tags=["hide-input"]
plt.figure(figsize=(9, 4.4))
for number, (kind, deff) in enumerate(deffs.items()):
    colour = f"C{number}"
    plt.plot(worlds, predicted[kind], color=colour, label=f"{kind} features, sorted: sigma sqrt(deff / (n W))")
    plt.plot(worlds, measured[kind], "o", color=colour)
    star = {"color": colour, "markeredgecolor": "black", "markersize": 17, "zorder": 5}
    plt.plot(deff, iid, "*", label=f"W = deff = {deff:.1f}", **star)
plt.plot(worlds, dealt, "x--", color=COLOURS["none"], label="user features, rows dealt like cards")
plt.axhline(iid, color="black", linewidth=1, linestyle=":", label="a shuffled local batch")
plt.xscale("log", base=2)
plt.xticks(worlds, worlds)
plt.ylim(0, None)
plt.xlabel("ranks W that share statistics")
plt.ylabel("sd of the batch mean,\nin sd of the feature")
plt.title(
    "The synchronised mean is as steady as a shuffled local one where W = deff (stars)\nlines: theory; dots: measured on four logs"
)
plt.legend(fontsize=9)
plt.show()

# %% [markdown]
# The dashed line is the condition in small print. If the rows are dealt to ranks like cards, one user's rows stand on many ranks at once, the ranks' means are not independent, and synchronising them helps less.
#
# ## Few entities: ten classes
#
# A log has thousands of users, so that two rows of a *shuffled* batch are hardly ever of one. Digits have ten classes: among 32 shuffled images each class stands about three times, $S \approx 4$. Yet shuffled rows are independent draws from
# the training set, whatever they have in common by chance. **What do you expect:** are 32 shuffled digits worth 32 rows, or fewer? And eight ranks with four images of one class each, and ten such ranks, one for each class?
#
# The training set is *fixed*: the mean to be hit is the mean of all its rows, in which each class has its share. What makes a batch mean miss it is that classes stand in the batch more unevenly than chance would have it. So the meetings that chance brings are taken out of $S$:
#
# $$S_{\text{adj}} = \frac{S - nP}{1 - P}, \qquad \mathrm{deff} = 1 + (S_{\text{adj}} - 1)\,\rho$$
#
# with $P$ the chance that two rows of the training set are of one class, $n$ the rows *whose statistics are used* (of all ranks, if they are synchronised) and $S$ of these $n$. For a shuffled batch $S = 1 + (n - 1)P$, so $S_{\text{adj}} = 1$. With thousands of users $P$ is nearly 0, and nothing changes.

# %%
digits, digit = data.load_digits()
share_of_class = stats.same_entity(np.bincount(digit))  # P
alike = stats.intra_class_correlation(digits, digit)
varies = np.isfinite(alike)  # three pixels are always blank
alike, EACH, DRAWS = alike[varies].mean(), 4, 4000
by_class = [np.flatnonzero(digit == c) for c in range(10)]
rng = np.random.default_rng(0)


def one_class_per_rank(ranks):
    """Images, (ranks * 4,) indices: each rank has four of one class, no two ranks the same."""
    return np.concatenate([rng.choice(by_class[c], EACH, replace=False) for c in rng.permutation(10)[:ranks]])


def shuffled_images(ranks):
    return rng.choice(len(digit), EACH * ranks, replace=False)


rows_found = []
print(
    f"P = {share_of_class:.3f}, rho = {alike:.3f}\n{'batch':24}{'S':>6}{'S_adj':>7}{'measured':>10}{'with S':>8}{'with S_adj':>12}"
)
for name, draw in (("shuffled", shuffled_images), ("one class per rank", one_class_per_rank)):
    for ranks in (1, 2, 4, 8, 10):
        n = EACH * ranks
        batches_drawn = np.array([draw(ranks) for _ in range(DRAWS)])
        pixels = digits[:, varies]
        misses = pixels[batches_drawn].mean(axis=1) - pixels.mean(axis=0)
        measured_deff = ((misses**2).mean(axis=0) / pixels.var(axis=0, ddof=1)).mean() / (1 / n - 1 / len(digit))
        S_here = stats.cluster_size(digit[batches_drawn])
        S_adj = stats.adjusted_cluster_size(S_here, n, share_of_class)
        with_S, with_adj = (stats.design_effect(size, alike) for size in (S_here, S_adj))
        rows_found.append((name, ranks, measured_deff, with_S, with_adj))
        print(
            f"{name:18} {ranks:2} x {EACH}{S_here:6.2f}{S_adj:7.2f}{measured_deff:10.2f}{with_S:8.2f}{with_adj:12.2f}"
        )
assert all(abs(corrected - measured_deff) < 0.05 for *_, measured_deff, _, corrected in rows_found)
assert rows_found[4][3] > 2 > 1.1 > rows_found[4][2]

# %% tags=["hide-input"]
for name, colour in (("shuffled", COLOURS["none"]), ("one class per rank", COLOURS["sync"])):
    of_it = np.array([found[1:] for found in rows_found if found[0] == name])
    plt.plot(of_it[:, 0], of_it[:, 3], color=colour, label=f"{name}: with S_adj")
    plt.plot(of_it[:, 0], of_it[:, 2], ":", color=colour, label=f"{name}: with S")
    plt.plot(of_it[:, 0], of_it[:, 1], "o", color=colour)
plt.axhline(1, color="black", linewidth=1)
plt.xticks([1, 2, 4, 8, 10])
plt.ylim(0, None)
plt.xlabel("ranks of 4 images whose statistics are joined")
plt.ylabel("design effect")
plt.title(
    "Ten classes: shuffled images are worth their number, and ten sorted ranks together\nbeat them, since every class has its share (dots: drawn batches; lines: formulas)"
)
plt.legend(fontsize=10)
plt.show()
worth = {(name, ranks): EACH * ranks / measured_deff for name, ranks, measured_deff, *_ in rows_found}
print(
    f"32 shuffled images are worth {worth['shuffled', 8]:.0f}, eight sorted ranks {worth['one class per rank', 8]:.0f}, ten {worth['one class per rank', 10]:.0f} of 40."
)
assert round(worth["shuffled", 8]) in (31, 32, 33)
assert worth["one class per rank", 10] > 50

# %% [markdown]
# With $S$ alone, 32 shuffled digits would be worth half of their number; they are worth all of it. Four images of one class are worth two, in both formulas. Together sorted ranks do *better* than "ranks times two": no two hold the same class, so the
# joined batch is nearer to the shares of the training set than chance would bring it. With ten ranks every class has its share, and only the images' own differences are left. (That ranks divide the variance by $W$, as above, is the case of many users.)
#
# ## Bells
#
# Simulated batches, whose users have the log's power law. **Before you look:** with $\rho = 0.5$ and 32 rows per rank, are 4 ranks enough, and 16? The bells have the predicted standard deviation (in brackets). (The local means of sorted rows are more peaked than their
# bell: some batches hold many users, some one. The formula is about their variance.)


# %%
def simulated(ranks, rows, rho):
    """The design effect, and for each arm its batch means and their predicted sd."""
    rng, count = np.random.default_rng(0), max(300, 8000 // ranks) * ranks * rows
    activity = user_activity(rng, count // 4)
    users = np.repeat(np.arange(len(activity)), activity)[:count]
    x = np.sqrt(rho) * rng.normal(size=len(activity))[users] + np.sqrt(1 - rho) * rng.normal(size=count)
    deff = stats.design_effect(stats.cluster_size(users.reshape(-1, rows)[:1000]), rho)
    local = x.reshape(-1, rows).mean(axis=1)
    shuffled = rng.permutation(x).reshape(-1, rows).mean(axis=1)
    return deff, {
        "sorted, local": (local, stats.predicted_sd_of_mean(1, rows, deff)),
        "sorted, sync": (local.reshape(ranks, -1).mean(axis=0), stats.predicted_sd_of_mean(1, rows * ranks, deff)),
        "shuffled, local": (shuffled, stats.predicted_sd_of_mean(1, rows, 1)),
    }


# %% tags=["hide-input"]
def draw_means(*settings):
    _, axes = plt.subplots(1, len(settings), figsize=(min(10, 5.5 * len(settings)), 3.9), squeeze=False)
    grid = np.linspace(-1.2, 1.2, 300)
    for ax, (ranks, rows, rho) in zip(axes[0], settings, strict=True):
        deff, arms = simulated(ranks, rows, rho)
        for (name, (means, sd)), colour in zip(arms.items(), ("local", "sync", "none"), strict=True):
            look = {"color": COLOURS[colour], "linestyle": "--" if colour == "none" else "-"}
            ax.hist(means, np.linspace(-1.2, 1.2, 31), density=True, histtype="step", color=COLOURS[colour], alpha=0.5)
            bell = np.exp(-((grid / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))
            ax.plot(grid, bell, label=f"{name}: sd {means.std():.2f} ({sd:.2f})", **look)
        enough = "enough" if ranks >= deff else "not enough"
        ax.set_title(f"rho {rho:g}, {rows} rows: deff = {deff:.1f};\n{ranks} ranks are {enough}", fontsize=11)
        ax.set_xlabel("batch mean (sd of the feature)")
        ax.set_ylim(0, 1.55 * ax.get_ylim()[1])
        ax.legend(fontsize=9)
    axes[0][0].set_ylabel("density")
    plt.show()


draw_means((4, 32, 0.05), (4, 32, 0.5), (16, 32, 0.5))

# %% [markdown] tags=["remove-cell"]
# Change ranks, rows and correlation:

# %% tags=["remove-cell"]
interact(
    lambda ranks, rows, rho: draw_means((ranks, rows, rho)),
    ranks=widgets.IntSlider(value=8, min=1, max=32, continuous_update=False),
    rows=widgets.IntSlider(value=32, min=4, max=64, continuous_update=False),
    rho=widgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="correlation", continuous_update=False),
)
# %% [markdown]
# ## The design effect without knowing the users
#
# In production one may not know which rows belong together. But the ranks' means tell: they scatter around each other with variance $\sigma^2\,\mathrm{deff}/n$. So
#
# $$\widehat{\mathrm{deff}} = \frac{n}{\sigma^2} \cdot \big\langle \text{variance between the ranks' means} \big\rangle_{\text{steps}}$$
#
# with $W - 1$ in the variance, since the true mean is not known either. Eight ranks:

# %%
for kind, which in KINDS.items():
    guesses = []
    for each, m in zip(logs, means, strict=True):
        # By rank, step and feature.
        by_rank = m[: len(m) // 8 * 8, which].reshape(8, -1, m[:, which].shape[1])
        between = by_rank.var(axis=0, ddof=1).mean(axis=0)
        guesses.append(np.mean(between * ROWS / each.x[:, which].var(axis=0)))
    known = np.mean(1 + (by_row - 1) * rhos[:, which].mean(axis=1))
    guess = mean_interval(guesses)
    print(
        f"{kind:8} from rank means {guess.mean:5.2f} [{guess.low:.2f}, {guess.high:.2f}]; from users and rho {known:5.2f}"
    )
    assert abs(guess.mean / known - 1) < 0.1

# %% [markdown]
# ## Where it does not matter
#
# When $\rho$ is small, when a batch holds many users, or when rows are shuffled before they are read. The last needs no synchronisation: each rank draws at random from a window of 1024 rows. **What do you expect**
# of the design effect then?

# %%
rng, order = np.random.default_rng(2), reading(log, "sorted").ravel()
windowed = np.concatenate([rng.permutation(part) for part in np.split(order, len(order) // 1024)])
print("design effect         " + "".join(f"{kind:>10}" for kind in KINDS))
for name, indices in (("sorted", order), ("window of 1024 rows", windowed), ("shuffled", reading(log, "shuffled"))):
    S = stats.cluster_size(log.entity[indices.reshape(-1, ROWS)])
    deffs = [stats.design_effect(S, rho[which].mean()) for which in KINDS.values()]
    print(f"{name:22}" + "".join(f"{deff:10.2f}" for deff in deffs))
    assert name == "sorted" or max(deffs) < 4

# %% [markdown]
# ## What it does not say: accuracy
#
# $W \ge \mathrm{deff}$ is about the noise of the *mean*. Whether a net predicts worse depends on more: on the variance, on what the noise destroys, on how long one trains. Accuracy has to be measured, with two controls:
#
# - **without normalisation**: what sorting costs a net that has no BN is not BN's fault, and no synchronisation can win it back;
# - **averaged** statistics (lesson 06): if the popular mistake does as well, it is not exactness that helps.
#
# Eight ranks, 32 rows each, a short log (100 steps); clicks of *unseen* users are predicted. **What do you expect:** will SyncBN win back all of the loss?

# %%
short = replace(
    TASKS["requests"], split=lambda ranks, rows, seed, dtype: data.request_log(100 * ranks * rows, 8_000, seed, dtype)
)
norms = ("local", "sync", "averaged", "none")
arms = tuple(f"{order}+{norm}" for order in ("iid", "sorted") for norm in norms)
config = sorted_batches.Config(task="requests", arms=arms, seeds=3)
result = launch(sorted_batches.run, 8, backend="lockstep", args=(config,), kwargs={"task": short})[0]
heading, arms_table, *_ = table(result).split("\n\n")
print(f"{heading}\n\n{arms_table}")

# %% [markdown]
# The column `sorted - iid, points` holds each arm against its shuffled twin, the same norm on shuffled data, seed by seed. The same differences as a picture:

# %%
auc = {arm: np.array(metrics["auc"].values) for arm, metrics in result.arms.items()}
twin = {arm: Arm.parse(arm).iid_twin for arm in arms if arm.startswith("sorted")}
changes = {arm: auc[arm] - auc[iid_arm] for arm, iid_arm in twin.items()}
lost, left, alone = (-100 * changes[arm].mean() for arm in ("sorted+local", "sorted+sync", "sorted+none"))
gain = mean_interval(100 * (auc["sorted+sync"] - auc["sorted+local"]))
partly = mean_interval(100 * changes["sorted+sync"])
print(
    f"On the sorted log SyncBN is {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] points above local BN.\n"
    f"It loses {100 * left / lost:.0f} % of what local BN loses, each against its own twin.\nAgainst shuffled SyncBN {partly.mean:+.2f} [{partly.low:+.2f}, {partly.high:+.2f}] points are left: "
    f"three seeds do not say whether all is won back.\n"
    f"Its mean has {result.behind['sorted+sync'].effective_rows:.0f} effective rows, "
    f"a shuffled local one {result.behind['iid+local'].effective_rows:.0f}: by the rule, 8 ranks are fewer than the "
    f"design effect of {result.behind['sorted+local'].design_effect:.1f} (at the mean correlation), so not quite enough."
)
rest = mean_interval(100 * (changes["sorted+sync"] - changes["sorted+none"]))
print(
    f"What sorting costs without any norm, minus what it costs with SyncBN: {rest.mean:+.2f} [{rest.low:+.2f}, {rest.high:+.2f}] points."
)
assert mean_interval(changes["sorted+local"]).high < 0 < gain.low
assert partly.low < 0 < partly.high
assert 0.3 < 1 - left / lost < 1
assert abs(rest.mean) < 0.5 * lost
assert rest.low < 0 < rest.high
assert result.behind["sorted+local"].design_effect > 8
assert abs(changes["sorted+averaged"].mean() - changes["sorted+sync"].mean()) < 0.005
assert all(np.isclose(change.mean(), result.differences[arm].mean) for arm, change in changes.items())

# %% tags=["hide-input"]
for place, (arm, change) in enumerate(changes.items()):
    interval, colour = mean_interval(100 * change), COLOURS[Arm.parse(arm).norm]
    plt.plot([interval.low, interval.high], [place] * 2, color=colour, linewidth=5)
    plt.plot(interval.mean, place, "o", color=colour, markersize=12)
    plt.plot(100 * change, [place + 0.25] * len(change), "k.", markersize=5)
plt.axvline(0, color="black", linewidth=1)
plt.yticks(range(4), [f"{arm}\n- {twin[arm]}" for arm in changes])
plt.gca().invert_yaxis()
plt.xlabel("change of AUC in points (mean and 95 % interval over 3 seeds; black: the seeds)")
plt.title(
    f"Sorting costs {lost:.1f} points with local statistics, {left:.1f} with synchronised ones,\n"
    f"and a net without norm {alone:.1f}: each against the same norm on shuffled rows"
)
plt.show()

# %% [markdown]
# (The intervals in the table are wide because each seed is another world of users; compared are arms of the same seed.) Two things are clear on three seeds: sorting hurts local BN, and on the sorted log SyncBN is
# better than local BN. Whether it wins back *all* is not: the interval of what is left holds 0, and so does that of the net without normalisation. The two means are alike, which would fit if what is left were the order's own
# doing: the gradients of a step come from few users, and no BN can repair that. Three seeds cannot show it. And averaging, wrong as it is, does about as well as SyncBN: equal rows, judged with the statistics it was trained with (lesson 06).
# For longer runs and more seeds: `make train`.
#
# ## Summary
#
# - Rows that share a user carry less news. The mean of $n$ rows is as noisy as one of $n/\mathrm{deff}$ independent rows, $\mathrm{deff} = 1 + (S-1)\rho$, and $S$ counts by row, not by user.
# - The local variance is too small by $\mathrm{deff}/n$ of itself; Bessel's factor repairs only $1/n$.
# - SyncBN divides the variance of the mean by $W$, if ranks do not share users: as steady as a shuffled local batch exactly when $W \ge \mathrm{deff}$.
# - Where entities are few, what chance alone brings together is taken out of $S$ first. Shuffled rows are worth their number, always; ranks that hold different classes are together worth more than one by one.
# - The scatter of the ranks' means gives $\mathrm{deff}$ without knowing the users.
# - None of this is a statement about accuracy. Measure that, and put the net without normalisation beside it.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **7.1** The design effect of one batch. `entity` is an array of the users of its rows, `rho` the correlation. NumPy alone.


# %%
def design_effect(entity, rho):
    return None  # your code here


check("7.1", design_effect)

# %% [markdown]
# **7.2** How many independent rows is a synchronised mean worth? `rows` on each of `ranks` ranks, which do not share users; `deff` is the design effect of one rank's batch.


# %%
def effective_rows(rows, ranks, deff):
    return None  # your code here


check("7.2", effective_rows)

# %% [markdown]
# **7.3** The smallest number of ranks with which the synchronised mean is at least as steady as the mean of a shuffled local batch. Given are $S$ and $\rho$.


# %%
def ranks_needed(S, rho):
    return None  # your code here


check("7.3", ranks_needed)

# %% [markdown]
# **7.4** The expected *unbiased* variance (with Bessel's factor) of a local batch of `rows` rows, for a feature of variance `variance`.


# %%
def expected_unbiased_variance(variance, rows, deff):
    return None  # your code here


check("7.4", expected_unbiased_variance)

# %% [markdown]
# **7.5** Estimate the design effect from `means`, of shape (steps, ranks): the ranks' batch means of one feature, over `rows` rows each. The feature has variance `variance`.


# %%
def estimate_design_effect(means, variance, rows):
    return None  # your code here


check("7.5", estimate_design_effect)
