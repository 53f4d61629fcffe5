"""Small networks with the outputs of other makers' detectors, of random weights: uint8 in, int8 layers, float32 out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 64
CODES = (0.05, 3)  # scale and zero-point of what convolutions give
PROBABILITIES = (1 / 256, -128)


class LookAlike:
    """A picture of 64 x 64, and one convolution for every grid that is asked for."""

    def __init__(self, size: int = SIZE, seed: int = 5) -> None:
        self.b, self.size, self._rng = TfliteBuilder(), size, np.random.default_rng(seed)
        shape = (1, size, size, 3)
        pixels = self.b.input("image", shape, "uint8", 1 / 255, 0)
        self._codes = self.b.op("QUANTIZE", [pixels], shape, "int8", 1 / 255, -128, name="codes")

    def grid(self, stride: int, channels: int, scale: float = CODES[0]) -> int:
        """A convolution of this stride over the picture, ``[1, side, side, channels]``."""
        weights = self.b.constant(self._rng.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8), 0.01)
        bias = self.b.constant(self._rng.integers(-500, 500, channels).astype(np.int32), 0.01 / 255)
        side = self.size // stride
        options: dict[str, Any] = {"padding": "SAME", "stride_h": stride, "stride_w": stride}
        operands = [self._codes, weights, bias]
        return self.b.op("CONV_2D", operands, (1, side, side, channels), "int8", scale, CODES[1], version=3, **options)

    def reshaped(self, tensor: int, shape: Sequence[int], scale: float = CODES[0], zero_point: int = CODES[1]) -> int:
        """The same numbers in another shape."""
        sizes = self.b.constant(np.array(shape, np.int32))
        return self.b.op("RESHAPE", [tensor, sizes], shape, "int8", scale, zero_point)

    def activated(self, op: str, tensor: int, shape: Sequence[int]) -> int:
        """Through LOGISTIC or SOFTMAX."""
        options: dict[str, Any] = {"beta": 1.0} if op == "SOFTMAX" else {}
        return self.b.op(op, [tensor], shape, "int8", *PROBABILITIES, **options)

    def real(self, tensor: int, shape: Sequence[int], name: str) -> int:
        """As float32 numbers."""
        return self.b.op("DEQUANTIZE", [tensor], shape, "float32", name=name)


def three_grids(channels: int, *, anchors_first: int = 0) -> bytes:
    """Raw grids at strides 32, 8 and 16, in this order; ``anchors_first``: as ``[A, rows, columns, values]``."""
    net, outputs = LookAlike(), []
    for stride in (32, 8, 16):
        side = SIZE // stride
        grid, shape = net.grid(stride, channels), (1, side, side, channels)
        if anchors_first:
            parts = (1, side, side, anchors_first, channels // anchors_first)
            shape = (1, anchors_first, side, side, parts[-1])  # type: ignore[assignment]  # one rank more
            order = net.b.constant(np.array([0, 3, 1, 2, 4], np.int32))
            grid = net.b.op("TRANSPOSE", [net.reshaped(grid, parts), order], shape, "int8", *CODES)
        outputs.append(net.real(grid, shape, f"stride_{stride}"))
    return net.b.build(outputs)


def blazeface(*, keypoints: int = 6, separate: bool = False) -> bytes:
    """BlazeFace of close range: two boxes a cell of stride 8, six of stride 16; scores in front of the boxes."""
    net, boxes, scores = LookAlike(), [], []
    for stride, each in ((8, 2), (16, 6)):
        count, values = (SIZE // stride) ** 2 * each, 4 + 2 * keypoints
        boxes.append(net.reshaped(net.grid(stride, each * values), (1, count, values)))
        scores.append(net.reshaped(net.grid(stride, each), (1, count, 1)))
    counts = [(SIZE // stride) ** 2 * each for stride, each in ((8, 2), (16, 6))]
    if separate:
        outputs = [*zip(scores, counts, [1, 1], strict=True), *zip(boxes, counts, [values] * 2, strict=True)]
    else:
        total = sum(counts)
        joined = [
            net.b.op("CONCATENATION", parts, (1, total, width), "int8", *CODES, axis=1)
            for parts, width in ((scores, 1), (boxes, values))
        ]
        outputs = [(joined[0], total, 1), (joined[1], total, values)]
    return net.b.build(
        [net.real(index, (1, count, width), f"out_{i}") for i, (index, count, width) in enumerate(outputs)]
    )


def fastestdet(classes: int) -> bytes:
    """FastestDet: objectness by a sigmoid, the place raw, classes by a softmax, in one grid of stride 8."""
    net, side = LookAlike(), SIZE // 8
    parts = [
        net.activated("LOGISTIC", net.grid(8, 1), (1, side, side, 1)),
        net.grid(8, 4),
        net.activated("SOFTMAX", net.grid(8, classes), (1, side, side, classes)),
    ]
    shape = (1, side, side, 5 + classes)
    reals = [
        net.real(part, (1, side, side, n), f"part_{n}_{i}")
        for i, (part, n) in enumerate(zip(parts, (1, 4, classes), strict=True))
    ]
    return net.b.build([net.b.op("CONCATENATION", reals, shape, "float32", axis=3, name="out")])


def yolo_v8(classes: int) -> bytes:
    """As Ultralytics exports it: ``[1, 4 + classes, boxes]`` of three strides, boxes as fractions of the picture."""
    net, values = LookAlike(), 4 + classes
    counts = [(SIZE // stride) ** 2 for stride in (8, 16, 32)]
    rows = [
        net.reshaped(net.grid(stride, values), (1, count, values))
        for stride, count in zip((8, 16, 32), counts, strict=True)
    ]
    total = sum(counts)
    joined = net.b.op("CONCATENATION", rows, (1, total, values), "int8", *CODES, axis=1)
    activated = net.activated("LOGISTIC", joined, (1, total, values))
    order = net.b.constant(np.array([0, 2, 1], np.int32))
    turned = net.b.op("TRANSPOSE", [activated, order], (1, values, total), "int8", *PROBABILITIES)
    return net.b.build([net.real(turned, (1, values, total), "out")])
