"""Virtual time against closed forms, stragglers, and published latencies."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, run, run_mpi
from scipy.optimize import nnls

from syncbn_sim import nn, optim, train
from syncbn_sim.cli import main
from syncbn_sim.cluster import LINKS, Link, Topology, allreduce_seconds, link_named, simulate, virtual_time
from syncbn_sim.cluster.closed_forms import allgather_seconds, fit
from syncbn_sim.cluster.links import log_normal_stragglers, one_slow_node, parse_topology
from syncbn_sim.cluster.measure import RANGES, _fitted, link_for
from syncbn_sim.cluster.networks import NETWORKS
from syncbn_sim.cluster.step_cost import step_cost, where_all_gather_loses
from syncbn_sim.comm.schedules import SCHEDULES
from syncbn_sim.errors import ArgumentError


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 6, 7, 8, 11, 16, 31, 32, 64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_virtual_time_is_the_closed_form(name: str, ranks: int) -> None:
    for link in (LINKS["roce-25g"], Link(1.0, 0.0, "rounds"), Link(0.0, 1.0, "bytes")):
        for elements in (ranks * 64, 257):
            if name in ("ring", "rabenseifner") and elements == 257:
                continue  # uneven pieces: a bound, see below
            elapsed = simulate(lambda comm, n=elements: comm.allreduce(np.ones(n)), ranks, link, name)
            assert elapsed.longest == pytest.approx(allreduce_seconds(name, ranks, elements, link), rel=1e-9)
            assert all((r == ranks).all() for r in elapsed.results)


@pytest.mark.parametrize("name", ["ring", "rabenseifner"])
def test_uneven_pieces_take_at_most_the_closed_form(name: str) -> None:
    for ranks in (3, 5, 8, 12):
        elapsed = simulate(lambda comm: comm.allreduce(np.ones(257)), ranks, LINKS["roce-25g"], name)
        bound = allreduce_seconds(name, ranks, 257, LINKS["roce-25g"])
        assert 0.97 * bound < elapsed.longest <= bound * (1 + 1e-9)


def training_step(comm):
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.SyncBatchNorm(8, comm=comm), nn.ReLU(), nn.Linear(8, 2))
    comm.work(1e-3)
    x = np.random.default_rng(comm.rank).normal(size=(4, 6)).astype(np.float32)
    return train.step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1), comm, x, np.zeros(4, int))


def test_unmodified_training_step_and_one_slow_node() -> None:
    link = LINKS["tcp-25g"]
    even = simulate(training_step, 8, link)
    parameters = 6 * 8 + 8 + 8 + 8 * 2 + 2
    talk = sum(allreduce_seconds("recursive_doubling", 8, n, link) for n in (17, 16, parameters + 2))
    assert even.longest == pytest.approx(1e-3 + talk, rel=1e-9)
    assert max(even.waited) == pytest.approx(0, abs=1e-12)
    layer = sum(allreduce_seconds("recursive_doubling", 8, n, link) for n in (17, 16))
    assert even.share("sync_batch_norm") == pytest.approx(layer / (1e-3 + talk), rel=1e-9)
    assert even.share("step") == pytest.approx((talk - layer) / (1e-3 + talk), rel=1e-9)
    slow = simulate(training_step, 8, link, slowness=[1, 1, 1, 3, 1, 1, 1, 1])
    assert slow.longest == pytest.approx(3e-3 + talk, rel=1e-9)
    assert slow.waited[3] == pytest.approx(0, abs=1e-12)
    assert min(w for r, w in enumerate(slow.waited) if r != 3) == pytest.approx(2e-3, rel=1e-9)
    assert slow.results == even.results


def test_unequal_messages_by_hand() -> None:
    """A second per message and one per number: rank 0 sends nine at once, rank 1 two, five seconds late."""

    def talk(comm):
        comm.work(5.0 * comm.rank)
        comm.sendrecv(np.ones(2 if comm.rank else 9), 1 - comm.rank, 1 - comm.rank)

    swapped = simulate(talk, 2, Link(1.0, 1 / 8, ""))
    assert swapped.waited == [5, 0]
    assert swapped.seconds == [10, 15]  # rank 0 is done with receiving at 8, but still sends


@pytest.mark.parametrize("apart", ["by tag", "by group"])
def test_messages_taken_in_another_order_than_they_came(apart: str) -> None:
    """Each has its own time of arrival, 10 and 12; a receive lasts as long as its message."""

    def talk(comm):
        one, other, tag = (comm, comm.split(0), 0) if apart == "by group" else (comm, comm, 1)
        if comm.rank == 0:
            one.send(np.ones(9), 1)
            other.send(np.ones(1), 1, tag)
            return None
        return [(other.recv(0, tag).size, comm.clock.now), (one.recv(0).size, comm.clock.now)]

    assert simulate(talk, 2, Link(1.0, 1 / 8, "")).results[1] == [(1, 12), (9, 22)]


def test_a_group_s_talk_takes_its_time() -> None:
    """Even and odd ranks of two nodes of four: one step inside a node, and one across."""
    nodes = Topology(((4, Link(1.0, 0, "in")), (8, Link(10.0, 0, "out"))))

    def talk(comm):
        comm.work(float(comm.rank == 1))
        group = comm.split(comm.rank % 2)
        group.split(0).allreduce(np.ones(3))
        return float(group.allreduce(np.ones(3))[0])

    elapsed = simulate(talk, 8, nodes)
    assert elapsed.results == [4] * 8
    assert elapsed.seconds == [22, 23] * 4
    assert elapsed.waited == [0, 0, 0, 1, 0, 1, 0, 1]
    assert elapsed.share("test_cluster") == (4 * 22 + 22 + 3 * 23) / 180


def test_published_ring_latencies_from_two_constants() -> None:
    """DGX-A100, nccl-tests issue 123: within 10 % for 2 to 8 GPUs."""
    measured = [10, 13.76, 16.88, 20.8, 25.2, 29.5, 33.7]
    ranks = list(range(2, 9))
    base, step = fit(ranks, measured)
    left = np.array([(base + step * 2 * (p - 1)) / t - 1 for p, t in zip(ranks, measured, strict=True)]) / measured
    np.testing.assert_allclose([left.sum(), left @ ranks], 0, atol=1e-9)  # no relative error is smaller
    for p, t in zip(ranks, measured, strict=True):
        assert base + step * 2 * (p - 1) == pytest.approx(t, rel=0.1)
        one_call = step_cost([1], p, LINKS["nvlink"]).seconds / 2  # of a layer of one channel: 24 bytes, then 16
        assert 1e6 * one_call == pytest.approx(t, rel=0.1)  # the preset too: base and a ring, not alpha alone
    resnet = step_cost(NETWORKS["resnet50"], 8, LINKS["nvlink"])
    assert 1e3 * resnet.seconds == pytest.approx(106 * 33.7e-3, rel=0.1)


@pytest.fixture
def link_of_the_page(tmp_path: Path) -> Iterator[str]:
    """A link out of docs/howto/new_link.md, from a file of its own."""
    page = (ROOT / "docs/howto/new_link.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "LINKS[" in block]
    (tmp_path / "link.py").write_text(block)
    before = dict(LINKS)
    runpy.run_path(str(tmp_path / "link.py"))
    (name,) = LINKS.keys() - before.keys()
    yield name
    LINKS.clear()
    LINKS.update(before)


def test_a_new_link_is_a_row(
    link_of_the_page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then both commands take it, alone and in a topology."""

    def said(command: str) -> str:
        options = f"{command} --devices 64 --model mlp --compute-ms 1 --link {link_of_the_page}"
        monkeypatch.setattr(sys, "argv", ["syncbn-sim", *options.split()])
        main()
        return capsys.readouterr().out

    link = LINKS[link_of_the_page]
    by_hand = sum(6 * (2 * link.alpha + 8 * (4 * c + 1) * link.beta) for c in NETWORKS["mlp"])  # doubling, lg 64 = 6
    assert step_cost(NETWORKS["mlp"], 64, link).seconds == pytest.approx(by_hand)
    cluster = said(f"cluster --figure {tmp_path / 'c.png'}")
    assert link.source in cluster
    assert f"{1e3 * (1e-3 + by_hand):.4g} ms with talk on the critical path" in cluster
    job = "--rows 32 --entity-rows 58 --icc 0.3"
    assert f"All 64 devices: {1e3 * by_hand:.3g} ms of {1e3 * (1e-3 + by_hand):.4g} ms" in said(f"advise {job}")
    nodes = step_cost(NETWORKS["mlp"], 64, parse_topology("8:nvlink", link_of_the_page)).seconds
    assert f"All 64 devices: {1e3 * nodes:.3g} ms of" in said(f"advise {job} --topology 8:nvlink")
    with pytest.raises(ArgumentError, match=f"Did you mean '{link_of_the_page}'"):
        link_named(link_of_the_page[:-1])


