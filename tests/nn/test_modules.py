"""What `Module` does for a layer of one's own: masks; and the tree of modules: lists, replacing, what is hidden."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from syncbn_sim import nn
from syncbn_sim.comm import SerialCommunicator
from syncbn_sim.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(8)
F64 = {"dtype": np.float64}


class Square(nn.Module):
    """A user's layer: y = x^2 + sum(x) + 1, which is not 0 where x is, and mixes positions both ways."""

    def _forward(self, x, counts):
        return x**2 + x.sum() + 1, x

    def _backward(self, dy, x):
        return 2 * x * dy + dy.sum()


def test_a_layer_without_a_word_about_masks_is_masked() -> None:
    x, dy, w = RNG.normal(size=(5, 3, 4)), RNG.normal(size=(5, 3, 4)), np.array([1.0, 0, 2, 0, 1])
    for weights, kept in ((w, w > 0), (np.outer(w, [1, 0, 1, 1]), None)):
        shown = np.broadcast_to((weights > 0)[:, None] if kept is None else kept[:, None, None], x.shape)
        spoiled, layer = np.where(shown, x, np.nan), Square()
        y = layer(spoiled, weights)
        weights[...] = 1  # a mask is copied
        dx = layer.backward(np.where(shown, dy, np.inf))
        np.testing.assert_array_equal(y, np.where(shown, x**2 + np.where(shown, x, 0).sum() + 1, 0))
        np.testing.assert_array_equal(dx, np.where(shown, 2 * x * dy + np.where(shown, dy, 0).sum(), 0))
        assert np.isnan(spoiled).any()


@pytest.mark.parametrize("shape", [(3, 3, 3), (2, 4, 4, 4)])
def test_channel_axes_leave_no_choice(shape: tuple[int, ...]) -> None:
    """Of a cube nothing can be told from the weights' shape: the layer says which axis they lack."""
    w = RNG.integers(0, 2, shape[:-1])
    for axis in range(1, len(shape)):
        layer = Square()
        layer.channel_axes = (axis - len(shape),)
        shown = np.broadcast_to(np.expand_dims(w > 0, axis), shape)
        np.testing.assert_array_equal(layer(np.where(shown, 2.0, np.nan), w), np.where(shown, 5 + 2 * shown.sum(), 0))


@pytest.mark.parametrize("axis", [1, -1])
def test_a_mask_of_rows_is_a_mask_of_their_positions(axis: int) -> None:
    x, w = RNG.normal(size=(6, 3, 3)), np.array([1, 0, 1, 1, 0, 1])
    for weights in (w, np.repeat(w[:, None], 3, 1)):
        layer = nn.BatchNorm(3, channel_axis=axis, **F64)
        y = layer(np.where(w[:, None, None] > 0, x, np.nan), weights)
        np.testing.assert_array_equal(layer.backward(y)[w == 0], 0)
        np.testing.assert_allclose(y[w > 0], nn.BatchNorm(3, channel_axis=axis, **F64)(x[w > 0]), atol=1e-13)


def test_a_wrong_input_is_named_before_its_weights() -> None:
    for layer in (nn.BatchNorm(3), nn.LayerNorm(3), nn.Linear(3, 2)):
        with pytest.raises(ShapeError, match=r"\(5, 4, 2\)"):
            layer(np.ones((5, 4, 2)), np.ones((5, 4)))


def test_the_channels_of_a_batch_norm_stay_where_they_are() -> None:
    with pytest.raises(ArgumentError, match="channel_axis=0"):
        nn.BatchNorm(3, channel_axis=0)
    with pytest.raises(AttributeError):
        nn.BatchNorm(3).channel_axis = -1
    with pytest.raises(ShapeError, match="channels on axis -3"):
        nn.BatchNorm(3, channel_axis=-3)(np.ones((3, 4, 5)))


def test_a_layer_with_a_forward_is_refused_where_it_is_written() -> None:
    with pytest.raises(ArgumentError, match=r"class Old.*forward.*_forward\(x, counts\)"):
        type("Old", (nn.BatchNorm,), {"forward": lambda self, x: x})
    for use in (lambda: nn.Module()(np.ones(2)), lambda: nn.ModuleList()(np.ones(2))):
        with pytest.raises(NotImplementedError, match="cannot be called"):
            use()


@pytest.mark.parametrize("rows", [2, 3])
def test_a_layer_that_returns_something_else_is_told_what_to_return(rows: int) -> None:
    x = np.ones((rows, 4))
    for wrong in (x, None, (x, 1, 2), (x.tolist(), None)):  # two rows could be taken for y and a context
        layer = type("Odd", (nn.Module,), {"_forward": lambda self, x, counts, wrong=wrong: wrong})()
        with pytest.raises(ArgumentError, match=r"Odd\._forward: .* expected \(y, context\)"):
            layer(x)
    for wrong in (None, x[:1], x[0], x.T):
        methods = {"_forward": lambda self, x, counts: (x, None), "_backward": lambda self, dy, c, wrong=wrong: wrong}
        layer = type("Odd", (nn.Module,), methods)()
        layer(x)
        with pytest.raises(ShapeError, match=rf"Odd\._backward: .* expected an array of \({rows}, 4\), the shape of x"):
            layer.backward(x)


