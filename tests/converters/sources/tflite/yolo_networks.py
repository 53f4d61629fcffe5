"""Networks with the blocks of YOLOv5n, YOLOv8n and YOLO11n, of random weights: uint8 in, int8 layers, raw int8 out.

Scales follow the spread of the codes, so that no layer saturates: SiLU as LOGISTIC and MUL, C3 and C2f blocks, pyramid
pools, attention by BATCH_MATMUL and SOFTMAX, nearest upsampling, and a head of boxes as distributions (SOFTMAX over 16
bins).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

PROBABILITIES = (1 / 256, -128)
SPREAD = 40  # codes, one standard deviation


@dataclass(frozen=True)
class Codes:
    """An int8 tensor: its index, shape, scale and zero-point."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int


class YoloNetwork:
    """A network under construction."""

    def __init__(self, size: int, seed: int) -> None:
        self.b, self.rng = TfliteBuilder(), np.random.default_rng(seed)
        shape = (1, size, size, 3)
        pixels = self.b.input("image", shape, "uint8", 1 / 255, 0)
        index = self.b.op("QUANTIZE", [pixels], shape, "int8", 1 / 255, -128, name="codes")
        self.image = Codes(index, shape, 1 / 255, -128)

    def op(
        self, op: str, operands: Sequence[int], shape: tuple[int, ...], scale: float, zero_point: int, **options: Any
    ) -> Codes:
        """An operator and its output."""
        version = {"CONV_2D": 3, "BATCH_MATMUL": 3, "RESHAPE": 1}.get(op, 2)
        index = self.b.op(op, operands, shape, "int8", scale, zero_point, version=version, **options)
        return Codes(index, shape, scale, zero_point)

    def ints(self, *values: int) -> int:
        """An int32 constant."""
        return self.b.constant(np.array(values, np.int32))

    def near(self, scale: float) -> float:
        """An irregular scale."""
        return scale * float(self.rng.uniform(0.8, 1.2))

    def conv(self, x: Codes, channels: int, kernel: int = 1, stride: int = 1, *, silu: bool = True) -> Codes:
        """A convolution with a scale per channel, and SiLU."""
        side, length = -(-x.shape[1] // stride), kernel * kernel * x.shape[3]
        taps = np.clip(self.rng.normal(0, SPREAD, (channels, kernel, kernel, x.shape[3])), -127, 127)
        scales = self.rng.uniform(0.7, 1.3, channels).astype(np.float32)
        scales *= np.float32(1.4 / (SPREAD**2 * x.scale * math.sqrt(length)))  # a spread of 1.4 behind it
        bias_scales = scales * np.float32(x.scale)
        bias = self.rng.normal(0, 500, channels).astype(np.int32)
        operands = [x.index, self.b.constant(np.rint(taps).astype(np.int8), scales), self.b.constant(bias, bias_scales)]
        scale = self.near(14 / 255)
        y = self.op("CONV_2D", operands, (1, side, side, channels), scale, int(self.rng.integers(-8, 8)),
                    padding="SAME", stride_h=stride, stride_w=stride)  # fmt: skip
        return self.silu(y) if silu else y

    def silu(self, x: Codes) -> Codes:
        """A tensor times its LOGISTIC."""
        gate = self.op("LOGISTIC", [x.index], x.shape, *PROBABILITIES)
        scale = self.near(7 / 255)
        return self.op("MUL", [x.index, gate.index], x.shape, scale, round(-128 + 0.279 / scale))

    def add(self, a: Codes, b: Codes) -> Codes:
        """A sum, as wide as both spreads."""
        return self.op("ADD", [a.index, b.index], a.shape, self.near(max(a.scale, b.scale) * 1.3), -60)

    def join(self, parts: Sequence[Codes], axis: int = 3) -> Codes:
        """A CONCATENATION, behind a QUANTIZE for every part of another scale."""
        widest = max(parts, key=lambda part: part.scale)
        same = [
            part
            if (part.scale, part.zero_point) == (widest.scale, widest.zero_point)
            else self.op("QUANTIZE", [part.index], part.shape, widest.scale, widest.zero_point)
            for part in parts
        ]
        total = sum(part.shape[axis] for part in parts)
        shape = tuple(total if i == axis else n for i, n in enumerate(parts[0].shape))
        return self.op("CONCATENATION", [p.index for p in same], shape, widest.scale, widest.zero_point, axis=axis)

    def reshape(self, x: Codes, shape: tuple[int, ...]) -> Codes:
        """The same codes in another shape."""
        return self.op("RESHAPE", [x.index, self.ints(*shape)], shape, x.scale, x.zero_point)

    def transpose(self, x: Codes, order: tuple[int, ...]) -> Codes:
        """The same codes in another order."""
        shape = tuple(x.shape[i] for i in order)
        return self.op("TRANSPOSE", [x.index, self.ints(*order)], shape, x.scale, x.zero_point)

    def part(self, x: Codes, start: int, size: int) -> Codes:
        """Some channels."""
        begin, end = [0] * len(x.shape), list(x.shape)
        begin[-1], end[-1] = start, start + size
        shape = (*x.shape[:-1], size)
        operands = [x.index, self.ints(*begin), self.ints(*end), self.ints(*[1] * len(x.shape))]
        return self.op("STRIDED_SLICE", operands, shape, x.scale, x.zero_point)

    def bottleneck(self, x: Codes) -> Codes:
        """Two convolutions around which codes pass by."""
        return self.add(x, self.conv(self.conv(x, x.shape[3], 3), x.shape[3], 3))

    def c2f(self, x: Codes, channels: int) -> Codes:
        """Halves, one of them through a bottleneck, joined."""
        y = self.conv(x, channels)
        parts = [self.part(y, 0, channels // 2), self.part(y, channels // 2, channels // 2)]
        return self.conv(self.join([*parts, self.bottleneck(parts[1])]), channels)

    def c3(self, x: Codes, channels: int) -> Codes:
        """A bottleneck beside a convolution, joined."""
        return self.conv(
            self.join([self.bottleneck(self.conv(x, channels // 2)), self.conv(x, channels // 2)]), channels
        )

    def sppf(self, x: Codes) -> Codes:
        """Three pools behind one another, joined."""
        parts = [self.conv(x, x.shape[3] // 2)]
        for _ in range(3):
            last = parts[-1]
            parts.append(
                self.op(
                    "MAX_POOL_2D",
                    [last.index],
                    last.shape,
                    last.scale,
                    last.zero_point,
                    padding="SAME",
                    filter_h=5,
                    filter_w=5,
                    stride_h=1,
                    stride_w=1,
                )
            )
        return self.conv(self.join(parts), x.shape[3])

    def upsample(self, x: Codes) -> Codes:
        """Twice the size."""
        sizes = (2 * x.shape[1], 2 * x.shape[2])
        shape = (1, *sizes, x.shape[3])
        return self.op("RESIZE_NEAREST_NEIGHBOR", [x.index, self.ints(*sizes)], shape, x.scale, x.zero_point)

    def attention(self, x: Codes, heads: int = 2) -> Codes:
        """Every place weighs all others by run-time products, then a residual."""
        _, rows, columns, channels = x.shape
        places, width = rows * columns, channels // heads
        qkv = self.conv(x, 3 * channels, silu=False)
        each = self.transpose(self.reshape(qkv, (1, places, heads, 3 * width)), (0, 2, 1, 3))
        query, key, value = (self.part(each, i * width, width) for i in range(3))
        spread = qkv.scale * SPREAD
        scores = self.op("BATCH_MATMUL", [query.index, key.index], (1, heads, places, places),
                         self.near(spread**2 * math.sqrt(width) / SPREAD), 0, adj_y=True)  # fmt: skip
        factor = self.b.constant(np.array([127], np.int8), 1 / math.sqrt(width) / 127 / spread**2 * 2)
        scores = self.op("MUL", [scores.index, factor], scores.shape, self.near(2 / SPREAD), 0)
        shares = self.op("SOFTMAX", [scores.index], scores.shape, *PROBABILITIES, beta=1.0)
        mixed = self.op("BATCH_MATMUL", [shares.index, value.index], (1, heads, places, width),
                        self.near(qkv.scale / 4), 0)  # fmt: skip
        mixed = self.reshape(self.transpose(mixed, (0, 2, 1, 3)), (1, rows, columns, channels))
        return self.add(x, self.conv(mixed, channels, silu=False))

    def boxes(self, grids: Sequence[Codes], classes: int) -> Codes:
        """As Ultralytics exports it, up to the arithmetic on boxes: distances of distributions, and scores."""
        flat = []
        for grid in grids:
            count = grid.shape[1] * grid.shape[2]
            flat.append(self.reshape(self.conv(grid, 64 + classes, silu=False), (1, count, 64 + classes)))
        joined = self.join(flat, axis=1)
        count = joined.shape[1]
        bins = self.reshape(self.part(joined, 0, 64), (1, count, 4, 16))
        shares = self.op("SOFTMAX", [bins.index], bins.shape, *PROBABILITIES, beta=1.0)
        steps = self.b.constant(np.arange(16, dtype=np.int8).reshape(1, 1, 1, 16) * 8, 1 / 8)
        bias = self.b.constant(np.zeros(1, np.int32), 1 / 8 / 256)
        distances = self.op("CONV_2D", [shares.index, steps, bias], (1, count, 4, 1), 15 / 255, -128)
        scores = self.op("LOGISTIC", [self.part(joined, 64, classes).index], (1, count, classes), *PROBABILITIES)
        return self.join([self.reshape(distances, (1, count, 4)), scores], axis=2)


def yolo(kind: str, size: int = 64, width: int = 8, seed: int = 0) -> bytes:
    """``v5``, ``v8`` or ``v11``: three grids of strides 8, 16 and 32."""
    net = YoloNetwork(size, seed)
    block = net.c3 if kind == "v5" else net.c2f
    x = net.conv(net.conv(net.image, width, 6 if kind == "v5" else 3, 2), 2 * width, 3, 2)
    x = block(x, 2 * width)
    small = block(net.conv(x, 4 * width, 3, 2), 4 * width)
    middle = block(net.conv(small, 8 * width, 3, 2), 8 * width)
    large = net.sppf(block(net.conv(middle, 8 * width, 3, 2), 8 * width))
    large = net.attention(large) if kind == "v11" else large
    middle = block(net.join([net.upsample(large), middle]), 8 * width)
    small = block(net.join([net.upsample(middle), small]), 4 * width)
    middle = block(net.join([net.conv(small, 4 * width, 3, 2), middle]), 8 * width)
    large = block(net.join([net.conv(middle, 8 * width, 3, 2), large]), 8 * width)
    if kind == "v5":
        heads = [net.conv(grid, 21, silu=False) for grid in (small, middle, large)]
        return net.b.build([net.op("LOGISTIC", [g.index], g.shape, *PROBABILITIES).index for g in heads])
    return net.b.build([net.boxes([small, middle, large], 3).index])
