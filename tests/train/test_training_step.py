"""What a training step costs in memory, and what the shared flat buffers must not break."""

from __future__ import annotations

import copy
import tracemalloc
import weakref

import numpy as np
import pytest

from syncbn_sim import data, nn, optim, train
from syncbn_sim.comm import SerialCommunicator, launch
from syncbn_sim.errors import ArgumentError, ShapeError

ROWS, WIDTH = 4096, 256
KIB = 1024
RNG = np.random.default_rng(0)


def net() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(WIDTH, WIDTH, bias=False), nn.SyncBatchNorm(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1))


@pytest.mark.parametrize("optimizer", [optim.Adam, lambda p: optim.SGD(p, 0.01, momentum=0.9, weight_decay=1e-4)])
def test_a_step_in_steady_state_allocates_nothing_large(optimizer) -> None:
    """Each activation is 4 MiB, each weight matrix and its gradient 256 KiB."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, WIDTH)).astype(np.float32), rng.normal(size=ROWS)
    model, loss, comm = net(), nn.MSELoss(), SerialCommunicator()
    chosen = optimizer(model.parameters())
    tracemalloc.start()
    try:
        after = []
        for step in range(6):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            train.step(model, loss, chosen, comm, x, y)
            now, peak = tracemalloc.get_traced_memory()
            after.append(now)
            if step == 3:
                buffers = [weakref.ref(b) for m in [*model.modules(), *model.parameters()] for b in m._workspace._pool]
    finally:
        tracemalloc.stop()
    assert peak - before < 64 * KIB * len(model)
    assert len(buffers) > 12
    assert all(buffer() is not None for buffer in buffers), "memory was given back and asked for again"
    assert abs(after[-1] - after[-2]) < 4 * KIB


@pytest.mark.parametrize(
    ("shape", "axis"), [((8, 256, 14, 14), 1), ((4, 64, 40, 40), 1), ((4096, 64), 1), ((8, 20, 20, 64), -1)]
)
@pytest.mark.parametrize("mean", [0, 100])
def test_a_layer_in_steady_state_allocates_nothing_large(shape: tuple[int, ...], axis: int, mean: float) -> None:
    """Nothing like x, of 1 MiB or more: a few numbers per channel, and what NumPy 2.0 buffers of its operands."""
    rng = np.random.default_rng(0)
    x, dy = ((rng.normal(size=shape) + mean).astype(np.float32) for _ in range(2))
    norm = nn.BatchNorm(shape[axis], channel_axis=axis)
    tracemalloc.start()
    try:
        for _ in range(4):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            norm(x)
            norm.backward(dy)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < (64 * KIB if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else x.nbytes / 8)


def test_gradients_outside_of_the_optimiser_are_this_batch_s() -> None:
    """Where only the head is trained, the body's gradients do not pile up."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, WIDTH)).astype(np.float32), rng.normal(size=64)
    model, loss = net(), nn.MSELoss()
    optimizer = optim.SGD(model[-1].parameters(), 1e-12)
    body = model.parameters()[0]
    norms = []
    for _ in range(3):
        train.step(model, loss, optimizer, SerialCommunicator(), x, y)
        norms.append(np.abs(body.grad).sum())
    np.testing.assert_allclose(norms, norms[0], rtol=1e-3)


def test_a_step_after_a_smaller_batch() -> None:
    """The last batch of an epoch is smaller: buffers are cut to it, and stay."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, WIDTH)).astype(np.float32), rng.normal(size=ROWS)
    results = []
    for fresh in (False, True):
        model, loss = net(), nn.MSELoss()
        optimizer = optim.SGD(model.parameters(), 0.01)
        for rows in (ROWS, 1000, 3, ROWS, 0):
            if fresh:
                for each in [*model.modules(), *model.parameters()]:
                    each._workspace._pool.clear()
            train.step(model, loss, optimizer, SerialCommunicator(), x[:rows], y[:rows])
        results.append([p.data for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", ["threads", "lockstep"])
def test_ranks_share_no_buffers(backend: str) -> None:
    """The same bits on ranks that run side by side as on ranks that take turns."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2 * 512, WIDTH)).astype(np.float32), rng.normal(size=2 * 512)

    def on_rank(comm):
        model, loss = nn.convert_sync_batchnorm(net(), comm), nn.MSELoss()
        optimizer = optim.Adam(model.parameters())
        rows = slice(512 * comm.rank, 512 * (comm.rank + 1))
        losses = [train.step(model, loss, optimizer, comm, x[rows], y[rows]) for _ in range(3)]
        return losses, [p.data for p in model.parameters()]

    (losses, first), (_, second) = launch(on_rank, 2, backend)
    assert losses == launch(on_rank, 2, "lockstep")[0][0]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.shares_memory(a, b)


