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
rounds, gate.REST = {4000 // ranks}, 1
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


def test_where_a_core_comes_back_late_no_rank_looks_again() -> None:
    """One look that takes 5 ms, as on a core with a busy program, then none on any rank for 300 times as long, then one."""
    body = """
class Busy:
    def sched_yield():
        calls["look"] += 1
        time.sleep(5e-3)
gate.os = Busy
def main(comm):
    looks = []
    for rest in (1, 2, 0):
        for number in range(10):
            time.sleep(2e-3 * (number % comm.size == comm.rank))
            comm.barrier()
        looks.append(int(comm.allreduce(np.array([calls["look"]]))[0]))
        time.sleep(rest)
    return looks
"""
    first, second, third = talk(3, body)[0]
    assert 1 <= first <= 3  # all that looked when nobody had told yet
    assert second == first < third <= first + 3
