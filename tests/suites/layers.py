"""The one table of layers. Every public layer of `nn` has a row, and every rule of the suites holds for every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from syncbn_sim import nn
from syncbn_sim.comm import Communicator, SerialCommunicator

Array = np.ndarray[Any, Any]

# What ranks together equal: the layer on the union of their rows, ...
AS_IT_IS = "as it is"  # ... however these are dealt, some ranks empty
CONVERTED = "converted"  # ... likewise, after `convert_sync_batchnorm`
ALIKE = "alike"  # ... if all ranks hold the same rows


@dataclass(frozen=True)
class Layer:
    """One row.

    Attributes:
        build: makes it, from the dtype of its parameters and the ranks that it may talk to.
        shape: of an input, rows on axis 0; at least 3 rows, since of two x_hat is -1 and +1 whatever they are.
        channels: the axes of x that one position's weight covers; all but 0: weights are one a row only.
        oracle: the same module of torch, made from `torch`; or why there is none.
        talks: whether it does, in training.
        ranks: what R ranks together equal.
        cuts: whether the layer cuts its rows into batches of their own, so that it matters at which place a row stands. Then with other
            rows, or more of them, it is another layer, and the suites leave out what compares these.
    """

    build: Callable[[Any, Communicator], nn.Module]
    shape: tuple[int, ...]
    oracle: Callable[[Any], Any] | str
    channels: tuple[int, ...] = (1,)
    talks: bool = False
    ranks: str = AS_IT_IS
    cuts: bool = False


def batch_norm(shape: tuple[int, ...], kind: type[nn.BatchNorm] = nn.BatchNorm, **options: Any) -> Layer:
    """A row for a batch norm of 4 channels; what of its options torch has goes to torch too."""
    axis = options.get("channel_axis", 1)
    name = f"BatchNorm{max(len(shape) - 2, 1)}d"
    talks = issubclass(kind, nn.SharedSums)

    def build(dtype: Any, comm: Communicator) -> nn.Module:
        return kind(4, dtype=dtype, **options, **({"comm": comm} if talks else {}))

    return Layer(
        build,
        shape,
        (lambda torch: getattr(torch.nn, name)(4, **options)) if axis == 1 else "torch has no channels-last batch norm",
        (axis,),
        talks,
        ALIKE if kind is nn.AveragedBatchNorm else AS_IT_IS if talks else CONVERTED,
    )


def instance_norm(shape: tuple[int, ...], **options: Any) -> Layer:
    """A row for an instance norm of 4 channels, likewise."""
    axis = options.get("channel_axis", 1)
    name = f"InstanceNorm{max(len(shape) - 2, 1)}d"
    return Layer(
        lambda dtype, comm: nn.InstanceNorm(4, dtype=dtype, **options),
        shape,
        (lambda torch: getattr(torch.nn, name)(4, **options))
        if axis == 1
        else "torch has no channels-last instance norm",
        (axis,),
        # Outputs are those of the union however rows are dealt; what a rank stores is the mean over its own rows.
        ranks=ALIKE if options.get("track_running_stats") else AS_IT_IS,
    )


def group_norm(shape: tuple[int, ...], groups: int, channels: int, **options: Any) -> Layer:
    """A row for a group norm, likewise."""
    axis = options.get("channel_axis", 1)
    return Layer(
        lambda dtype, comm: nn.GroupNorm(groups, channels, dtype=dtype, **options),
        shape,
        (lambda torch: torch.nn.GroupNorm(groups, channels, **options))
        if axis == 1
        else "torch has no channels-last group norm",
        (axis,),
    )


def rms_norm(shape: tuple[int, ...], normalized_shape: int | tuple[int, ...], **options: Any) -> Layer:
    """A row for an RMS norm, likewise."""
    return Layer(
        lambda dtype, comm: nn.RMSNorm(normalized_shape, dtype=dtype, **options),
        shape,
        lambda torch: torch.nn.RMSNorm(normalized_shape, **options),
        (-1,) if isinstance(normalized_shape, int) else tuple(range(-len(normalized_shape), 0)),
    )


def ghost_batch_norm(shape: tuple[int, ...], stretches: Any, **options: Any) -> Layer:
    """A row for a batch norm of 4 channels on stretches."""
    return Layer(
        lambda dtype, comm: nn.GhostBatchNorm(4, stretches, dtype=dtype, **options),
        shape,
        "torch has none: tests/nn/test_ghost_batch_norm.py holds it against a BatchNorm per stretch",
        (options.get("channel_axis", 1),),
        cuts=True,
    )


def used_twice(dtype: Any, comm: Communicator) -> nn.Module:
    norm = nn.BatchNorm(4, dtype=dtype)
    return nn.Sequential(norm, nn.ReLU(), nn.Linear(4, 4, bias=False, dtype=dtype), norm)


def twice_in_torch(torch: Any) -> Any:
    norm = torch.nn.BatchNorm1d(4)
    return torch.nn.Sequential(norm, torch.nn.ReLU(), torch.nn.Linear(4, 4, bias=False), norm)


def net(dtype: Any, comm: Communicator) -> nn.Module:
    draw, norm, layer = np.random.default_rng(3), nn.BatchNorm(5, dtype=dtype), nn.LayerNorm(5, dtype=dtype)
    first, last = (nn.Linear(*sizes, sizes[0] == 5, dtype, draw) for sizes in ((4, 5), (5, 2)))
    return nn.Sequential(first, norm, nn.ReLU(), layer, last)


IMAGES = (3, 4, 2, 3)
LAYERS = {
    "Linear": Layer(lambda dtype, comm: nn.Linear(4, 3, dtype=dtype), (5, 4), lambda torch: torch.nn.Linear(4, 3)),
    "Linear without bias": Layer(
        lambda dtype, comm: nn.Linear(4, 3, bias=False, dtype=dtype),
        (5, 4),
        lambda torch: torch.nn.Linear(4, 3, bias=False),
    ),
    "ReLU": Layer(lambda dtype, comm: nn.ReLU(), IMAGES, lambda torch: torch.nn.ReLU()),
    "Flatten": Layer(lambda dtype, comm: nn.Flatten(), IMAGES, lambda torch: torch.nn.Flatten(), (1, 2, 3)),
    "LayerNorm": Layer(
        lambda dtype, comm: nn.LayerNorm(4, dtype=dtype), (5, 3, 4), lambda torch: torch.nn.LayerNorm(4), (-1,)
    ),
    "LayerNorm over two axes": Layer(
        lambda dtype, comm: nn.LayerNorm((2, 3), dtype=dtype),
        IMAGES,
        lambda torch: torch.nn.LayerNorm((2, 3)),
        (-2, -1),
    ),
    "LayerNorm without affine": Layer(
        lambda dtype, comm: nn.LayerNorm(4, elementwise_affine=False, dtype=dtype),
        (5, 4),
        lambda torch: torch.nn.LayerNorm(4, elementwise_affine=False),
    ),
    "RMSNorm": rms_norm((5, 3, 4), 4),
    "RMSNorm over two axes": rms_norm(IMAGES, (2, 3), eps=1e-3),
    "RMSNorm without affine": rms_norm((5, 4), 4, elementwise_affine=False),
    "GroupNorm": group_norm((5, 6), 2, 6),
    "GroupNorm of sequences": group_norm((3, 4, 5), 1, 4),
    "GroupNorm of images": group_norm(IMAGES, 2, 4),
    "GroupNorm of images, as many groups as channels": group_norm((3, 4, 4, 5), 4, 4),
    "GroupNorm, odd groups": group_norm((3, 6, 1, 3), 2, 6, eps=0.5),
    "GroupNorm, channels last": group_norm((3, 2, 3, 6), 3, 6, channel_axis=-1),
    "GroupNorm without affine": group_norm((3, 6, 5), 3, 6, affine=False),
    "InstanceNorm of sequences": instance_norm((3, 4, 8)),
    "InstanceNorm of images": instance_norm((3, 4, 4, 5), affine=True),
    "InstanceNorm with running statistics": instance_norm((3, 4, 8), affine=True, track_running_stats=True),
    "InstanceNorm of volumes with running statistics": instance_norm(
        (3, 4, 2, 3, 4), momentum=0.7, track_running_stats=True
    ),
    "InstanceNorm, channels last": instance_norm((3, 8, 4), affine=True, track_running_stats=True, channel_axis=-1),
    "GhostBatchNorm": ghost_batch_norm((11, 4), 2),
    "GhostBatchNorm of images": ghost_batch_norm(IMAGES, 3),
    "GhostBatchNorm by offsets": ghost_batch_norm((6, 4, 3), [0, 0, 2, 2, 6]),
    "GhostBatchNorm, channels last": ghost_batch_norm((3, 2, 3, 4), 2, channel_axis=-1),
    "BatchNorm": batch_norm((5, 4)),
    "BatchNorm of sequences": batch_norm((3, 4, 5)),
    "BatchNorm of images": batch_norm(IMAGES),
    "BatchNorm of volumes": batch_norm((3, 4, 2, 1, 3)),
    "BatchNorm, channels last": batch_norm((3, 2, 3, 4), channel_axis=-1),
    "BatchNorm without affine": batch_norm((5, 4), affine=False),
    "BatchNorm with a large eps": batch_norm((5, 4), eps=0.5),
    "BatchNorm without running statistics": batch_norm((5, 4), track_running_stats=False),
    "BatchNorm, large": batch_norm((12, 4, 40, 30)),
    "SyncBatchNorm": batch_norm((5, 4), nn.SyncBatchNorm),
    "SyncBatchNorm of images": batch_norm((3, 4, 1, 2), nn.SyncBatchNorm),
    "AveragedBatchNorm": batch_norm((5, 4), nn.AveragedBatchNorm),
    "AveragedBatchNorm of images": batch_norm((3, 4, 1, 2), nn.AveragedBatchNorm),
    "Sequential": Layer(
        net,
        (7, 4),
        lambda torch: torch.nn.Sequential(
            torch.nn.Linear(4, 5, bias=False),
            torch.nn.BatchNorm1d(5),
            torch.nn.ReLU(),
            torch.nn.LayerNorm(5),
            torch.nn.Linear(5, 2),
        ),
        ranks=CONVERTED,
    ),
    "Sequential with a layer used twice": Layer(used_twice, (6, 4), twice_in_torch, ranks=CONVERTED),
}
NOT_CALLED = {
    nn.Module,
    nn.ModuleList,
}  # by anybody: one is the base, the other is for a layer that calls its parts itself


def without_row() -> set[str]:
    """The public layers that no row builds."""
    public = {getattr(nn, name) for name in nn.__all__}
    layers = {each for each in public if isinstance(each, type) and issubclass(each, nn.Module)}
    built = {type(row.build(np.float64, SerialCommunicator())) for row in LAYERS.values()}
    return {each.__name__ for each in layers - built - NOT_CALLED}


def randomised(layer: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Weights, biases and running statistics away from 1 and 0, where a lost factor would not show."""
    for p in layer.parameters():
        p.data = (rng.uniform(0.5, 1.5, p.data.shape) * rng.choice([-1, 1], p.data.shape)).astype(p.data.dtype)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm | nn.InstanceNorm) and module.running_mean is not None:
            c, dtype = module.num_features, module.running_mean.dtype
            module.running_mean = rng.normal(size=c).astype(dtype)
            module.running_var = rng.uniform(0.5, 2, c).astype(dtype)
    return layer


def built(row: Layer, dtype: Any = np.float64, comm: Communicator | None = None, seed: int = 7) -> nn.Module:
    """The row's layer, randomised alike wherever the seed is the same."""
    return randomised(row.build(dtype, comm or SerialCommunicator()), np.random.default_rng(seed))


def positions(row: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of weights that are one a position."""
    lacking = {axis % len(shape) for axis in row.channels}
    return tuple(n for axis, n in enumerate(shape) if axis not in lacking)


def over_channels(row: Layer, w: Array, values: Array) -> Array:
    """Weights of rows or positions, in the shape of the input or, if they are one a row, of the output."""
    if w.ndim == 1:
        return np.broadcast_to(w.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    return np.broadcast_to(np.expand_dims(w, tuple(axis % values.ndim for axis in row.channels)), values.shape)
