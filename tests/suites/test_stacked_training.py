"""Stacked ranks train what lockstep ranks train: weights, statistics by rank, metrics."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from suites import stacked

from syncbn_sim.comm import launch


@functools.cache
def by_themselves(case: tuple[str, str, str]) -> list[dict]:
    """On lockstep ranks."""
    return launch(stacked.trained, stacked.RANKS, "lockstep", args=case)


@pytest.mark.parametrize("case", stacked.CASES, ids="-".join)
def test_fifty_steps_equal_those_of_ranks_that_run_by_themselves(case: tuple[str, str, str]) -> None:
    stacked.compare(launch(stacked.trained, stacked.RANKS, "stacked", args=case)[0], by_themselves(case))


@pytest.mark.parametrize("case", stacked.CASES[::5], ids="-".join)
def test_same_seed_same_bits(case: tuple[str, str, str]) -> None:
    first, again = (launch(stacked.trained, stacked.RANKS, "stacked", args=case)[0] for _ in range(2))
    for name, found in first.items():
        np.testing.assert_array_equal(found, again[name])
