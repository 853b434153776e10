"""What every communicator must do. Each check is a function of one rank's communicator, run on all of them together."""

from __future__ import annotations

import copy
import time
import weakref

import numpy as np
import pytest

from syncbn_sim.comm import Communicator
from syncbn_sim.errors import ArgumentError, DtypeError, ShapeError


def check_allreduce_out(comm: Communicator) -> None:
    """Into another array, and in place: the same bits as into a new one."""
    rng = np.random.default_rng(comm.rank)
    for dtype in (np.float64, np.float32, np.int64):
        for op in ("sum", "max"):
            array = (rng.normal(size=(5, 3)) * 100).astype(dtype)
            expected, out = comm.allreduce(array, op), np.empty_like(array)
            assert comm.allreduce(array, op, out=out) is out
            assert comm.allreduce(array, op, out=array) is array
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(array, expected)
    for wrong in (np.empty(4), np.empty(3, np.float32), np.empty(6)[::2]):
        with pytest.raises(ShapeError, match="out"):
            comm.allreduce(np.zeros(3), out=wrong)


def check_allreduce_out_shares_memory(comm: Communicator) -> None:
    """Into the same memory by another name, and into some that overlaps: longer than what goes through at once, too."""
    for length in (4, 100_000):
        for op in ("sum", "max"):
            for place in (slice(0, length), slice(1, length + 1)):
                memory = np.arange(length + 1.0) + comm.rank
                expected = comm.allreduce(memory[:length], op)
                comm.allreduce(memory[:length], op, out=memory[place])
                np.testing.assert_array_equal(memory[place], expected)
    memory = np.arange(6.0)
    comm.allreduce(memory.reshape(2, 3), out=memory[:6].reshape(2, 3))
    np.testing.assert_array_equal(memory, comm.size * np.arange(6.0))


def check_allreduce(comm: Communicator) -> None:
    mine = np.arange(6.0).reshape(2, 3) + 10 * comm.rank
    everybody = [np.arange(6.0).reshape(2, 3) + 10 * r for r in range(comm.size)]
    for op, f in (("sum", np.sum), ("max", np.max), ("min", np.min)):
        for dtype in (np.float64, np.float32, np.int64):
            result = comm.allreduce(mine.astype(dtype), op)
            assert result.dtype == dtype
            assert result.shape == (2, 3)
            np.testing.assert_array_equal(result, f(everybody, axis=0).astype(dtype))


def check_allreduce_of_nan(comm: Communicator) -> None:
    """NaN wins everywhere and on every rank alike, also where only one rank has it."""
    mine = np.array([np.nan if comm.rank == 0 else comm.rank, comm.rank, np.nan if comm.rank == comm.size - 1 else 1.0])
    for op in ("sum", "max", "min"):
        result = comm.allreduce(mine, op)
        np.testing.assert_array_equal(np.isnan(result), [True, False, True])


def check_allreduce_returns_a_new_array(comm: Communicator) -> None:
    mine = np.ones(3)
    result = comm.allreduce(mine)
    result += 5.0
    np.testing.assert_array_equal(mine, 1.0)
    comm.barrier()
    np.testing.assert_array_equal(result, comm.size + 5.0)  # nobody else's addition shows


def check_allreduce_of_odd_shapes(comm: Communicator) -> None:
    assert comm.allreduce(np.zeros((0, 3))).shape == (0, 3)
    scalar = comm.allreduce(np.array(2.0))
    assert scalar.shape == ()
    assert float(scalar) == 2.0 * comm.size
    strided = np.arange(12.0).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(comm.allreduce(strided), strided * comm.size)
    large = np.arange(100_000.0) + comm.rank
    np.testing.assert_array_equal(
        comm.allreduce(large), comm.size * np.arange(100_000.0) + comm.size * (comm.size - 1) / 2
    )


def check_allreduce_repeats_its_bits(comm: Communicator) -> None:
    mine = np.random.default_rng(comm.rank).normal(size=1000)
    first = comm.allreduce(mine)
    for _ in range(5):
        np.testing.assert_array_equal(comm.allreduce(mine), first)
    for other in comm.allgather(first):
        np.testing.assert_array_equal(other, first)


