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
# # 00 A first surprise
#
# **You will** train the same small net on the same images in six ways, change nothing but the order of the images and where a mean is taken, and see its accuracy fall to
# that of a guess and come back. Then you will see why, in one picture.
#
# **Before:** some Python and NumPy; you know that a net is trained on batches. Everything else is explained here or in lessons 01 to 07. **Time:** 15 minutes.
#
# To start all lessons: `make lessons` in the project's folder. Shift-Enter runs a cell.

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
from syncbn_sim.experiments import sorted_batches
from syncbn_sim.experiments.arms import Arm
from syncbn_sim.experiments.norms import COLOURS, NORMS
from syncbn_sim.experiments.tasks import mlp
from syncbn_sim.functional import batch_norm as F
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE

# %matplotlib inline
plt.rcParams.update(STYLE)

# %% [markdown]
# ## Eight ranks, four images each
#
# Large nets are trained on many devices at once. Each device, or *rank*, has the whole net and a few rows of the data; after each step they add up their gradients, so that all nets stay
# the same. Here eight ranks learn handwritten digits, four images at a time each.
#
# The rows can come **shuffled** (`iid`), or **sorted**, so that rows of one class come together and each rank reads its own stretch. Sorted sounds odd, but it is how logs are
# stored (by user, by request) and how videos are read (frame after frame).

# %%
RANKS, ROWS = 8, 4
pixels, labels = data.load_digits()
digits = data.split_digits(pixels, labels, seed=0).train


def rows_of_step(order, step, rows=ROWS):
    """The row indices that each rank reads in this step."""
    arrange = {"iid": data.iid, "sorted": data.sorted_by_entity}[order]
    indices = arrange(digits.entity, np.random.default_rng(0))
    return [list(data.batches(indices, rank, RANKS, rows))[step] for rank in range(RANKS)]


figure, axes = plt.subplots(1, 2, figsize=(9, 5))
for ax, order in zip(axes, ("iid", "sorted"), strict=True):
    step = rows_of_step(order, step=20)
    picture = np.vstack([np.hstack([np.pad(digits.x[i].reshape(8, 8), 1) for i in rows]) for rows in step])
    ax.imshow(picture, cmap="gray_r")
    classes = sum(len(set(digits.y[rows])) for rows in step) / RANKS
    ax.set_title(f"{order}: {classes:.1f} classes in the average rank's batch")
    ax.set_yticks(10 * np.arange(RANKS) + 5, [f"rank {r}" for r in range(RANKS)])
    ax.set_xticks([])
    ax.grid(False)
plt.show()

# %% [markdown]
# ## The experiment
#
# The net has two hidden layers, each with a *batch normalisation* (BN): it subtracts the mean of the batch from every activation and divides by the standard deviation. The question is:
# the mean of *which* batch? Three answers are compared, each on both orders of the images, so the net is trained in six ways:
#
# - `local`: of the rank's own four images. This is what a framework does if you do not ask for anything else.
# - `sync`: of all 32 images of all ranks. The ranks add up their sums first; that is SyncBN.
# - `none`: no normalisation at all. What the order does to this net is not BN's fault.
#
# **What do you expect** from `sorted+local`: a bit worse than `iid+local`? Half as good? Write a number down, then run it. (Eight ranks take turns in this process; 3 seeds; about 10 seconds.)

# %%
config = sorted_batches.Config(
    task="digits",
    arms=("iid+local", "iid+sync", "sorted+local", "sorted+sync", "iid+none", "sorted+none"),
    seeds=3,
    epochs=4,
)
result = launch(sorted_batches.run, RANKS, backend="lockstep", args=(config,))[0]
accuracy = {arm: metrics["accuracy"] for arm, metrics in result.arms.items()}
for arm, found in accuracy.items():
    low, high = found.interval
    print(f"{arm:13} {100 * found.mean:5.1f} % right, 95 % interval [{100 * low:.1f}, {100 * min(high, 1):.1f}]")

# %%
for place, (arm, found) in enumerate(accuracy.items()):
    colour = COLOURS[Arm.parse(arm).norm]
    plt.barh(place, 100 * found.mean, color=colour, alpha=1.0 if arm.startswith("sorted") else 0.45)
    plt.plot([100 * low_or_high for low_or_high in found.interval], [place, place], color="black")
    plt.text(103, place, f"{100 * found.mean:.1f} %", va="center")
