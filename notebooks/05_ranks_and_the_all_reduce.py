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
# # 05 Ranks and the all-reduce
#
# **You will** run one function on several ranks; follow every message of an all-reduce; write two all-reduces yourself; compute what each of five schedules costs, and why the
# messages of SyncBN want another one than gradients do; and read what is said when one rank does not take part.
#
# **Before:** lesson 04's three numbers (count, sum, sum of squares); any Python function. No MPI is needed: ranks live in this notebook. **Time:** 40 minutes, and 40 more for the exercises.

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

from syncbn_sim.cluster import LINKS, allreduce_seconds, record, simulate
from syncbn_sim.cluster.networks import resnet50
from syncbn_sim.comm import launch, lockstep, schedules
from syncbn_sim.errors import CollectiveMismatchError, DeadlockError
from syncbn_sim.lessons import check, interact
from syncbn_sim.report.plots import STYLE

# %matplotlib inline
plt.rcParams.update(STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## One function, many ranks
#
# A *rank* is one of the workers that train together. All run the **same** function; what differs is the communicator they are given. `launch` starts them and collects what they return.


# %%
def introduce(comm):
    return f"rank {comm.rank} of {comm.size} ({comm.backend})"


for backend in ("threads", "lockstep"):
    print(launch(introduce, ranks=3, backend=backend))

# %% [markdown]
# Threads run at the same time. Lockstep ranks take turns in one thread, in a fixed order, so there can be thousands and every run is the same. Under `mpirun` the very same function runs on processes.
#
# What does a rank know? Its number, how many there are, and its own data. Nothing about the others, until somebody sends a message.
#
# ## The all-reduce
#
# Every rank brings an array, all leave with the sum. Lesson 04's batch $[1, 2, 6]$ on three ranks, the last without rows; each brings (count, sum, sum of squares):
#
# $$(2, 3, 5) + (1, 6, 36) + (0, 0, 0) = (3, 9, 41)$$
#
# **What do you expect** on rank 2, which has no rows?

# %%
ROWS = [np.array([1.0, 2.0]), np.array([6.0]), np.array([])]


def statistics(comm):
    x = ROWS[comm.rank]
    count, total, total_sq = comm.allreduce(np.array([len(x), x.sum(), (x**2).sum()]))
    return total / count, total_sq / count - (total / count) ** 2


for rank, (mean, var) in enumerate(launch(statistics, ranks=3)):
    print(f"rank {rank}: {len(ROWS[rank])} rows, mean {mean}, variance {var:.4f}")
    assert mean == 3

# %% [markdown]
# Adding is what an all-reduce does unless told otherwise. Its second argument names another operation: with `"max"` all leave with the largest of what was brought, element by element. Who has the most rows?

# %%
most = launch(lambda comm: comm.allreduce(np.array([len(ROWS[comm.rank])]), "max"), ranks=3)
print("the most rows on a rank, as each rank knows:", most)
assert all(found == 2 for found in most)

# %% [markdown]
# ## By hand: along a line and back
#
# An all-reduce is made of messages: `send(array, dest)` and `recv(source)`. The plainest way: each rank adds its own array to what comes from the left and sends that to the right;
# the last one has the sum, which travels back.


# %%
def line(comm, array):
    total = array.copy()
    if comm.rank > 0:
        total += comm.recv(comm.rank - 1)
    if comm.rank < comm.size - 1:
        comm.send(total, comm.rank + 1)
        total = comm.recv(comm.rank + 1)
    if comm.rank > 0:
        comm.send(total, comm.rank - 1)
    return total


# %% [markdown]
# To see who is in a sum, rank $r$ brings $10^r$: rank 0 brings 1, rank 1 brings 10, and so on. Then a 1 at the $r$-th digit from the right says "rank $r$ is in it".
# Lockstep ranks can be watched. **Write down** the six messages before you look.

# %%
results = lockstep.run(
    lambda comm: line(comm, np.array([10.0**comm.rank])),
    ranks=4,
    observer=lambda m: print(f"message {m.number + 1}: rank {m.source} -> rank {m.dest}: {int(m.array[0]):04}"),
)
assert all(result[0] == 1111 for result in results)

# %% [markdown]
# Six messages, one after the other: while two ranks talk, two do nothing. With $p$ ranks it takes $2(p-1)$ *rounds*.
#
# ## A ring keeps everybody busy
#
# Close the line to a ring, and cut the array into as many pieces as there are ranks. In every round each rank sends one piece to the right and adds the one from the left. After $p-1$ rounds
# each piece is complete, on one rank; after $p-1$ more, everywhere.
#
# **Before you look:** 4 ranks, 4 pieces. In which round does the first complete piece travel?

# %%
said = {rank: [] for rank in range(4)}
lockstep.run(
    lambda comm: schedules.ring(comm, np.full(4, 10.0**comm.rank)),
    ranks=4,
    observer=lambda m: said[m.source].append(f"{int(m.array[0]):04}"),
)
print("sends in round     1     2     3     4     5     6")
for rank, pieces in said.items():
    print(f"rank {rank} to rank {(rank + 1) % 4}: ", "  ".join(pieces))
assert all(pieces[3:] == ["1111"] * 3 for pieces in said.values())
assert all(pieces[2].count("1") == 3 for pieces in said.values())

# %% [markdown]
# Still six rounds, but a quarter of the array in each. In round 3 three ranks are in each piece; the receiver adds the fourth; from round 4 on complete pieces go round.
#
# ## Five schedules
#
# The engine knows five. *Star*: all to rank 0 and back. *Tree*: half of the ranks hand over and rest, then half of the rest. *Recursive doubling*: swap all you have with the rank at distance 1, then 2, then 4.
# *Ring*: as above. *Rabenseifner*: swap halves, then quarters, then the same way back. Each arrow is one recorded message, as thick as it is long.

# %% tags=["hide-input"]
NAMES = list(schedules.SCHEDULES)
LABEL = {name: name.replace("_", " ").replace("raben", "Raben") for name in NAMES}
COLOUR = {name: f"C{number}" for number, name in enumerate(NAMES)}
DASHES = dict(zip(NAMES, ("-", "-", "-", (0, (4, 2)), (0, (4, 2))), strict=True))


def draw_messages(ranks, *names):
    rounds = {name: schedules.cost(name, ranks, 8).rounds for name in names}
    figure, axes = plt.subplots(
        1,
        len(names),
        sharey=True,
        squeeze=False,
        figsize=(13, 1.9 + 0.2 * ranks),
        width_ratios=[2 + r for r in rounds.values()],
    )
    for ax, name in zip(axes[0], names, strict=True):
        for m in record(name, ranks, np.ones(ranks)):
            style = {
                "arrowstyle": "-|>",
                "color": COLOUR[name],
                "linewidth": 0.5 + 2 * m.bytes / (8 * ranks),
                "shrinkA": 0,
                "shrinkB": 0,
            }
            ax.annotate("", (m.round, m.dest), (m.round - 1, m.source), arrowprops=style)
        ax.set(xlim=(-0.3, rounds[name] + 0.3), ylim=(ranks - 0.6, -0.4), xlabel="round", yticks=range(ranks))
        ax.set_xticks(range(0, rounds[name] + 1, 2 if rounds[name] > 8 else 1))
        ax.set_title(LABEL[name].replace(" ", "\n"), fontsize=11)
    axes[0, 0].set_ylabel("rank")
    few, many = min(rounds, key=rounds.get), max(rounds, key=lambda name: (rounds[name], name == "ring"))
    figure.suptitle(
        f"{ranks} ranks: {LABEL[few]} sends the whole array {rounds[few]} x, the {LABEL[many]} pieces of it {rounds[many]} x"
    )
    plt.show()


draw_messages(8, *NAMES)

# %% [markdown] tags=["remove-cell"]
# Move the slider: with how many ranks does recursive doubling need spare rounds?

# %% tags=["remove-cell"]
interact(
    lambda ranks: draw_messages(ranks, *NAMES), ranks=widgets.IntSlider(value=5, min=2, max=12, continuous_update=False)
)

# %% [markdown]
# Counted, for an array of 8 numbers (64 bytes) on 8 ranks. `cost` adds up the schedule's rounds; what was recorded must agree with it.

# %%
print(f"{'':20} rounds  messages  bytes in all  longest message")
for name in NAMES:
    promised, sent = schedules.cost(name, 8, 64), record(name, 8, np.ones(8))
    print(f"{name:20} {promised.rounds:6} {promised.messages:9} {promised.bytes:13} {max(m.bytes for m in sent):16}")
    assert (promised.messages, promised.bytes) == (len(sent), sum(m.bytes for m in sent))
    assert promised.rounds == max(m.round for m in sent)

# %% [markdown]
# Few rounds with long messages, or many rounds with short ones. Which is better?
#
# ## What a round costs
#
# A message of $m$ bytes takes $\alpha + m\beta$: $\alpha$ for being a message at all (latency), $\beta$ for each byte (1 / bandwidth). With $n$ bytes on $p$ ranks ($p$ a power of two):
#
# | star | tree | recursive doubling | ring | Rabenseifner |
# |---|---|---|---|---|
# | $2(p-1)(\alpha + n\beta)$ | $2 \log_2 p\,(\alpha + n\beta)$ | $\log_2 p\,(\alpha + n\beta)$ | $2(p-1)(\alpha + \frac np \beta)$ | $2 \log_2 p\;\alpha + 2\frac{p-1}p\, n\beta$ |
#
# On paper, for a fast network ($\alpha = 1.5$ us, 50 GB/s, so $\beta = 0.02$ us per 1000 bytes) and 4 ranks. 1 kB: a message takes $1.5 + 0.02 = 1.52$ us, so recursive doubling $2 \cdot 1.52 = 3.04$ us,
# the ring $6\,(1.5 + 0.005) = 9.03$ us. 4 MB: $n\beta = 80$ us, so doubling $2 \cdot 81.5 = 163$ us, the ring $6\,(1.5 + 20) = 129$ us.
#
# `simulate` does not know these formulas: it runs the schedule's real messages and moves a clock for each.

# %%
link = LINKS["infiniband-ndr"]
for size in (1_000, 4_000_000):
    for name in ("recursive_doubling", "ring"):
        formula = allreduce_seconds(name, 4, size // 8, link)
        clock = simulate(lambda comm, n: comm.allreduce(np.ones(n)), 4, link, name, args=(size // 8,)).longest
        print(f"{size:9,} bytes, {name:18}: formula {1e6 * formula:7.2f} us, clock {1e6 * clock:7.2f} us")
        assert np.isclose(formula, clock, rtol=1e-6)

# %% [markdown]
# ## Short messages want few rounds
#
# Doubling sends everything in each of $\log_2 p$ rounds; Rabenseifner takes twice the rounds to send less. They cost the same at
#
# $$n^* = \frac{\log_2 p}{\log_2 p - 2 (p-1)/p} \cdot \frac\alpha\beta$$
#
# What does batch norm send? $2C + 1$ float64 for $C$ channels: 1 kB for 64 channels, 33 kB for 2048, the narrowest and the widest layer of ResNet-50. **Guess:** on which side of $n^*$ are they?


# %%
def crossover(ranks, link):
    lg = np.log2(ranks)
    return lg / (lg - 2 * (ranks - 1) / ranks) * link.alpha / link.beta


def message(channels):
    return 8 * (2 * channels + 1)


for kind in ("infiniband-ndr", "roce-25g"):
    print(
        f"16 ranks, {kind:14}: n* = {crossover(16, LINKS[kind]) / 1000:5.1f} kB; SyncBN sends {message(64) / 1000:.0f} to {message(2048) / 1000:.0f} kB"
    )


# %% tags=["hide-input"]
def draw_cost(ranks, *kinds):
    sizes = np.logspace(1.5, 8, 120)
    figure, axes = plt.subplots(1, len(kinds), sharey=True, squeeze=False, figsize=(3 + 4.8 * len(kinds), 4.2))
    for ax, kind in zip(axes[0], kinds, strict=True):
        link = LINKS[kind]
        ax.axvspan(message(64), message(2048), color="0.88", zorder=0)
        ax.axvline(crossover(ranks, link), color="black", linewidth=1, linestyle=":")
        for name in NAMES:
            times = [1e6 * allreduce_seconds(name, ranks, int(n // 8), link) for n in sizes]
            ax.plot(sizes, times, color=COLOUR[name], linestyle=DASHES[name], label=LABEL[name])
            for elements in (16, 129, 1025, 8193, 2**20 // ranks):
                clock = simulate(
                    lambda comm, n: comm.allreduce(np.ones(n)), ranks, link, name, args=(elements,)
                ).longest
                ax.plot(8 * elements, 1e6 * clock, "o", color=COLOUR[name], markersize=5)
                assert np.isclose(clock, allreduce_seconds(name, ranks, elements, link), rtol=1e-6)
        ax.set(xscale="log", yscale="log", xlabel="bytes of the array")
        best = crossover(ranks, link)
        which = "all" if best >= message(2048) else "some" if best >= message(64) else "none"
        ax.set_title(
            f"{kind}: doubling is best up to {best / 1000:.0f} kB,\nso for {which} of SyncBN's messages (grey)",
            fontsize=11,
        )
    axes[0, 0].set_ylabel("time (us)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=10)
    figure.suptitle(
        f"{ranks} ranks: few rounds for short arrays, few bytes for long ones\nlines: formulas; dots: messages on a clock",
        fontsize=12,
    )
    plt.show()


draw_cost(16, "infiniband-ndr", "roce-25g")

# %% [markdown] tags=["remove-cell"]
# Choose ranks and link: on which links does the grey band reach beyond $n^*$ (dotted)?

# %% tags=["remove-cell"]
interact(
    lambda ranks, kind: draw_cost(ranks, kind),
    ranks=widgets.SelectionSlider(options=[4, 8, 16, 32, 64], value=64, continuous_update=False),
    kind=widgets.Dropdown(options=list(LINKS), value="nvlink", description="link"),
)

# %% [markdown]
# On `infiniband-ndr` the whole grey band lies left of $n^*$; on `roce-25g` (25-gigabit Ethernet) only a part of it does. How much of doubling's time is latency? Its share is
# $\alpha / (\alpha + n\beta)$, for any number of ranks:

# %%
channels = np.array(resnet50())
print(f"{'':16}   64 channels   256   2048   all {len(channels)} layers of ResNet-50")
latency = {}
for kind, link in LINKS.items():
    parts = [link.alpha / link.seconds(message(c)) for c in (64, 256, 2048)]
    whole = sum(link.seconds(message(c)) for c in channels)
    latency[kind] = [*parts, len(channels) * link.alpha / whole]
    print(f"{kind:16} {parts[0]:11.1%} {parts[1]:7.1%} {parts[2]:6.1%} {latency[kind][3]:10.1%}")
print("median layer of ResNet-50:", int(np.median(channels)), "channels")

by_latency = [kind for kind in LINKS if latency[kind][2] > 0.5]
by_bytes = [kind for kind in LINKS if kind not in by_latency]
print(
    f"\n64 channels: latency is at least {min(parts[0] for parts in latency.values()):.0%} of the time on every link."
)
print(
    f"2048 channels: latency is more than half of the time on {', '.join(by_latency)}; less on {', '.join(by_bytes)}."
)
assert min(parts[0] for parts in latency.values()) > 0.85
assert by_bytes == ["roce-25g", "shared-memory"]
assert LINKS["tcp-25g"].beta == LINKS["roce-25g"].beta
assert LINKS["tcp-25g"].alpha > 5 * LINKS["roce-25g"].alpha

# %% [markdown]
# So "SyncBN is latency-bound" is a statement about a layer and a link. It holds for 64 channels on all five links, and for 2048 on three of them. Bandwidth alone does not decide: `tcp-25g` and `roce-25g` have the
# same, but a message through the kernel's TCP pays several times the latency, and so even the widest layer is bound by it there.
#
# With latency to pay in every round, the number of rounds is what counts as ranks are added. **What do you expect** for the ring at 128 ranks?

# %%
ELEMENTS, link = 2 * 256 + 1, LINKS["infiniband-ndr"]
slower = allreduce_seconds("ring", 128, ELEMENTS, link) / allreduce_seconds("recursive_doubling", 128, ELEMENTS, link)
print(f"256 channels on 128 ranks: the ring takes {slower:.1f} times as long as recursive doubling")
assert slower > 20

# %% tags=["hide-input"]
every, some = range(2, 129), (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
plt.figure(figsize=(9, 4.2))
for name in NAMES:
    times = [1e6 * allreduce_seconds(name, p, ELEMENTS, link) for p in every]
    plt.plot(every, times, color=COLOUR[name], linestyle=DASHES[name], label=LABEL[name])
    clocks = [simulate(lambda comm: comm.allreduce(np.ones(ELEMENTS)), p, link, name).longest for p in some]
    plt.plot(some, 1e6 * np.array(clocks), "o", color=COLOUR[name], markersize=5)
    assert np.allclose(clocks, [allreduce_seconds(name, p, ELEMENTS, link) for p in some], rtol=1e-6)
plt.xscale("log", base=2)
plt.yscale("log")
plt.xlabel("ranks")
plt.ylabel("time (us)")
plt.title(
    f"256 channels on 128 ranks: the ring takes {slower:.0f} times as long as recursive doubling\n"
    "infiniband-ndr; lines: formulas; dots: messages on a clock"
)
plt.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Ring and star grow with $p$, the others with $\log_2 p$. The steps are real: 9 ranks are no power of two, and the spare one must hand its array to a neighbour and wait, two rounds more.
#
# ## Order matters, a little
#
# On paper $(a + b) + c = a + (b + c)$. In float64 it does not hold: $(1 + 10^{16}) - 10^{16} = 0$, since $10^{16} + 1$ is no float64; but $1 + (10^{16} - 10^{16}) = 1$. The ring adds each piece in
# another order: piece $i$ starts at rank $i$. Three ranks bring $1$, $10^{16}$ and $-10^{16}$, each three times. **What do you expect** from the ring?

# %%
values = [1.0, 1e16, -1e16]
for name in ("star", "ring"):
    by_rank = launch(lambda comm, name=name: schedules.SCHEDULES[name](comm, np.full(3, values[comm.rank])), ranks=3)
    print(
        f"{name:5} rank 0: {by_rank[0]}   the same on all ranks: {all(np.array_equal(by_rank[0], other) for other in by_rank)}"
    )
assert list(by_rank[0]) == [0, 1, 0]

# %% [markdown]
# One question, asked three times in one vector, and two answers. With ordinary numbers it is the last digit that differs. Three things to tell apart: do the *ranks* agree? does a schedule *repeat* itself? do *schedules* agree?

# %%
data = np.random.default_rng(0).normal(size=(8, 1000))


def reduced(name, backend):
    return launch(lambda comm: schedules.SCHEDULES[name](comm, data[comm.rank]), ranks=8, backend=backend)


reference = reduced("star", "lockstep")[0]
print(f"{'':20} ranks agree   repeats   differs from star   largest difference")
for name in NAMES:
    first, again = reduced(name, "lockstep"), reduced(name, "threads")
    agree = all(np.array_equal(first[0], other) for other in first)
    repeats = np.array_equal(first, again)
    print(
        f"{name:20} {agree!s:11}   {repeats!s:7}   {np.mean(first[0] != reference):14.0%}   {np.abs(first[0] - reference).max():18.1e}"
    )
    assert agree
    assert repeats
    assert np.abs(first[0] - reference).max() < 1e-14

# %% [markdown]
# All ranks leave with the same bits: if they did not, replicas of a net would drift apart. Every schedule repeats its own bits, with threads as with lockstep ranks. But about half of the sums differ from
# another schedule's by rounding. No order is the right one; so compare across schedules with a tolerance, and within one bit for bit.
#
# ## When one rank does not take part
#
# An all-reduce needs everybody. The classic mistake is a branch on what a rank happens to hold. Elsewhere such a job may simply hang (PyTorch issue 44957 and Horovod issue 2241 are two of many). Here all ranks' calls are compared. **Before you look:** what would you want to be told?


# %%
def forgetful(comm):
    x = ROWS[comm.rank]
    if len(x) > 0:  # the mistake: rank 2 has no rows, and thinks that it need not come
        comm.allreduce(np.array([len(x), x.sum(), (x**2).sum()]))
    return comm.allreduce(np.array([1.0]))


try:
    launch(forgetful, ranks=3, backend="lockstep")
except CollectiveMismatchError as error:
    print(error)

# %% [markdown]
# The rank that differs, what each one asked for, and the line. The cure is `statistics` above: no branch, and a rank without rows brings zeros.
#
# Messages can go wrong in another way: everybody waits for a message that nobody has sent yet.


# %%
def polite(comm):
    came = comm.recv((comm.rank - 1) % comm.size)  # "after you": nobody ever sends
    comm.send(np.ones(1), (comm.rank + 1) % comm.size)
    return came


try:
    launch(polite, ranks=3, backend="lockstep")
except DeadlockError as error:
    print(error)

# %% [markdown]
# `comm.sendrecv(array, dest, source)` does both, and cannot deadlock like this.
#
# ## Summary
#
# - All ranks run one function; each knows its number, how many there are, and its own data.
# - An all-reduce brings the sum to everybody. It is made of messages, and there are several ways: few rounds (recursive doubling) or short messages (ring, Rabenseifner).
# - A message costs $\alpha + m\beta$. SyncBN's are short: narrow layers pay for rounds on every link here; what the widest pay for depends on the link.
# - Every schedule repeats its bits and gives all ranks the same; two schedules differ by rounding.
# - Every rank comes to every collective, with zeros if it has nothing.
#
# ## Exercises
#
# Write the functions. `check` runs them on several ranks and tells you what is wrong, not what is right. Solutions: `notebooks/solutions/`.
#
# **5.1** The mean of each channel over the rows of all ranks; `x` has shape (N, C), with another N on each rank; N may be 0.


# %%
def global_mean(comm, x):
    return None  # your code here


check("5.1", global_mean)

# %% [markdown]
# **5.2** The sum on every rank, as a star: all send to rank 0, which adds up and sends the sum to each. Use `comm.send` and `comm.recv` alone: `check` counts collective calls, and allows none.


# %%
def star(comm, array):
    return None  # your code here


check("5.2", star)

# %% [markdown]
# **5.3** The largest $|x|$ of each channel over all ranks (would it overflow in float16?). A rank may have no rows: let it bring
# the number that no magnitude is below (`np.max` of nothing stops with an error unless you give it `initial=`).


# %%
def largest(comm, x):
    return None  # your code here


check("5.3", largest)

# %% [markdown]
# **5.4** The sum on every rank, in a ring of whole arrays: pass on to the right what came from the left, and add it to your own sum. Use `comm.sendrecv(array, dest, source)`
# and no collective call.


# %%
def pass_around(comm, array):
    return None  # your code here


check("5.4", pass_around)

# %% [markdown]
# **5.5** The time of the ring of pieces for `size` bytes, with latency `alpha` (us) and `beta` (us per byte). Take it that the array can be cut evenly.


# %%
def ring_time(ranks, size, alpha, beta):
    return None  # your code here


check("5.5", ring_time)