@pytest.mark.parametrize(
    "wrong", [{"alpha": -1e-6}, {"beta": -1e-9}, {"alpha": np.nan}, {"beta": np.inf}, {"base": -1.0}]
)
def test_no_link_takes_less_than_no_time(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ArgumentError, match=f"{name}: got .* expected a finite number of seconds, 0 or more"):
        Link(**{"alpha": 1e-6, "beta": 1e-9, "source": "made up"} | wrong)


def test_bad_input_is_explained() -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'roce-25g'"):
        link_named("roce25")
    for ranks in (0, 2.5):
        with pytest.raises(ArgumentError, match="whole number"):
            allreduce_seconds("ring", ranks, 10, LINKS["nvlink"])
    with pytest.raises(ArgumentError, match="Did you mean"):
        allreduce_seconds("rign", 4, 10, LINKS["nvlink"])


def test_networks_have_the_published_batch_norms() -> None:
    assert (len(NETWORKS["resnet50"]), sum(NETWORKS["resnet50"])) == (53, 26_560)
    assert len(NETWORKS["mobilenet_v2"]) == 52
    assert sum(NETWORKS["mobilenet_v2"]) == 17_056
    assert len(NETWORKS["efficientnet_b3"]) == 78
    assert NETWORKS["efficientnet_b3"][0] == 40
    assert NETWORKS["efficientnet_b3"][-1] == 1536
    assert (
        2 * sum(NETWORKS["efficientnet_b3"]) + 7 == 87_303
    )  # what Keras counts as not trainable, 7 of them its input's


