"""`make animation`: ranks' distributions under local and synchronised batch norm, and what becomes of the accuracy.

Everything drawn is computed here: the activations of a hidden unit of the digits net, and the test accuracy while training it,
sorted by class on 8 ranks with 4 images each, with local and with synchronised batch norm (mean of five seeds).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import gaussian_kde

from syncbn_sim import data, nn, optim, train
from syncbn_sim.comm import Communicator, launch
from syncbn_sim.data.orders import ORDERS
from syncbn_sim.experiments.norms import COLOURS, NORMS
from syncbn_sim.experiments.tasks import DIGITS, mlp
from syncbn_sim.functional import batch_norm as F

OUT = Path(__file__).parent / "_static" / "syncbn.gif"
RANKS, ROWS, SEEDS, EVERY = 8, 4, 5, 6
STEPS = 240
GRID = np.linspace(-3.6, 3.6, 300)
RANK_COLOURS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#d9c514"]


@dataclass(frozen=True)
class Scene:
    """What one frame shows: how far each movement has come (0 to 1), the curves' length, and the words."""

    words: str
    seconds: float = 0.07
    local: float = 0.0  # each rank moved to its own mean
    merged: float = 0.0  # the ranks' means have run together into one
    sync: float = 0.0  # all ranks moved by the common mean
    curves: tuple[float, float] = (0.0, 0.0)  # local, sync


def accuracies(comm: Communicator, arm: str, seed: int) -> list[float]:
    """Test accuracy every few steps of a net trained on digits."""
    order, norm = arm.split("+")
    split = data.split_digits(*data.load_digits(), seed)
    model = mlp(64, 10, lambda width: NORMS[norm].build(width, DIGITS.momentum, "float32", comm), seed, "float32")
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=3e-3)
    mine = split.test.take(slice(comm.rank, None, comm.size))
    batches = data.epochs(ORDERS[order], split.train.entity, comm.rank, comm.size, ROWS, 100, [seed, 4], drop_last=True)

    def judged() -> float:
        joined = train.with_averaged_statistics(model, comm, 1.0)
        return train.accuracy(train.predict(joined, mine.x), mine.y, comm)

    found, training = (
        [judged()],
        train.fit(
            model,
            loss,
            optimizer,
            comm,
            split.train.x,
            split.train.y,
            islice(batches, STEPS),
            optim.linear_decay(STEPS),
        ),
    )
    for done, _ in training:
        if done % EVERY == 0:
            found.append(judged())
    return found


def activations() -> list[np.ndarray]:
    """For each of the 8 ranks, the values of one hidden unit on the class it reads: the unit in which most classes lie apart."""
    digits = data.split_digits(*data.load_digits(), 0).train
    first = next(mlp(64, 10, lambda width: None, 0, "float64").named_children())[1]
    parts = [first(digits.x[digits.y == c].astype(np.float64)) for c in range(RANKS)]
    everything = F.local_moments(np.concatenate(parts))
    means = np.array([part.mean(0) for part in parts]) / np.sqrt(everything.var())
    # Half a standard deviation is apart enough.
    apart = np.minimum(np.abs(means[:, None] - means), 0.5).sum(axis=(0, 1))
    unit = apart.argmax()
    return [part[:, unit] / np.sqrt(everything.var()[unit]) for part in parts]


def scenes(local_end: float, sync_end: float) -> list[Scene]:
    """The story, frame by frame; it is shown again and again."""
    ease = (1 - np.cos(np.pi * np.linspace(0, 1, 13)[1:])) / 2
    apart = "8 processes (ranks) train together,\neach reads images of one digit"
    own = "Local batch norm: each rank\nsubtracts its own mean"
    gone = "What told the digits apart\nis gone"
    failed = f"{gone}: {local_end:.0f} % accuracy"
    reduce = "SyncBN: the ranks add up\ntheir sums (an all-reduce)"
    common = "One mean for all:\nthe digits stay apart"
    back = f"One mean for all:\n{sync_end:.0f} % accuracy"
    # The end comes first: whoever sees no movement (a reduced-motion setting, a printout) then sees it complete.
    story = [Scene(back, 3.5, merged=1, sync=1, curves=(1, 1)), Scene(apart, 1.6)]
    story += [Scene(own, local=t) for t in ease]
    story += [Scene(gone, local=1, curves=(t, 0)) for t in np.linspace(0, 1, 14)[1:]]
    story += [Scene(failed, 1.8, local=1, curves=(1, 0))]
    story += [Scene(reduce, local=1 - t, curves=(1, 0)) for t in ease[2::3]]
    story += [Scene(reduce, 0.5, curves=(1, 0))]
    story += [Scene(reduce, merged=t, curves=(1, 0)) for t in ease]
    story += [Scene(reduce, 0.6, merged=1, curves=(1, 0))]
    story += [Scene(common, merged=1, sync=t, curves=(1, 0)) for t in ease]
    story += [Scene(common, merged=1, sync=1, curves=(1, t)) for t in np.linspace(0, 1, 18)[1:]]
    return story