def test_a_held_gradient_stays() -> None:
    layer = nn.Linear(128, 128)  # 64 KiB: above what malloc is left with
    x = np.random.default_rng(0).normal(size=(4, 128)).astype(np.float32)
    layer.backward(layer(x))
    kept = layer.weight.grad
    before = kept.copy()
    layer.zero_grad()
    layer.backward(layer(2 * x))
    assert layer.weight.grad is not kept
    np.testing.assert_array_equal(kept, before)


def test_a_parameter_may_get_a_new_array_between_steps() -> None:
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), 1.0)
    given = np.full((2, 3), 5, np.float32)
    for _ in range(2):
        model.weight.data = given
        model.weight.grad = np.ones_like(given)
        optimizer.step()
        np.testing.assert_array_equal(model.weight.data, 4)
    np.testing.assert_array_equal(given, 5)


def test_parameters_of_two_dtypes() -> None:
    layers = [nn.Linear(3, 2, dtype=dtype) for dtype in (np.float32, np.float64)]
    optimizer = optim.SGD([p for layer in layers for p in layer.parameters()], 1.0)
    before = [layer.weight.data.copy() for layer in layers]
    for _ in range(2):
        for layer in layers:
            layer.weight.grad = np.ones_like(layer.weight.data)
        optimizer.step()
    for layer, old in zip(layers, before, strict=True):
        assert layer.weight.data.dtype == old.dtype
        np.testing.assert_allclose(layer.weight.data, old - 2, rtol=1e-6)


def test_a_copied_optimizer_moves_the_copied_model() -> None:
    """Parameters are views of the optimiser's vector, and a deep copy copies each view by itself."""
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), 1.0)
    start = model.weight.data.copy()
    for copies in range(3):
        for p in model.parameters():
            p.grad = np.ones_like(p.data)
        optimizer.step()
        np.testing.assert_allclose(model.weight.data, start - copies - 1, rtol=1e-6)
        model, optimizer = copy.deepcopy((model, optimizer))


def test_a_parameter_that_took_no_part_stays_where_it_is() -> None:
    used, idle = nn.Parameter([1.0, 2.0], np.float64), nn.Parameter([3.0], np.float64)
    optimizer = optim.SGD([used, idle], lr=0.1)
    used.add_grad(np.array([4.0, 8.0]))
    gradient, loss, count = train.sum_gradients(optimizer, 6.0, 2.0, SerialCommunicator())
    assert gradient.tolist() == [2.0, 4.0, 0.0]
    assert (loss, count) == (6.0, 2.0)
    optimizer.step(gradient)
    assert used.data == pytest.approx([0.8, 1.6])
    assert idle.data.tolist() == [3.0]


def small_net(seed: int = 0) -> nn.Sequential:
    draw = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Linear(3, 4, dtype=np.float64, rng=draw), nn.ReLU(), nn.Linear(4, 2, dtype=np.float64, rng=draw)
    )


def test_fit_is_a_step_for_each_batch_at_the_rate_of_the_schedule() -> None:
    x, y = RNG.normal(size=(40, 3)), RNG.integers(0, 2, 40)
    batches = list(data.epochs(data.iid, y, 0, 1, 8, 2, [5]))
    comm, by_hand, by_fit = SerialCommunicator(), small_net(), small_net()
    optimizer = optim.SGD(by_hand.parameters(), 0.5)
    expected = []
    for done, rows in enumerate(batches):
        optimizer.lr = 0.5 * optim.linear_decay(10)(done)
        expected.append((done + 1, train.step(by_hand, nn.CrossEntropyLoss(), optimizer, comm, x[rows], y[rows])))
    optimizer = optim.SGD(by_fit.parameters(), 0.5)
    found = train.fit(by_fit, nn.CrossEntropyLoss(), optimizer, comm, x, y, batches, optim.linear_decay(10))
    assert list(found) == expected
    assert len(expected) == 10
    for name, value in by_hand.state_dict().items():
        np.testing.assert_array_equal(by_fit.state_dict()[name], value)
    assert optimizer.lr == 0.5, "training again begins at the optimiser's own rate"


def test_fit_leaves_a_rate_alone_that_the_reader_sets_and_ends_where_he_stops() -> None:
    x, y = RNG.normal(size=(8, 3)), RNG.integers(0, 2, 8)
    model = small_net()
    optimizer = optim.SGD(model.parameters(), 0.5)
    for done, _ in train.fit(model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), x, y, [np.arange(8)] * 9):
        optimizer.lr = 0.0
        if done == 1:
            after_one = model.state_dict()
        if done == 3:
            break
    assert (optimizer.lr, optimizer.steps) == (0.0, 3)
    np.testing.assert_array_equal(model.state_dict()["0.weight"], after_one["0.weight"])