def test_resnet50_in_pytorchs_wire_format() -> None:
    found = step_cost(NETWORKS["resnet50"], 8, LINKS["nvlink"], "all-gather")
    assert found.collectives == 106
    assert found.payload == 2 * 425_172  # that is in float32; here every format is counted in float64
    assert found.share(found.compute_for(0.05)) == pytest.approx(0.05)
    assert found.step_seconds(1.0) == 1.0 + found.seconds
    assert found.step_seconds(1.0, overlapped=True) == 1.0


def test_wire_formats_by_hand() -> None:
    """One layer of 100 channels on 8 devices; short messages, so recursive doubling is the quickest all-reduce."""
    link = Link(1e-3, 1e-6, "")
    by_hand = {
        "fused all-reduce": 3 * link.seconds(8 * 201) + 3 * link.seconds(8 * 200),
        "all-gather": 3 * link.alpha + 7 * 8 * 201 * link.beta + 3 * link.seconds(8 * 200),
        "one by one": 4 * 3 * link.seconds(8 * 100) + 3 * link.seconds(8),
    }
    for wire, seconds in by_hand.items():
        assert step_cost([100], 8, link, wire).seconds == pytest.approx(seconds, rel=1e-9)
        assert step_cost([100], 8, link, wire).collectives == (5 if wire == "one by one" else 2)
    dear = Link(1e-3, 1e-6, "", base=0.5)  # a base is paid once per call
    assert step_cost([100], 8, dear).seconds == pytest.approx(by_hand["fused all-reduce"] + 2 * 0.5, rel=1e-9)
    assert step_cost([100], 1, dear).seconds == 0
    ring = Link(1e-3, 1e-6, "", schedules=("ring",))
    assert allgather_seconds(5, 100, link) == pytest.approx(3 * link.alpha + 4 * 800 * link.beta)
    gathered = 7 * (1e-3 + 8 * 201e-6) + 14 * (1e-3 + 8 * 25e-6)
    assert step_cost([100], 8, ring, "all-gather").seconds == pytest.approx(gathered, rel=1e-9)