plt.axvline(10, color="black", linewidth=1, linestyle=":")
plt.yticks(range(len(accuracy)), accuracy)
plt.gca().invert_yaxis()
plt.xlim(0, 115)
plt.xticks(range(0, 101, 20))
plt.xlabel("test accuracy (%), mean and 95 % interval over 3 seeds; dotted: a guess")
plt.title(
    f"Sorting takes local BN from {100 * accuracy['iid+local'].mean:.0f} % to {100 * accuracy['sorted+local'].mean:.0f} %; "
    f"SyncBN stands at {100 * accuracy['sorted+sync'].mean:.0f} %"
)
plt.show()
assert accuracy["sorted+local"].mean < 0.4 < 0.9 < accuracy["sorted+sync"].mean
assert accuracy["sorted+none"].mean > 0.85

# %% [markdown]
# The net without normalisation hardly minds the order. So it is not the order as such: it is the order *and* local batch normalisation.
#
# ## Why
#
# Take one hidden unit of a freshly initialised net and one sorted step. Every rank holds (mostly) one class. What does the unit say on each rank, before the normalisation, after a local one, and after
# a synchronised one? **Before you look:** what is the mean of every rank's four values after a local normalisation?

# %%
net = mlp(64, 10, lambda width: None, seed=0, dtype="float64")
first_layer = next(net.named_children())[1]


def activations(order, rows):
    """Values (ranks, rows) of one hidden unit: before, after local BN, after SyncBN."""
    step = rows_of_step(order, step=5, rows=rows)
    before = first_layer(digits.x[np.concatenate(step)].astype(np.float64))[:, [7]]
    parts = np.split(before, RANKS)
    own = [F.local_moments(part) for part in parts]
    everybody = sum(own[1:], own[0])  # moments add: this is the all-reduce of SyncBN
    local = [F.standardize(part, m.mean, m.var(), 1e-5)[0] for part, m in zip(parts, own, strict=True)]
    sync = [F.standardize(part, everybody.mean, everybody.var(), 1e-5)[0] for part in parts]
    return step, [np.reshape(kind, (RANKS, rows)) for kind in (before, local, sync)]


def share_between_ranks(values):
    """Which part of the variance is that of the ranks' means."""
    return np.square(values.mean(axis=1) - values.mean()).mean() / values.var()


def draw_activations(order="sorted", rows=ROWS):
    step, kinds = activations(order, rows)
    figure, axes = plt.subplots(1, 3, figsize=(10, 4), sharey=True)
    told = [share_between_ranks(kind) for kind in kinds]
    names = ("before", "after local BN", "after SyncBN")
    for ax, kind, name, share in zip(axes, kinds, names, told, strict=True):
        for rank in range(RANKS):
            ax.plot(kind[rank], np.full(rows, rank), "o", color=f"C{rank % 8}", alpha=0.7)
            ax.plot(kind[rank].mean(), rank, "k|", markersize=18)
        ax.set_title(f"{name}:\n{100 * share:.0f} % of the variance\nlies between ranks", fontsize=11)
        ax.set_xlabel("value of the unit")
    axes[0].set_yticks(
        range(RANKS), [f"rank {r}: {'/'.join(map(str, sorted(set(digits.y[rows]))))}" for r, rows in enumerate(step)]
    )
    axes[0].invert_yaxis()
    axes[0].set_ylabel("rank: classes it holds")
    figure.suptitle(
        f"{order}: local BN moves every rank's mean (bar) to 0; lost: {100 * told[0]:.0f} % of the variance"
    )
    plt.show()


draw_activations()
before, local, sync = (share_between_ranks(kind) for kind in activations("sorted", ROWS)[1])
assert local < 1e-6 < 0.1 < before
assert abs(sync - before) < 1e-9

# %% [markdown]
# With local BN the next layer sees a world in which every class has mean 0: the difference *between* the classes has been subtracted before the net could use it. SyncBN subtracts the same number on
# every rank, so the classes keep their distances.
#
# With shuffled rows there is little to lose, since all ranks hold about the same mixture:

# %%
draw_activations("iid", 4)

# %% [markdown]
# This was one hidden unit and one step. Over all 64 units and 20 steps:

# %%
for order in ("sorted", "iid"):
    shares = []
    for number in range(20):
        inputs = digits.x[np.concatenate(rows_of_step(order, number))].astype(np.float64)
        shares += [share_between_ranks(unit.reshape(RANKS, ROWS)) for unit in first_layer(inputs).T]
    print(f"{order:6}: {100 * np.mean(shares):.0f} % of a unit's variance lies between ranks, and local BN removes it")
    assert (np.mean(shares) > 0.35) == (order == "sorted")

# %% [markdown]
# (With 4 rows per rank, some of it is chance: means of 4 shuffled rows differ too.)

# %% [markdown] tags=["remove-cell"]
# With many rows, or shuffled ones, a local mean is close to the mean of all. Try it:

# %% tags=["remove-cell"]
interact(
    draw_activations,
    order=widgets.ToggleButtons(options=["sorted", "iid"]),
    rows=widgets.IntSlider(value=4, min=2, max=24, continuous_update=False),
)
# %% [markdown]
# ## Train against evaluation
#
# A BN layer has two modes: in training it uses the batch, in evaluation the averages it has stored. Is the net with local statistics only *judged* in the wrong mode? Train one, and look at the same
# training images in both. **What do you expect?**


# %%
def train_one(comm, norm, steps=150):
    """Trains on sorted rows; returns the accuracy on the last batches in training mode, and of the net in evaluation mode."""
    model = mlp(64, 10, lambda width: NORMS[norm].build(width, 0.1, "float32", comm), 0, "float32")
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=3e-3)
    epochs = data.epochs(data.sorted_by_entity, digits.entity, comm.rank, comm.size, ROWS, 10, [1], drop_last=True)
    batches, in_training = list(epochs)[:steps], []
    for done, _ in train.fit(model, loss, optimizer, comm, digits.x, digits.y, batches):
        if steps - 20 <= done < steps:
            rows = batches[done]  # which it will see next
            with nn.no_backward(model):
                in_training.append((model(digits.x[rows]).argmax(axis=1) == digits.y[rows]).mean())
    own = train.with_averaged_statistics(model, comm, 1.0)
    in_evaluation = train.accuracy(train.predict(own, digits.x), digits.y, comm)
    return float(np.mean(comm.allgather(np.array(in_training)))), in_evaluation


for norm in ("local", "sync"):
    training, evaluation = launch(train_one, RANKS, backend="lockstep", args=(norm,))[0]
    print(f"{norm:5}: {100 * training:5.1f} % right in training mode, {100 * evaluation:5.1f} % in evaluation mode")
    assert (max(training, evaluation) < 0.5) == (norm == "local")

# %% [markdown]
# Neither mode saves it: what was subtracted could not be learned. Better running statistics, a popular remedy, would not help here. (A single run on training images, after fewer steps than above; hence other
# numbers than in the table.)

# %% [markdown]
# ## Summary
#
# - A BN layer takes its mean from the rank's own rows, unless told otherwise. If those rows are few and alike, their mean carries what the net should learn, and BN subtracts it.
# - SyncBN takes the mean over all ranks. Here that repairs it; lesson 06 shows how, lesson 07 when, and when not.
# - A net without normalisation is the control: it tells how much is the order's own fault.
#
# The same with processes that talk over MPI, both data sets and all arms: `make train`.
#
# ## Exercises
#
# Write the functions. `check` tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **0.1** `order` holds all row indices in reading order. Each of `size` ranks owns one contiguous stretch (all equally long), and reads `rows` of it a step. Return the indices that `rank` reads in
# step `step`.


# %%
def batch_of(order, rank, size, rows, step):
    return None  # your code here


check("0.1", batch_of)

# %% [markdown]
# **0.2** `labels` has shape (ranks, rows): the classes in each rank's batch. Return two numbers: how many different classes the average *rank* sees, and how many all ranks together see.


# %%
def classes_seen(labels):
    return None  # your code here


check("0.2", classes_seen)

# %% [markdown]
# **0.3** Your first function that runs on every rank. `right` is an array of True and False, one for each of this rank's rows; ranks may have different numbers of rows. Return the accuracy over the rows of all
# ranks. `comm.allreduce(array)` gives every rank the sum of all ranks' arrays.


# %%
def global_accuracy(comm, right):
    return None  # your code here


check("0.3", global_accuracy)
