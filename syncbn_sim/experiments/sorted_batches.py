"""What does sorting the data cost a net with local batch normalisation, and how much of it does synchronising win back?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..comm.base import Communicator
from ..data.dataset import share
from ..data.own_log import FILES as OWN_FILES
from ..data.own_log import LogOptions, Source
from ..diagnostics.inspection import inspection_table
from ..errors import ArgumentError
from ..report.numbers import estimated
from ..report.progress import SILENT, OnStep, Progress
from ..stats.estimates import Estimate
from .arms import ARMS, Arm
from .arms_figure import order_gap
from .arms_table import condition, table
from .experiment import Experiment
from .memory import memory_in_words
from .metrics import METRICS
from .norms import NORMS
from .result import Result
from .summarise import how_alike, summarise
from .tasks import TASKS, Task, own_task
from .training import Recipe, Trained, Training

# Fixed beforehand: an interval inside +-0.5 points is no effect; one that merely covers 0 says nothing.
NO_EFFECT = 0.005
BOTH = "both"


@dataclass(frozen=True)
class Config(Recipe):
    """What to train.

    Attributes:
        task: digits, requests, both, or a file of your own (.csv, .tsv, .parquet, .ndjson, .npz). digits: scikit-learn's
            handwritten digits, sorted by class. requests: a synthetic click log, sorted by user, judged on users it never saw.
        arms: which order+norm pairs to compare, separated by commas or spaces; orders and norms are explained above.
        log: how a file of your own is read.
    """

    task: str = "digits"
    arms: tuple[str, ...] = ARMS
    log: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS and self.task != BOTH and not self.own:
            expected = f"{', '.join(TASKS)}, {BOTH}, or a file ({', '.join(OWN_FILES)})"
            raise ArgumentError("task", got=repr(self.task), expected=expected, do="See --help.")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            do = f"Leave it out for all {len(ARMS)}."
            raise ArgumentError("arms", got=self.arms, expected="one arm or more, each once", do=do)
        if not self.own and self.log != LogOptions():
            expected = "a file, where --entity, --label and the like are given"
            do = "Leave them out, or name the file: --task my.csv."
            raise ArgumentError("task", got=f"{self.task!r} with options of a log", expected=expected, do=do)
        arms = [Arm.parse(arm) for arm in self.arms]
        if self.rows == 1 and any(arm.kind.drifts for arm in arms):
            do = "One row has no variance: leave the local arms out with --arms."
            raise ArgumentError("rows", got=1, expected="at least 2 for an arm with local statistics", do=do)

    @property
    def own(self) -> bool:
        """Whether the task is a file of the user's."""
        return self.task.endswith(OWN_FILES)

    def source(self) -> Source:
        """That file, and how to read it.

        Raises:
            ArgumentError: its options do not fit it.
        """
        source = Source(self.task, **vars(self.log))
        if not self.task.endswith(".npz") and not source.label:
            raise ArgumentError("label", got="none", expected="the column to predict", do="For example --label click.")
        return source


def parts(config: Config) -> list[Config]:
    """One run per task."""
    if config.own:
        config.source()
    return [replace(config, task=name) for name in TASKS] if config.task == BOTH else [config]


def run(comm: Communicator, config: Config, progress: Progress = SILENT, task: Task | None = None) -> Result:
    """Trains every arm for every seed on the ranks of `comm`, and summarises. Same result on every rank but for the times.

    Args:
        comm: the ranks.
        config: what to train; one task.
        progress: what is told meanwhile.
        task: default: the one that `config` names. For a user's own log: what `own_task` returned.

    Raises:
        DataError: the training set has fewer rows than one step of all ranks needs.
    """
    if config.task == BOTH:
        raise ArgumentError("task", got=repr(BOTH), expected="one task per run", do="`parts` makes one config of each.")
    task = task or (_own(comm, config, progress) if config.own else TASKS[config.task])
    start = time.perf_counter()
    rows = config.rows or task.rows
    if memory := memory_in_words(task, comm, rows, config.dtype):
        progress.say(memory)
    runs: dict[str, list[Trained]] = {arm: [] for arm in config.arms}
    factors = {"arms": len(config.arms), "seeds": config.seeds}
    with progress.steps(config.task, factors, fewer="--arms, --seeds, --epochs") as on_step:
        for seed in range(config.seeds):
            split = share(partial(task.split, comm.size, rows, seed, config.dtype), comm)
            if seed == 0:
                config = replace(config, rows=rows, epochs=config.epochs_on(len(split.train), task, comm.size))
                found = how_alike(task, split.train, config.arms, comm.size, rows) if comm.rank == 0 else None
                alike = comm.holders.bcast(found)
            for arm in config.arms:
                show = partial(_show, on_step, sum(map(len, runs.values())), len(config.arms) * config.seeds, arm)
                runs[arm].append(Training(comm, task, config, Arm.parse(arm), split, seed).run(show))
            del split  # before the next one is made
    kept = {name: value for name, value in vars(config).items() if config.own or name != "log"}
    return summarise(comm, task, kept, runs, alike, time.perf_counter() - start)