def check_allreduce_of_large_arrays(comm: Communicator) -> None:
    """Longer than any buffer on the way, and no multiple of it."""
    length = 300_007 if comm.size <= 8 else 30_007  # more ranks than 8 stand in one process, without buffers
    for dtype in (np.float64, np.float32, np.int64):
        parts = [(np.arange(length) % (r + 7)).astype(dtype) for r in range(comm.size)]
        kept = parts[comm.rank].copy()
        np.testing.assert_array_equal(comm.allreduce(parts[comm.rank]), sum(parts))
        np.testing.assert_array_equal(parts[comm.rank], kept)
        comm.allreduce(kept, "max", out=kept)
        np.testing.assert_array_equal(kept, np.max(parts, axis=0))


def check_no_rank_runs_ahead(comm: Communicator) -> None:
    """Many calls one after the other, between which ranks dawdle by turns: nobody reads what belongs to the call before or after."""
    rng = np.random.default_rng(comm.rank)
    for call in range(60):
        if rng.random() < 0.2:
            time.sleep(1e-3)
        size = 1 + call % 5
        got = comm.allreduce(np.full(size, call * (comm.rank + 1.0)))
        np.testing.assert_array_equal(got, np.full(size, call * comm.size * (comm.size + 1) / 2))
        got[:] = -1  # ours to write into


def check_messages_wait_for_nobody(comm: Communicator) -> None:
    """More than fits into any queue is sent before a collective, and received after it."""
    if comm.size == 1:
        return
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for number in range(100):
        comm.send(np.full(1000, 1000.0 * comm.rank + number), after, tag=number)
    comm.barrier()
    assert comm.allreduce(np.ones(3))[0] == comm.size
    for number in range(100):
        np.testing.assert_array_equal(comm.recv(before, tag=number), np.full(1000, 1000.0 * before + number))


def check_barrier(comm: Communicator) -> None:
    """Nobody leaves before the last one, which dawdles, has come."""
    last = comm.size - 1
    for _ in range(3):
        if comm.rank == last:
            time.sleep(0.02)
        came = time.monotonic()
        comm.barrier()
        left = time.monotonic()
        came, left = (comm.allgather(np.array([t])) for t in (came, left))
        assert min(left)[0] >= came[last][0]


def check_allreduce_refuses(comm: Communicator) -> None:
    with pytest.raises(DtypeError, match=r"float16.*astype\(np.float32\)"):
        comm.allreduce(np.ones(3, np.float16))
    with pytest.raises(DtypeError, match=r"bool.*astype\(np.int64\)"):
        comm.allreduce(np.ones(3, bool))
    for dtype in (">f8", ">f4", ">i8"):
        with pytest.raises(DtypeError, match=rf"order of bytes.*astype\(np.{np.dtype(dtype).newbyteorder('=')}\)"):
            comm.allreduce(np.ones(3, dtype))
    strided = np.zeros(6)[::2]
    with pytest.raises(ShapeError, match="contiguous"):
        comm.allreduce(strided, out=strided)
    with pytest.raises(ArgumentError, match=r"'mean'.*sum"):
        comm.allreduce(np.ones(3), "mean")


def check_allgather(comm: Communicator) -> None:
    parts = comm.allgather(np.full((comm.rank, 2), comm.rank, np.float32))
    assert [p.shape for p in parts] == [(r, 2) for r in range(comm.size)]
    assert all(p.dtype == np.float32 and (p == r).all() for r, p in enumerate(parts))
    parts[-1][...] = -comm.rank  # ours to write into
    comm.barrier()
    assert (parts[-1] == -comm.rank).all()
    flags = comm.allgather(np.array([comm.rank % 2 == 0]))
    assert [bool(f[0]) for f in flags] == [r % 2 == 0 for r in range(comm.size)]