@pytest.mark.parametrize(
    "build",
    [lambda: nn.Sequential([nn.ReLU()]), lambda: nn.Sequential(nn.ReLU), lambda: nn.ModuleList([nn.ReLU(), None])],
)
def test_a_container_refuses_what_is_no_layer(build) -> None:
    with pytest.raises(ArgumentError, match=r"(Sequential|ModuleList): got .*expected modules"):
        build()
    with pytest.raises(ArgumentError, match="expected modules"):
        nn.ModuleList().append(np.tanh)


class Residual(nn.Module):
    """A user's container: x + blocks[k](x) one after the other."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def __call__(self, x, weights=None):
        for block in self.blocks:
            x = x + block(x, weights)
        return x

    def backward(self, dy):
        for block in reversed(self.blocks):
            dy = dy + block.backward(dy)
        return dy


def test_a_module_list_holds_modules() -> None:
    model = Residual(nn.BatchNorm(4, **F64), nn.Sequential(nn.Linear(4, 4, **F64), nn.ReLU()))
    assert [name for name, _ in model.named_modules()][1:4] == ["blocks", "blocks.0", "blocks.1"]
    assert list(model.state_dict())[:2] == ["blocks.0.weight", "blocks.0.bias"]
    assert "blocks.1.0.weight" in model.state_dict()
    assert len(model.parameters()) == 4
    assert not model.eval().blocks[1].training
    assert (len(model.blocks), model.blocks[-1]) == (2, list(model.blocks)[1])
    nn.convert_sync_batchnorm(model, SerialCommunicator())
    assert type(model.blocks[0]) is nn.SyncBatchNorm
    model.blocks.append(nn.ReLU())
    assert [name for name, _ in model.blocks.named_children()] == ["0", "1", "2"]
    model.train().zero_grad()
    x = RNG.normal(size=(5, 4))
    kept = np.array([1, 1, 0, 1, 1])
    y = model(x, kept)
    dx = model.backward(RNG.normal(size=y.shape))
    nn.check_no_contexts(model)
    assert all(p.grad is not None for p in model.parameters())
    assert dx.shape == x.shape
    assert "(blocks): ModuleList(" in repr(model)


def test_replace_child() -> None:
    shared = nn.BatchNorm(4)
    model = Residual(shared, nn.Sequential(shared, nn.ReLU()))
    replaced = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm):
                parent.replace_child(name, nn.LayerNorm(4))
                replaced.append(name)
    assert replaced == ["0", "0"]
    assert not any(isinstance(module, nn.BatchNorm) for module in model.modules())
    assert list(model.state_dict()) == ["blocks.0.weight", "blocks.0.bias", "blocks.1.0.weight", "blocks.1.0.bias"]
    model.replace_child("blocks", nn.ModuleList([nn.ReLU()]))
    assert model.parameters() == []
    x = RNG.normal(size=(3, 4))
    np.testing.assert_array_equal(model(x), x + np.maximum(x, 0))
    for name, module in (("block", nn.ReLU()), ("blocks.0", nn.ReLU()), ("blocks", None)):
        with pytest.raises(ArgumentError, match=r"Residual.replace_child.*blocks"):
            model.replace_child(name, module)
    with pytest.raises(ArgumentError, match="it has none"):
        nn.ReLU().replace_child("0", nn.ReLU())


class Unfinished(nn.Module):
    """Its __init__ forgets Module's."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(np.ones(1))

    def _forward(self, x, counts):
        return x * self.scale.data, x


class UnfinishedNorm(nn.BatchNorm):
    """The same of a layer that has an __init__ of its own."""

    def __init__(self) -> None:
        self.register_buffer("seen", np.zeros(1))


@pytest.mark.parametrize("use", [lambda: Unfinished()(np.ones((2, 1))), UnfinishedNorm, lambda: Unfinished().training])
def test_a_forgotten_init_is_named(use) -> None:
    with pytest.raises(ArgumentError, match=r"class Unfinished\w*: got .* Call super\(\)\.__init__\(\)"):
        use()


def test_what_a_module_has_not_is_an_ordinary_error() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'gamma'"):
        _ = layer.gamma
    assert not hasattr(layer, "gamma")
    assert copy.deepcopy(layer).bias is not layer.bias
    assert pickle.loads(pickle.dumps(layer)).in_features == 2