def draw(scene: Scene, values: list[np.ndarray], curves: dict[str, np.ndarray]) -> Image.Image:
    """One frame."""
    figure = Figure(figsize=(8, 4.2), dpi=100, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _ridges(left, scene, values)
    steps = EVERY * np.arange(len(curves["local"]))
    for norm, share, name in (("local", scene.curves[0], "local"), ("sync", scene.curves[1], "SyncBN")):
        shown = round(share * (len(steps) - 1)) + 1
        if share:
            right.plot(steps[:shown], curves[norm][:shown], color=COLOURS[norm], linewidth=4)
            at = curves[norm][shown - 1]
            right.text(
                steps[shown - 1],
                at + (4 if norm == "local" else -20),
                name,
                color=COLOURS[norm],
                fontsize=15,
                weight="bold",
                ha="right" if shown > 8 else "left",
            )
    right.axhline(curves["shuffled"][-1], color="#555555", linewidth=1.5, linestyle="--", zorder=0)
    right.text(60, curves["shuffled"][-1] - 7, "shuffled data, local", color="#555555", fontsize=12)
    right.set(xlim=(0, STEPS), ylim=(0, 103), xlabel="training steps")
    right.set_title("test accuracy (%)", fontsize=15)
    right.set_xticks([0, 100, 200])
    for ax in (left, right):
        ax.tick_params(labelsize=12)
        ax.xaxis.label.set_size(13)
        ax.spines[["top", "right"]].set_visible(False)
    right.grid(alpha=0.25)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def _ridges(ax, scene: Scene, values: list[np.ndarray]) -> None:
    everything = np.concatenate(values)
    mean, sd = everything.mean(), everything.std()
    tallest = max(gaussian_kde(own)(GRID).max() for own in values)
    for rank, (own, colour) in enumerate(zip(values, RANK_COLOURS, strict=True)):
        own_mean, own_sd = own.mean(), own.std()
        moved = own + scene.local * ((own - own_mean) / own_sd - own) + scene.sync * ((own - mean) / sd - own)
        base, height = RANKS - 1 - rank, 1.35 * gaussian_kde(moved)(GRID) / tallest
        ax.fill_between(GRID, base, base + height, color=colour, alpha=0.75, linewidth=0, zorder=2 * rank)
        ax.plot(GRID, base + height, color="white", linewidth=1, zorder=2 * rank)
        used = own_mean + scene.merged * (mean - own_mean)  # the mean that this rank will subtract
        at = used * (1 - scene.sync) if scene.local == 0 else own_mean * (1 - scene.local)
        reach = 0.75 + scene.merged * 0.27
        ax.plot([at, at], [base, base + reach], color="black", linewidth=3, zorder=100, solid_capstyle="butt")
    ax.set(xlim=(GRID[0], GRID[-1]), ylim=(-0.1, RANKS + 0.45), xlabel="output of a hidden unit; bar: the mean")
    ax.set_yticks(np.arange(RANKS) + 0.3, [f"rank {r}" for r in reversed(range(RANKS))])
    pixels, labels = data.load_digits()
    for rank in range(RANKS):
        picture = ax.inset_axes((GRID[-1] - 0.75, RANKS - 1 - rank + 0.08, 0.7, 0.85), transform=ax.transData)
        picture.imshow(pixels[labels == rank][0].reshape(8, 8), cmap="gray_r", aspect="auto")
        picture.axis("off")
    ax.set_title(scene.words, fontsize=15, loc="left")
    ax.tick_params(axis="y", length=0)


def main() -> None:
    """Trains, draws, and writes the GIF."""
    arms = {"local": "sorted+local", "sync": "sorted+sync", "shuffled": "iid+local"}
    curves = {
        name: 100
        * np.mean([launch(accuracies, RANKS, "lockstep", args=(arm, seed))[0] for seed in range(SEEDS)], axis=0)
        for name, arm in arms.items()
    }
    story = scenes(curves["local"][-1], curves["sync"][-1])
    values = activations()
    frames = [draw(scene, values, curves) for scene in story]
    palette = frames[0].quantize(64)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    milliseconds = [round(1000 * scene.seconds) for scene in story]
    small[0].save(OUT, save_all=True, append_images=small[1:], duration=milliseconds, loop=0, optimize=True)
    print(f"{OUT.name}: {len(frames)} frames, {sum(milliseconds) / 1000:.1f} s, {OUT.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
