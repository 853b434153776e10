"""Ranks of one machine that look before they sleep: nobody sleeps through, nobody is woken for nothing, cores are given away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import run_mpi

START = """
import json, os, random, time
import numpy as np
from syncbn_sim.comm import launch
from syncbn_sim.comm.mpi import communicator, gate, pipes
communicator.crowd_one_machine = lambda comm: True
calls = {"wake": 0, "sleep": 0, "look": 0}
def count(name, what):
    def counted(*arguments):
        calls[name] += 1
        return what(*arguments)
    return counted
pipes.Pipes.wake, pipes.Pipes.sleep = count("wake", pipes.Pipes.wake), count("sleep", pipes.Pipes.sleep)
"""


def talk(ranks: int, body: str) -> list[Any]:
    """What main(comm) returns, by rank."""
    end = "\nresults = launch(main, checked=False)\nif results:\n    print(json.dumps(results))"
    done = run_mpi(ranks, "-c", START + body + end, SYNCBN_SIM_WATCHDOG="20")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_nobody_sleeps_through(ranks: int) -> None:
    """Thousands of meetings, ranks late by nothing, by about as long as others look, and by longer; between any two steps, too."""
    body = f"""
rounds, gate.SHORT_REST, gate.LONG_REST = {4000 // ranks}, 10**6, 10**6
def main(comm):
    rng = random.Random(comm.rank)
    def dawdle():
        if rng.random() < 0.1:
            end = time.perf_counter() + rng.choice((1e-6, 2e-5, 5e-5, 2e-4)) * rng.random()
            while time.perf_counter() < end:
                if rng.random() < 0.5:
                    os.sched_yield()
        elif rng.random() < 0.003:
            time.sleep(1e-3)
    the_gate = comm._shared._gate
    for name in ("_fence", "_are_there"):
        step = getattr(the_gate, name)
        setattr(the_gate, name, lambda step=step: (dawdle(), step(), dawdle())[1])
    slept, expected = [], np.arange(comm.size).sum()
    for gate.LOOKS in (0, 3, 100):
        before = calls["sleep"]
        for number in range(rounds):
            dawdle()
            assert comm.allreduce(np.full(1, comm.rank * number))[0] == number * expected
            if number % 7 == 0:
                comm.barrier()
        slept.append(calls["sleep"] > before)
    return slept
"""
    assert talk(ranks, body) == [[True] * 3] * ranks


def test_who_is_awake_is_not_woken() -> None:
    body = """
gate.LOOKS, gate.TAKEN = 10**9, 10**9
def main(comm):
    for _ in range(300):
        comm.allreduce(np.ones(1))
    return calls["wake"], calls["sleep"]
"""
    assert talk(4, body) == [[0, 0]] * 4


def test_a_rank_that_waits_long_gives_its_core_away() -> None:
    body = """
def main(comm):
    comm.barrier()
    start = time.process_time()
    if comm.rank == 1:
        time.sleep(1)
    comm.barrier()
    return time.process_time() - start
"""
    assert max(talk(3, body)) < 0.2


def test_where_cores_come_back_late_ranks_look_less_and_less() -> None:
    """Looks take 20 ms, as on cores with busy programs: all rest for 50 ms, 100, 100. After a long peace it is an exception: 50 again."""
    body = """
gate.SHORT_REST, gate.LONG_REST, gate.TAKEN = 50_000_000, 100_000_000, 15_000_000
late, looks = True, []
class Core:
    def sched_yield():
        looks.append(time.monotonic())
        time.sleep(0.02 * late)
gate.os = Core
def main(comm):
    global late
    def meet(seconds):
        looks.clear()
        end = time.monotonic() + seconds
        while comm.allreduce(np.array([end - time.monotonic()]), "min")[0] > 0:
            if comm.rank == 1:
                time.sleep(2e-3)
        return len(looks)
    meet(0.9)
    gaps = np.diff(looks)
    late = False
    time.sleep(1.2)
    often = meet(0.2)
    late = True
    meet(0.03)
    late = False
    time.sleep(0.04)
    return gaps.tolist(), often, meet(0.03)
"""
    gaps, often, again = talk(2, body)[0]
    assert len(gaps) > 2
    assert all(a >= b for a, b in zip(gaps, [0.05, *[0.1] * len(gaps)], strict=False)), gaps
    assert often > 10
    assert again > 0
