"""What must hold: floors and aims, and which measured ratios they are held against."""

from __future__ import annotations

from dataclasses import dataclass

from .timing import Spread


@dataclass(frozen=True)
class Goal:
    """A number that should be at most `aim`, and has to be at most `floor` (None: no aim beyond it)."""

    key: str
    name: str
    floor: float
    aim: float | None


GOALS = (
    Goal("large/native", "BatchNorm / torch native: NCHW of 1 MiB and more; channels last", 0.7, 0.5),
    Goal("(4096,256)/native", "BatchNorm / torch native: (4096,256)", 1.0, 0.8),
    Goal("middle/native", "BatchNorm / torch native: (256,128) and (64,1024)", 0.8, 0.5),
    Goal("small/native", "BatchNorm / torch native: (4,16) and (2,16,8,8)", 1.3, 0.8),
    Goal("small/autograd", "BatchNorm / torch autograd: (4,16) and (2,16,8,8)", 0.25, 0.15),
    Goal("loops", "BatchNorm / its loops: (4,16)", 8.0, None),
    Goal("norms/native", "GroupNorm, LayerNorm, InstanceNorm / torch native", 1.0, 0.7),
    Goal("jax", "every shape / jax.jit", 0.8, 0.5),
    Goal("roofline", "above 4 MiB / copy roofline", 2.2, 1.8),
    Goal("half", "2 MPI ranks x half batch / torch 2 threads, large NCHW", 0.9, 0.6),
    Goal("accuracy", "y and weight gradient, error in float32, mean/sd up to 1e4", 1e-6, 1e-6),
    Goal("digits/torch", "digits training step, 1 rank / torch eager", 0.5, 0.4),
    Goal("digits/jax", "digits training step, 1 rank / jax.jit", 1.5, 1.0),
    Goal("8x4", "training step, 8 stacked ranks x 4 rows / JAX vmap + jit", 1.5, 1.0),
    Goal("32x32", "training step, 32 stacked ranks x 32 rows / JAX vmap + jit", 1.0, 0.7),
    Goal("128x4", "training step, 128 stacked ranks x 4 rows / JAX vmap + jit", 1.0, 0.7),
    Goal("1024x4", "training step, 1024 stacked ranks x 4 rows / JAX vmap + jit", 0.7, 0.4),
    Goal("lockstep", "training step, 128 ranks: stacked / lockstep", 0.05, 0.02),
    Goal("crowded/raw", "comm.allreduce / raw MPI, two ranks per idle core, up to 8 KiB", 2.0, 1.3),
    Goal("start", "seconds that a process pays for compiled loops, warm cache", 0.6, None),
    Goal("growth", "growth in rows, channels, layers, ranks: exponent", 1.05, None),
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
        limits = f"| {goal.name} | {goal.floor:g} | {'' if goal.aim is None else f'{goal.aim:g}'}"
        if not cases:
            lines.append(f"{limits} | not measured | | | |")
            continue
        worst = max(cases, key=lambda m: m.value.median)
        lines.append(
            f"{limits} | {worst.value} | {worst.where} | {_kept(cases, goal.floor)} | {_kept(cases, goal.aim)} |"
        )
    return lines


def _kept(cases: list[Measured], limit: float | None) -> str:
    if limit is None:
        return ""
    kept = sum(m.value.median <= limit for m in cases)
    if len(cases) == 1:
        return "met" if kept else "**missed**"
    return f"met by all {kept}" if kept == len(cases) else f"**missed** by {len(cases) - kept} of {len(cases)}"
