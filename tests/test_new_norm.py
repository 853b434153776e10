"""A norm is one file: the layers of docs/howto/new_norm_layer.md, written to a file and put through what every norm must pass."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from conftest import ROOT
from gradcheck import assert_gradient

from syncbn_sim import nn
from syncbn_sim.comm import launch

RNG = np.random.default_rng(11)
F64 = {"dtype": np.float64}
SHAPES = {"RMSNorm": [(5, 4), (3, 2, 4)], "BatchRMSNorm": [(5, 4), (3, 4, 2), (2, 4, 3, 2), (40, 4, 60)]}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A module whose file holds the page's code, definitions and examples alike."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/howto/new_norm_layer.md").read_text(), re.S)
    file = tmp_path_factory.mktemp("page") / "my_norm.py"
    file.write_text("\n".join(blocks))
    spec = importlib.util.spec_from_file_location("my_norm", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(page, name: str) -> nn.Module:
    """The layer, with parameters and running statistics away from their start."""
    layer = getattr(page, name)(4, **F64)
    for p in layer.parameters():
        p.data = RNG.uniform(0.5, 1.5, p.data.shape)
    if isinstance(layer, nn.BatchNorm):
        layer.running_var = RNG.uniform(0.5, 2, 4)
    return layer


def positions(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if name == "RMSNorm" else (shape[0], *shape[2:])


@pytest.mark.parametrize(("name", "shape"), [case for case in CASES if np.prod(case[1]) < 99])
@pytest.mark.parametrize("mode", ["training", "evaluation", "weighted"])
def test_gradients(page, name: str, shape: tuple[int, ...], mode: str) -> None:
    layer = built(page, name).train(mode != "evaluation")
    x, dy = RNG.normal(size=shape) + 1, RNG.normal(size=shape)
    w = RNG.uniform(0.5, 2, positions(name, shape)) if mode == "weighted" else None
    layer(x, w)
    dx = layer.backward(dy)
    with nn.no_backward(layer):
        assert_gradient(lambda: float((layer(x, w) * dy).sum()), x, dx)
        for p in layer.parameters():
            assert_gradient(lambda: float((layer(x, w) * dy).sum()), p.data, p.grad)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_what_is_masked_is_never_read(page, name: str, shape: tuple[int, ...], training: bool) -> None:
    w = RNG.integers(0, 2, positions(name, shape))
    w.flat[:2] = 1, 0
    axis = len(shape) - 1 if name == "RMSNorm" else 1
    kept = np.broadcast_to(np.expand_dims(w > 0, axis), shape)
    x, dy = RNG.normal(size=shape), RNG.normal(size=shape)
    found = []
    for noise in (0.0, np.nan, np.inf):
        layer = built(page, name).train(training)
        for p in layer.parameters():
            p.data[...] = 2
        if name != "RMSNorm":
            layer.running_var = np.full(4, 3.0)
        y = layer(np.where(kept, x, noise), w)
        found.append([y, layer.backward(np.where(kept, dy, noise)), *(p.grad for p in layer.parameters())])
        for array in found[-1][:2]:
            assert (array[~kept] == 0).all()
            assert (array[kept] != 0).any()
    for others in found[1:]:
        for array, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_the_output_has_the_inputs_dtype_and_integers_are_refused(page, name: str, dtype) -> None:
    layer = getattr(page, name)(4)
    y = layer((300 * RNG.normal(size=(6, 4))).astype(dtype))
    assert y.dtype == layer.backward(y).dtype == dtype
    assert np.isfinite(y).all()
    with pytest.raises(TypeError, match="astype"):
        layer(np.ones((6, 4), int))


@pytest.mark.parametrize("name", SHAPES)
def test_the_state_dict_goes_round(page, name: str) -> None:
    one, other = built(page, name), built(page, name)
    one(RNG.normal(size=(6, 4)))
    other.load_state_dict(one.state_dict())
    x = RNG.normal(size=(6, 4))
    np.testing.assert_array_equal(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("trail", [(), (3,), (40, 30)])
def test_ranks_equal_one_batch(page, trail: tuple[int, ...], masked: bool, ranks: int) -> None:
    """Outputs, gradients, running statistics; uneven ranks, the last of four empty."""
    rows = [4, 3, 5, 0][:ranks]
    x, dy = (RNG.normal(size=(sum(rows), 4, *trail)) + 1 for _ in range(2))
    w = None
    if masked:
        w = RNG.integers(0, 2, (len(x), *trail))
        w[0], w[1], w[2] = 1, 0, 1
    model = nn.Sequential(built(page, "BatchRMSNorm"))
    state, (norm,) = model.state_dict(), model
    y, dx = model(x, w), model.backward(dy)

    def on_rank(comm):
        mine = slice(sum(rows[: comm.rank]), sum(rows[: comm.rank + 1]))
        copy = nn.Sequential(page.BatchRMSNorm(4, **F64))
        copy.load_state_dict(state)
        nn.convert_sync_batchnorm(copy, comm)
        assert isinstance(copy[0], page.BatchRMSNorm)
        y, dx = copy(x[mine], None if w is None else w[mine]), copy.backward(dy[mine])
        return y, dx, comm.allreduce(copy[0].weight.grad), comm.allreduce(copy[0].bias.grad), copy[0].running_var

    parts = launch(on_rank, ranks)
    for i, truth in enumerate((y, dx)):
        np.testing.assert_allclose(np.concatenate([part[i] for part in parts]), truth, atol=1e-12)
    for part in parts:
        for found, truth in zip(part[2:], (norm.weight.grad, norm.bias.grad, norm.running_var), strict=True):
            np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12)