def test_topology_is_paid_level_by_level() -> None:
    """16 devices in nodes of 4: an all-reduce of four inside each node, then one between the four nodes."""
    inside, outside = Link(1e-6, 1e-9, "in", base=1e-3), Link(1e-4, 1e-8, "out", base=2e-3)
    nodes = Topology(((4, inside), (16, outside)))
    for p, levels in (
        (16, [(4, 1, inside), (4, 4, outside)]),
        (4, [(4, 1, inside)]),
        (5, [(4, 1, inside), (2, 4, outside)]),
    ):
        assert nodes.levels_of(p) == levels
    one_layer = 6e-3 + sum(2 * link.seconds(8 * n) for link in (inside, outside) for n in (201, 200))
    assert step_cost([100], 16, nodes).seconds == pytest.approx(one_layer, rel=1e-9)
    gathered = 6e-3 + 2 * inside.alpha + 3 * 8 * 201 * inside.beta + 2 * outside.alpha + 3 * 4 * 8 * 201 * outside.beta
    gathered += sum(2 * link.seconds(8 * 200) for link in (inside, outside))
    assert step_cost([100], 16, nodes, "all-gather").seconds == pytest.approx(gathered, rel=1e-9)
    parsed = parse_topology("8:nvlink,64:infiniband-ndr", "roce-25g")
    assert [link for _, _, link in parsed.levels_of(4096)] == [
        LINKS[n] for n in ("nvlink", "infiniband-ndr", "roce-25g")
    ]
    assert parse_topology("", "roce-25g") == LINKS["roce-25g"]
    for bad, message in (
        ("8", "8:nvlink"),
        ("x:nvlink", "8:nvlink"),
        ("8:nvlnk", "Did you mean 'nvlink'"),
        ("8:nvlink,12:tcp-25g", "multiple"),
        ("8:nvlink,8:tcp-25g", "sizes that grow"),
    ):
        with pytest.raises(ArgumentError, match=message):
            parse_topology(bad, "roce-25g")


