"""Padding in pixels, as sources state it and as nodes of the graph do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdet.checking.finished_graph import Node


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """SAME padding of one axis, (before, after): the odd pixel goes after, in TFLite as in Keras.

    Source: tensorflow/lite/kernels/padding.h.
    """
    covered = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    total = max(covered - size, 0)
    return total // 2, total - total // 2


def actual_pads(node: Node, sizes: Sequence[int], window: Mapping[str, tuple[int, int]]) -> tuple[int, ...]:
    """What a pool or convolution really pads: top, left, bottom, right.

    Args:
        node: the node, with ``pads`` or ``auto_pad``.
        sizes: height and width of its input.
        window: its ``kernel_shape``, ``strides`` and, where it has them, ``dilations``.
    """
    rule = node.attributes.get("auto_pad", "NOTSET")
    if rule not in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(node.attributes.get("pads", (0, 0, 0, 0))) if rule == "NOTSET" else (0, 0, 0, 0)
    pads = [
        same_padding(size, k, s, d)
        for size, k, s, d in zip(
            sizes, window["kernel_shape"], window["strides"], window.get("dilations", (1, 1)), strict=True
        )
    ]
    if rule == "SAME_LOWER":
        pads = [(after, before) for before, after in pads]
    return (pads[0][0], pads[1][0], pads[0][1], pads[1][1])
