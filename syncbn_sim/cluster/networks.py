"""The batch-norm layers of real networks: their channels, in order, from the papers' tables."""

from __future__ import annotations

from ..errors import named

# MobileNetV2's table 2: expansion t, channels c, repeats n. EfficientNet-B0's table 1 has the same form.
_MOBILENET_V2 = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_EFFICIENTNET_B0 = ((1, 16, 1), (6, 24, 2), (6, 40, 2), (6, 80, 3), (6, 112, 3), (6, 192, 4), (6, 320, 1))


def resnet50() -> list[int]:
    """He et al. (2016), table 1: bottlenecks of (planes, planes, 4 planes), a projection in the first of each stage."""
    channels = [64]
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            channels += [planes, planes, 4 * planes] + [4 * planes] * (block == 0)
    return channels


def mobilenet_v2() -> list[int]:
    """Sandler et al. (2018), table 2."""
    return [32, *_inverted_residuals(_MOBILENET_V2, 32), 1280]


def efficientnet_b3() -> list[int]:
    """Tan & Le (2019): B0 with widths times 1.2, rounded to multiples of 8, and depths times 1.4, rounded up."""
    table = tuple((t, _scaled(c, 1.2), -(-14 * n // 10)) for t, c, n in _EFFICIENTNET_B0)
    return [_scaled(32, 1.2), *_inverted_residuals(table, _scaled(32, 1.2)), _scaled(1280, 1.2)]


def _inverted_residuals(table: tuple[tuple[int, int, int], ...], width: int) -> list[int]:
    """Expand (unless t is 1), depthwise, project: a batch norm each."""
    channels = []
    for expansion, out, repeats in table:
        for _ in range(repeats):
            channels += [width * expansion] * (1 if expansion == 1 else 2) + [out]
            width = out
    return channels


def _scaled(channels: int, factor: float) -> int:
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


NETWORKS = {
    "resnet50": resnet50(),
    "mobilenet_v2": mobilenet_v2(),
    "efficientnet_b3": efficientnet_b3(),
    "mlp": [64, 64],
}


def network_named(name: str) -> list[int]:
    """Channels of each batch norm of a network.

    Raises:
        ArgumentError: an unknown one; the nearest is suggested.
    """
    return named("model", name, NETWORKS)