def test_the_all_gather_loses_and_stays_lost() -> None:
    channels, link = NETWORKS["resnet50"], LINKS["roce-25g"]
    first = where_all_gather_loses(channels, link)
    assert first is not None
    for p in (first, 4 * first, 64 * first):
        assert step_cost(channels, p, link, "all-gather").seconds > step_cost(channels, p, link).seconds
    assert step_cost(channels, first // 2, link, "all-gather").seconds <= step_cost(channels, first // 2, link).seconds
    assert step_cost(channels, 64, link, "one by one").seconds > step_cost(channels, 64, link).seconds
    assert where_all_gather_loses(channels, Link(1.0, 0.0, "where bytes cost nothing")) is None


def test_topology_takes_the_innermost_level() -> None:
    inside, outside = Link(1.0, 0, ""), Link(10.0, 0, "")
    racks = Topology(((4, inside), (16, outside)))
    assert racks.between(0, 3) == inside
    assert racks.between(3, 4) == racks.between(0, 99) == outside
    elapsed = simulate(lambda comm: comm.allreduce(np.ones(1)), 8, racks)
    assert elapsed.longest == 1 + 1 + 10  # distances 1, 2 inside a node of four, 4 across
    with pytest.raises(ArgumentError, match="multiple"):
        Topology(((4, inside), (6, outside)))


def test_stragglers_and_measured_work() -> None:
    slow = one_slow_node(8, 1, 2, 5.0)
    np.testing.assert_array_equal(slow, [1, 1, 5, 5, 1, 1, 1, 1])
    drawn = log_normal_stragglers(20_000, 0.5, 0)
    assert np.median(drawn) == pytest.approx(1, abs=0.02)
    assert np.log(drawn).std() == pytest.approx(0.5, abs=0.02)

    def work(comm):
        sum(range(200_000))
        comm.allreduce(np.ones(4))

    elapsed = simulate(work, 4, LINKS["nvlink"], measured=True)
    assert all(s > 1e-4 for s in elapsed.seconds)
    assert 0 < elapsed.share("test_cluster") < 1
    assert simulate(work, 4, LINKS["nvlink"]).longest < 1e-4


def test_work_is_measured_on_its_own_rank_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds and one; rank 1 takes twice as long. A message takes one, both ways at once."""
    now = 0.0
    monkeypatch.setattr(virtual_time, "time", SimpleNamespace(perf_counter=lambda: now))

    def work(comm):
        nonlocal now
        for seconds in (3.0, 1.0):
            now += seconds
            comm.allreduce(np.ones(1))

    elapsed = simulate(work, 2, Link(1.0, 0.0, ""), slowness=[1, 2], measured=True)
    assert elapsed.seconds == [10, 10]
    assert elapsed.waited == [4, 0]


@pytest.mark.parametrize("ranks", [0, 3])
def test_accumulation_example(ranks: int) -> None:
    """Alone and under mpirun: the same two lines."""
    script = "mpi_examples/accumulation.py"
    done = run_mpi(ranks, script) if ranks else run([sys.executable, script])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    plain, synced = (float(line.split(" by ")[1].split()[0]) for line in done.stdout.splitlines()[:2])
    assert plain > 1e-2
    assert synced < 1e-10


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_virtual_time_of_a_layer_at_65536_ranks() -> None:
    code = (
        "import time, numpy as np; from syncbn_sim.cluster import *; t = time.time(); link = LINKS['roce-25g'];"
        "e = simulate(lambda c: c.allreduce(np.ones(129))[0], 65536, link);"
        "assert abs(e.longest / allreduce_seconds('recursive_doubling', 65536, 129, link) - 1) < 1e-9; print(time.time() - t)"
    )
    done = run([sys.executable, "-c", code], seconds=180)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60


def test_what_measure_links_says_follows_from_its_figures() -> None:
    script = runpy.run_path(str(ROOT / "mpi_examples/measure_links.py"))
    good = script["conclusions"]([8e-6, 20e-6], [9e-6, 17e-6], [4e-6, 11e-6])
    assert good[0] == "The constants predict our schedule: off by a factor of up to 1.2."
    assert good[1] == "The constants do not predict the library's all-reduce: off by a factor of up to 2.0."
    bad = script["conclusions"]([9167e-6], [3030e-6], [9000e-6])
    assert bad[0] == "The constants do not predict our schedule: off by a factor of up to 3.0."
    assert bad[1] == "The constants predict the library's all-reduce: off by a factor of up to 1.0."
    assert "quiet machine" in bad[2]
    assert len(bad) == 3
    assert script["bandwidth"](0.5e-9) == "bandwidth   2.00 GB/s"
    assert "GB/s" not in script["bandwidth"](0.0)


@pytest.mark.parametrize("seconds", [[1.0, 2.0, 4.0], [3.0, 2.9, 3.1], [5.0, 4.0, 3.0], [1e-3, 0.1, 8.0]])
def test_constants_fit_as_well_as_any_that_are_not_negative(seconds: list[float]) -> None:
    sizes, seconds = np.array([8, 64, 512]), np.array(seconds)
    link = _fitted(sizes, seconds)
    best, _ = nnls(np.stack([1 / seconds, sizes / seconds], axis=1), np.ones(3))
    assert (link.alpha, link.beta) == (pytest.approx(best[0], abs=1e-12), pytest.approx(best[1], abs=1e-12))


def test_a_message_is_timed_by_the_range_that_it_falls_into() -> None:
    links = [(sizes, Link(float(i), 0.0, "")) for i, sizes in enumerate(RANGES)]
    sizes = (1, 4096, 4104, 65_536, 1 << 20, (1 << 20) + 8, 1 << 30)
    assert [link_for(links, size).alpha for size in sizes] == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.slow
def test_constants_measured_here_predict_our_schedules() -> None:
    """Between two MPI processes, within 2x at 1 KB, 16 KB and 1 MB."""
    done = run_mpi(2, "mpi_examples/measure_links.py")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"predicted +(\S+) us, our schedule +(\S+) us, the library's all-reduce +\S+ us", done.stdout)
    assert len(rows) == 3
    for predicted, ours in rows:
        assert 0.5 < float(ours) / float(predicted) < 2, done.stdout
