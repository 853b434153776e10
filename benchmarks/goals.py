"""What must hold: floors and aims, and which measured ratios they are held against."""

from __future__ import annotations

from dataclasses import dataclass

from .timing import Spread


@dataclass(frozen=True)
class Goal:
    """A number that should be at most `aim`, and has to be at most `floor` (None: only an aim)."""

    key: str
    name: str
    floor: float | None
    aim: float
    unit: str = ""


GOALS = (
    Goal("planes/native", "NCHW forward + backward / torch native", 1.0, 0.75),
    Goal("rows/native", "(4096,256) and channels-last / torch native", 1.4, 1.1),
    Goal("(256,128)/native", "(256,128) / torch native", 1.25, 1.05),
    Goal("(4,16)/native", "(4,16) / torch native", 0.9, 0.8),
    Goal("(4,16)/autograd", "(4,16) / torch autograd", 0.25, 0.2),
    Goal("textbook", "every shape / textbook NumPy", 0.5, 0.33),
    Goal("jax", "large arrays / jax.jit", 0.8, 0.7),
    Goal("roofline", "above 4 MiB / copy roofline", 3.5, 2.5),
    Goal("half", "2 MPI ranks x half batch / torch 2 threads, NCHW", 1.0, 0.8),
    Goal("accuracy", "y and weight gradient, error in float32, mean/sd up to 1e4", 1e-6, 1e-6),
    Goal("digits/torch", "digits MLP training step, 1 rank / torch eager 1 thread", 1.0, 0.6),
    Goal("heavy", "steps of at least 5 ms compute per rank, 8 ranks / their compute over the cores", 1.6, 1.3),
    Goal("digits/raw", "digits step, 8 ranks / the same script with raw MPI.Allreduce", 1.3, 1.1),
    Goal("crowded/raw", "comm.allreduce / raw MPI, two ranks per idle core, up to 8 KiB", 2.0, 1.3),
    Goal("threads", "an all-reduce of 1 KiB between 8 threads", None, 150, "us"),
)


@dataclass(frozen=True)
class Measured:
    """One number for a goal, and what it was measured on."""

    key: str
    where: str
    value: Spread


def table(measured: list[Measured]) -> list[str]:
    """A Markdown table: for each goal the case that comes out worst, and how many of its cases keep to it."""
    lines = [
        "| | floor | aim | worst case: median (quartiles) | where | floor | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for goal in GOALS:
        cases = [m for m in measured if m.key == goal.key]
        floor = "" if goal.floor is None else f"{goal.floor:g} {goal.unit}".strip()
        limits = f"| {goal.name} | {floor} | {goal.aim:g} {goal.unit}".rstrip()
        if not cases:
            lines.append(f"{limits} | not measured | | | |")
            continue
        worst = max(cases, key=lambda m: m.value.median)
        unit = f" {goal.unit}" if goal.unit else ""
        lines.append(
            f"{limits} | {worst.value}{unit} | {worst.where} | {_kept(cases, goal.floor)} | {_kept(cases, goal.aim)} |"
        )
    return lines


def _kept(cases: list[Measured], limit: float | None) -> str:
    if limit is None:
        return ""
    kept = sum(m.value.median <= limit for m in cases)
    if len(cases) == 1:
        return "met" if kept else "**missed**"
    return f"met by all {kept}" if kept == len(cases) else f"**missed** by {len(cases) - kept} of {len(cases)}"