def check_bcast(comm: Communicator) -> None:
    root = comm.size - 1
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    got = comm.bcast(array if comm.rank == root else None, root)
    np.testing.assert_array_equal(got, array)
    got += 1  # a copy, on the root too
    np.testing.assert_array_equal(array, np.arange(6.0).reshape(2, 3))
    assert comm.bcast(np.array(2.5)).shape == ()
    for each in {*range(min(comm.size, 4)), root}:
        assert comm.bcast({"from": comm.rank}, each) == {"from": each}
        np.testing.assert_array_equal(comm.bcast(np.full(2, comm.rank), each), each)
    value = comm.bcast({"seed": 3} if comm.rank == 0 else None)
    assert value == {"seed": 3}
    value["rank"] = comm.rank
    comm.barrier()
    assert value["rank"] == comm.rank  # nobody shares it
    with pytest.raises(ArgumentError, match="root"):
        comm.bcast(1, comm.size)


def check_split(comm: Communicator) -> None:
    group = comm.split(comm.rank % 2)
    assert group is not None
    members = [r for r in range(comm.size) if r % 2 == comm.rank % 2]
    assert (group.rank, group.size) == (members.index(comm.rank), len(members))
    assert float(group.allreduce(np.array([float(comm.rank)]))[0]) == sum(members)
    backwards = comm.split(0, key=-comm.rank)
    assert backwards is not None
    assert backwards.rank == comm.size - 1 - comm.rank
    tied = comm.split(0, key=0 if comm.rank else 1)  # of equal key in their order, then rank 0
    assert tied is not None
    assert [int(r) for r in tied.allgather(np.array(comm.rank))] == [*range(1, comm.size), 0]
    alone = comm.split(None if comm.rank else 0)
    assert (alone is None) == (comm.rank > 0)
    if comm.rank % 2 == 0:  # a group may talk without the others
        assert float(group.allreduce(np.ones(1))[0]) == group.size
    with pytest.raises(ArgumentError, match="color"):
        comm.split(-1)


def check_point_to_point(comm: Communicator) -> None:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for size in (0, 1, 1000, 200_000):  # the largest is far beyond what an MPI library buffers by itself
        got = comm.sendrecv(np.full(size, comm.rank, np.int64), right, left)
        np.testing.assert_array_equal(got, np.full(size, left))
    got = comm.sendrecv(np.ones((2, 3), np.float32) * comm.rank, right, left, tag=7)
    assert got.shape == (2, 3)
    assert got.dtype == np.float32
    mine = np.zeros(3)
    comm.send(mine, right, tag=1)
    mine += 9  # what was sent is a copy
    comm.send(np.ones(1), right, tag=2)
    np.testing.assert_array_equal(comm.recv(left, tag=2), 1.0)  # by tag, not by arrival
    np.testing.assert_array_equal(comm.recv(left, tag=1), 0.0)
    with pytest.raises(ArgumentError, match="dest"):
        comm.send(mine, comm.size)


def check_messages_are_told_apart(comm: Communicator) -> None:
    """By group and by tag: what rank 0 waits for is neither the first nor the second message that rank 1 sends it."""
    group = comm.split(0)
    assert group is not None
    comm.send(np.array([1]), comm.rank)
    group.send(np.array([2]), comm.rank)
    assert (group.recv(comm.rank), comm.recv(comm.rank)) == (2, 1)
    if comm.size < 3:
        return
    if comm.rank == 0:
        assert group.recv(1, tag=5) == 3
        assert comm.recv(1, tag=5) == 1
        assert group.recv(1, tag=6) == 2
    if comm.rank == 1:
        comm.send(np.array([1]), 0, tag=5)
        comm.recv(2)  # while rank 0 would take up the wrong one
        group.send(np.array([2]), 0, tag=6)
        comm.recv(2)
        group.send(np.array([3]), 0, tag=5)
    if comm.rank == 2:
        comm.send(np.zeros(1), 1)
        comm.send(np.zeros(1), 1)


def check_a_call_keeps_nothing_of_what_it_was_given(comm: Communicator) -> None:
    """Whoever lets an array go after a call has its memory back, before any further call."""
    for call in (comm.allreduce, comm.allgather, comm.bcast):
        mine = np.full(3, comm.rank)
        kept = weakref.ref(mine)
        call(mine)
        del mine
        assert kept() is None


def check_deepcopy_is_itself(comm: Communicator) -> None:
    assert copy.deepcopy(comm) is comm
    assert copy.deepcopy({"comm": [comm]})["comm"][0] is comm


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}