def test_a_rate_is_the_schedule_s_only_while_it_steps() -> None:
    x, y = RNG.normal(size=(8, 3)), RNG.integers(0, 2, 8)
    model = small_net()
    optimizer = optim.SGD(model.parameters(), 0.5)
    arguments = model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), x, y, [np.arange(8)] * 4
    left_early = train.fit(*arguments, schedule=lambda step: 0.1)
    next(left_early)
    assert optimizer.lr == 0.5, "a loop that was left, and is still held, must not set the rate of the next one"
    again = train.fit(*arguments, schedule=lambda step: 0.1 if step < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(again)
    assert optimizer.lr == 0.5


@pytest.mark.parametrize("factor", [float("nan"), -0.1, float("inf")])
def test_a_schedule_that_gives_no_rate_is_refused(factor: float) -> None:
    x, y, model = RNG.normal(size=(8, 3)), RNG.integers(0, 2, 8), small_net()
    optimizer, before = optim.SGD(model.parameters(), 0.5), model.state_dict()
    arguments = model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), x, y, [np.arange(8)] * 4
    with pytest.raises(ArgumentError, match=r"lr: got .*schedule"):
        list(train.fit(*arguments, schedule=lambda step: factor))
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before["0.weight"])
    assert optimizer.lr == 0.5
    with pytest.raises(ArgumentError, match="lr: got"):
        optimizer.lr = factor


def test_a_gradient_that_adjust_has_kept_stays() -> None:
    x, y = RNG.normal(size=(8, 3)), RNG.integers(0, 2, 8)
    model, kept, then = small_net(), [], []

    def adjust(gradient):
        kept.append(gradient)
        then.append(gradient.copy())
        return gradient

    optimizer = optim.SGD(model.parameters(), 0.5)
    list(
        train.fit(model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), x, y, [np.arange(8)] * 3, None, adjust)
    )
    assert not np.array_equal(then[0], then[2])
    np.testing.assert_array_equal(kept, then)


@pytest.mark.parametrize("wrong", [lambda g: 0.5, lambda g: g[:1], lambda g: g[None], lambda g: True, lambda g: g[:3]])
def test_a_gradient_of_another_shape_is_no_gradient(wrong) -> None:
    model = small_net()
    optimizer = optim.SGD(model.parameters(), 0.5)
    before = model.state_dict()
    arguments = model, nn.CrossEntropyLoss(), optimizer, SerialCommunicator(), RNG.normal(size=(4, 3)), np.arange(4) % 2
    with pytest.raises(ShapeError, match=r"gradient: got .* expected \(26,\)"):
        train.step(*arguments, adjust=wrong)
    assert optimizer.steps == 0
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_adjust_sees_the_mean_gradient_of_all_ranks_and_may_change_it_or_leave_the_step_out() -> None:
    x, y = RNG.normal(size=(9, 3)) * 30, RNG.integers(0, 2, 9)

    def clipped(comm, most):
        model, seen = small_net(), []
        before = np.concatenate([p.data.ravel() for p in model.parameters()])

        def adjust(gradient):
            seen.append(gradient.copy())
            return None if most is None else gradient * min(1.0, most / np.linalg.norm(gradient))

        optimizer = optim.SGD(model.parameters(), 1.0)
        mine = np.array_split(np.arange(9), comm.size)[comm.rank]
        train.step(model, nn.CrossEntropyLoss(), optimizer, comm, x[mine], y[mine], adjust=adjust)
        moved = before - np.concatenate([p.data.ravel() for p in model.parameters()])
        return seen[0], moved, optimizer.steps, [p.grad for p in model.parameters()]

    [(one, moved, steps, _)] = launch(clipped, 1, args=(0.01,))
    assert np.linalg.norm(one) > 0.1, "or clipping had nothing to do"
    np.testing.assert_allclose(moved, one * 0.01 / np.linalg.norm(one), rtol=1e-9)
    for gradient, same, _, _ in launch(clipped, 3, backend="lockstep", args=(0.01,)):
        np.testing.assert_allclose(gradient, one, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(same, moved, rtol=1e-9, atol=1e-15)
    [(_, moved, steps, gradients)] = launch(clipped, 1, args=(None,))
    assert not moved.any()
    assert steps == 0
    assert gradients == [None] * 4, "a step left out leaves no gradient behind"