def _show(on_step: OnStep, runs_done: int, runs: int, arm: str, step: int, steps: int) -> None:
    on_step(runs_done * steps + step, runs * steps, arm)


def _own(comm: Communicator, config: Config, progress: Progress) -> Task:
    """Reads a user's own log on rank 0, and says what is in it."""
    source = config.source()
    with progress.reading(source.path) as on_bytes:
        task = own_task(comm, source, config.rows, on_bytes)
    if task.log and task.inspection:
        progress.say("\n".join([*task.log.notes, "", inspection_table(task.inspection)]))
    return task


def conclusion(result: Result) -> str:
    """The finding in plain words, with the side on which SyncBN does not help."""
    metric = METRICS[result.metric]
    name = metric.heading.removesuffix(" %")

    def level(arm: str) -> str:
        return f"{metric.factor * result.arms[arm][result.metric].mean:.{metric.decimals}f} %"

    if any(math.isnan(each.mean) for found in result.arms.values() for each in found.values()):
        return "At least one arm has diverged (nan): try a smaller --lr before comparing."
    if not {"iid+local", "sorted+local", "sorted+sync"} <= set(result.arms):
        best = max(result.arms, key=lambda arm: result.arms[arm][result.metric].mean)
        return (
            f"Of the arms that ran, {best} reaches the best {name}, {level(best)}; "
            "the comparison needs iid+local, sorted+local and sorted+sync."
        )
    if result.ranks == 1:
        return "One rank has nobody to synchronise with, so local and sync are the same: start more with --ranks."
    change = result.differences["sorted+local"]
    low, high = change.interval or (change.mean, change.mean)
    if high >= 0 or low > -NO_EFFECT:
        return _no_clear_loss(result, change, level)
    text = (
        f"Sorted by {result.sorted_by}{_worst_case(result)}, local batch norm falls from {level('iid+local')} to {level('sorted+local')} "
        f"{name}; synchronised over {result.ranks} ranks it reaches {level('sorted+sync')}"
    )
    if result.recovery:
        back = estimated(result.recovery, 100, unit=" %")
        text += f". SyncBN on shuffled data reaches {level('iid+sync')}: so it wins back {back} of the way there"
    text += "."
    cost = result.order_cost_without_norm
    if cost and cost.interval and cost.interval[0] > 0:
        text += (
            f" A net without normalisation loses {estimated(cost, 100, 2)} points to the same order: "
            f"that loss is not batch norm's, and synchronising is no cure for it. That is {condition(result)}: "
            "at another rate the loss can be smaller, and the ranking of the arms another."
        )
    return text if change.interval else f"{text} (One seed: no interval, so no claim.)"


def _worst_case(result: Result) -> str:
    behind = result.behind["sorted+local"]
    alone = behind.rows > 1 and behind.cluster_size > 0.9 * behind.rows
    return f" (a worst case: nearly every local batch is of one {result.sorted_by})" if alone else ""


def _no_clear_loss(result: Result, change: Estimate, level: Callable[[str], str]) -> str:
    compared = (
        f"Sorted by {result.sorted_by}, local batch norm reaches {level('sorted+local')}, against {level('iid+local')} "
        f"on shuffled {result.rows_are}: a difference of {estimated(change, 100, 2, plus=True)} points"
    )
    if change.interval and change.interval[0] > -NO_EFFECT and change.interval[1] < NO_EFFECT:
        near = f"within +-{100 * NO_EFFECT:g}"
        return f"{compared}, {near}: sorting is not your problem, and SyncBN has nothing to repair."
    if change.interval and change.interval[0] > 0:
        return f"{compared}. On these seeds sorting does not hurt, it helps: SyncBN has nothing to repair."
    return f"{compared}. These seeds cannot tell whether sorting hurts: use more --seeds."


_MEANINGS = "".join(f"\n    {name:10}{norm.about}" for name, norm in NORMS.items())
EXPERIMENT = Experiment(
    name="sorted_batches",
    question="What does sorting the data cost a net with local batch norm, and how much of it does SyncBN win back?",
    Config=Config,
    run=run,
    table=table,
    figure=order_gap,
    conclusion=conclusion,
    details=(
        "Trains one small net per arm and seed, data-parallel over the ranks, and prints a table for each task, then one sentence.\n\n"
        f"An arm is order+norm, such as sorted+sync. Orders: iid (shuffled), sorted. Norms:{_MEANINGS}"
    ),
    default=Config(task=BOTH),
    parts=parts,
    title=lambda config: Path(config.task).stem,
    stackable=True,
)
