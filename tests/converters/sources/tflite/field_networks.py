"""Networks as large as detectors that people run, with random weights: what speed is compared on. Any size, for tests.

The shapes are those of the makers' papers and configurations; tails are simplified (a convolution to four numbers where
YOLO v8 decodes distributions), because only their time matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.networks import NetworkBuilder, Value, st_yolo_lc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STRIDES = (8, 16, 32)
PROBABILITIES = (1 / 256, -128)
LOWEST_SILU = -0.2785  # of x / (1 + exp(-x))


class FieldBuilder(NetworkBuilder):
    """Blocks of other makers' networks; each goes on from ``value`` unless told otherwise."""

    def _convolution(self, *given: Any) -> NetworkBuilder:
        """With results where a sigmoid bends, by scales of its own."""
        self._reach = float(self._rng.uniform(1.5, 3))
        return super()._convolution(*given)

    def silu(self) -> FieldBuilder:
        """A value times its LOGISTIC; its codes end at the largest result there is, as exporters choose them."""
        x = self.value
        gate = self._b.op("LOGISTIC", [x.index], x.shape, "int8", *PROBABILITIES)
        largest = (127 - x.zero_point) * x.scale
        scale = (largest / (1 + math.exp(-largest)) - LOWEST_SILU) / 255
        return self._to("MUL", [x.index, gate], x.shape, scale, round(-LOWEST_SILU / scale) - 128)

    def conv_silu(self, channels: int, kernel: int = 3, stride: int = 1) -> FieldBuilder:
        """YOLO's convolution."""
        self.conv(channels, kernel, stride)
        return self.silu()

    def add(self, a: Value, b: Value, activation: str = "NONE") -> FieldBuilder:
        """ADD of two values of one shape."""
        lowest = -128 if activation == "RELU" else 3
        return self._to("ADD", [a.index, b.index], a.shape, 1.2871 * a.scale, lowest, fused_activation=activation)

    def concatenate(self, parts: Sequence[Value]) -> FieldBuilder:
        """CONCATENATION of channels in the largest scale of a part; the others are requantised, as by exporters."""
        widest = max(parts, key=lambda part: part.scale)
        shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
        indices = [self._scaled_as(widest, part, part.shape) for part in parts]
        return self._to("CONCATENATION", indices, shape, widest.scale, widest.zero_point, axis=3)

    def halves(self) -> tuple[Value, Value]:
        """SPLIT of the channels."""
        x = self.value
        shape = (*x.shape[:3], x.shape[3] // 2)
        axis = self._b.constant(np.array(3, np.int32))
        parts = [
            self._b.tensor(f"{side}:{x.index}", shape, "int8", x.scale, x.zero_point) for side in ("left", "right")
        ]
        self._b.operator("SPLIT", [axis, x.index], parts, num_splits=2)
        left, right = (Value(part, shape, x.scale, x.zero_point) for part in parts)
        return left, right

    def twice_as_large(self) -> FieldBuilder:
        """RESIZE_NEAREST_NEIGHBOR by two."""
        n, h, w, c = self.value.shape
        sizes = self._b.constant(np.array([2 * h, 2 * w], np.int32))
        self._same_codes("RESIZE_NEAREST_NEIGHBOR", [self.value.index, sizes], (n, 2 * h, 2 * w, c))
        return self

    def pool(self, kernel: int, stride: int) -> FieldBuilder:
        """MAX_POOL_2D, SAME."""
        n, h, w, c = self.value.shape
        shape = (n, -(-h // stride), -(-w // stride), c)
        options = {"padding": "SAME", "filter_h": kernel, "filter_w": kernel, "stride_h": stride, "stride_w": stride}
        self._same_codes("MAX_POOL_2D", [self.value.index], shape, **options)
        return self

    def fill_channels(self, channels: int) -> FieldBuilder:
        """PAD of the channels."""
        edges = np.zeros((4, 2), np.int32)
        edges[3, 1] = channels - self.value.shape[3]
        self._same_codes("PAD", [self.value.index, self._b.constant(edges)], (*self.value.shape[:3], channels))
        return self

    def pooled_pyramid(self, channels: int) -> FieldBuilder:
        """SPPF: three pools in a row beside what they pool."""
        self.conv_silu(channels // 2, 1)
        parts = [self.value]
        for _ in range(3):
            self.pool(5, 1)
            parts.append(self.value)
        return self.concatenate(parts).conv_silu(channels, 1)

    def c2f(self, channels: int, count: int = 1, *, residual: bool = False) -> FieldBuilder:
        """YOLO v8's stage: halves, and bottlenecks behind the second one, all joined."""
        parts = [*self.conv_silu(channels, 1).halves()]
        for _ in range(count):
            self.value = before = parts[-1]
            self.conv_silu(channels // 2).conv_silu(channels // 2)
            if residual:
                self.add(before, self.value)
            parts.append(self.value)
        return self.concatenate(parts).conv_silu(channels, 1)

    def c3(self, channels: int, count: int = 1, *, residual: bool = False) -> FieldBuilder:
        """YOLO v5's stage: bottlenecks beside a plain convolution."""
        start = self.value
        self.conv_silu(channels // 2, 1)
        for _ in range(count):
            before = self.value
            self.conv_silu(channels // 2, 1).conv_silu(channels // 2)
            if residual:
                self.add(before, self.value)
        deep, self.value = self.value, start
        plain = self.conv_silu(channels // 2, 1).value
        return self.concatenate([deep, plain]).conv_silu(channels, 1)

    def blaze(self, channels: int, stride: int = 1) -> FieldBuilder:
        """BlazeFace's block: a depthwise and a 1x1 convolution, beside the input, pooled and filled with channels."""
        before = self.value
        self.depthwise(stride)
        deep = self.conv(channels, 1).value
        self.value = before
        if stride == 2:
            self.pool(2, 2)
        if before.shape[3] < channels:
            self.fill_channels(channels)
        return self.add(deep, self.value, "RELU")

    def rows(self, each: int) -> Value:
        """The map as rows of ``each`` numbers, ``(1, rows, 1, each)`` seen as a value."""
        n, h, w, c = self.value.shape
        shape = (n, h * w * c // each, each)
        sizes = self._b.constant(np.array(shape, np.int32))
        index = self._b.op("RESHAPE", [self.value.index, sizes], shape, "int8", self.value.scale, self.value.zero_point)
        return Value(index, (n, shape[1], 1, each), self.value.scale, self.value.zero_point)

    def stack(self, parts: Sequence[Value], activation: str = "", name: str = "out", *, turned: bool = False) -> int:
        """Rows of several maps as one float32 output ``(1, rows, each)``, or ``(1, each, rows)``."""
        widest = max(parts, key=lambda part: part.scale)
        shape: tuple[int, ...] = (1, sum(part.shape[1] for part in parts), parts[0].shape[3])
        codes = (widest.scale, widest.zero_point)
        # LiteRT joins codes of one scale only
        indices = [self._scaled_as(widest, part, (1, part.shape[1], part.shape[3])) for part in parts]
        index = self._b.op("CONCATENATION", indices, shape, "int8", *codes, axis=1)
        if activation:
            codes = PROBABILITIES
            index = self._b.op(activation, [index], shape, "int8", *codes)
        if turned:
            shape = (1, shape[2], shape[1])
            order = self._b.constant(np.array([0, 2, 1], np.int32))
            index = self._b.op("TRANSPOSE", [index, order], shape, "int8", *codes)
        return self._b.op("DEQUANTIZE", [index], shape, "float32", name=name)

    def real(self, name: str) -> int:
        """``value`` as a float32 output."""
        return self._b.op("DEQUANTIZE", [self.value.index], self.value.shape, "float32", name=name)

    def attention(self, heads: int = 2) -> FieldBuilder:
        """YOLO11's: every place weighs all others by products of what is computed, then a residual."""
        before = self.value
        _, rows, columns, channels = before.shape
        places, width = rows * columns, channels // heads
        qkv = self.conv(3 * channels, 1).value
        shape = (1, heads, places, 3 * width)
        each = self._moved("RESHAPE", qkv.index, (1, places, heads, 3 * width), (1, places, heads, 3 * width), qkv)
        each = self._moved("TRANSPOSE", each, (0, 2, 1, 3), shape, qkv)
        query, key, value = (self._channels(each, shape, i * width, width, qkv) for i in range(3))
        spread = qkv.scale * 90  # codes of a convolution behind a pyramid of pools
        scores_shape = (1, heads, places, places)
        codes = (spread**2 * math.sqrt(width) / 20, 0)
        scores = self._b.op("BATCH_MATMUL", [query, key], scores_shape, "int8", *codes, version=3, adj_y=True)
        factor = self._b.constant(np.array([127], np.int8), 2 / math.sqrt(width) / 127 / spread**2)
        scores = self._b.op("MUL", [scores, factor], scores_shape, "int8", 2 / 20, 0, version=2)
        shares = self._b.op("SOFTMAX", [scores], scores_shape, "int8", *PROBABILITIES, version=2, beta=1.0)
        mixed_shape, codes = (1, heads, places, width), (qkv.scale, 0)
        mixed = self._b.op("BATCH_MATMUL", [shares, value], mixed_shape, "int8", *codes, version=3)
        self.value = Value(mixed, before.shape, *codes)
        turned = self._moved("TRANSPOSE", mixed, (0, 2, 1, 3), (1, places, heads, width), self.value)
        joined = self._moved("RESHAPE", turned, before.shape, before.shape, self.value)
        self.value = Value(joined, before.shape, *codes)
        return self.add(before, self.conv(channels, 1).value)

    def distances(self, parts: Sequence[Value], bins: int = 16) -> int:
        """Rows of distributions as their means, distances to four sides: float32 ``(1, rows, 4, 1)``."""
        widest = max(parts, key=lambda part: part.scale)
        count = sum(part.shape[1] for part in parts)
        indices = [self._scaled_as(widest, part, (1, part.shape[1], 4 * bins)) for part in parts]
        shape, codes = (1, count, 4, bins), (widest.scale, widest.zero_point)
        joined = self._b.op("CONCATENATION", indices, (1, count, 4 * bins), "int8", *codes, axis=1)
        logits = self._moved("RESHAPE", joined, shape, shape, widest)
        shares = self._b.op("SOFTMAX", [logits], shape, "int8", *PROBABILITIES, version=2, beta=1.0)
        steps = self._b.constant(np.arange(bins, dtype=np.int8).reshape(1, 1, 1, bins) * 8, 1 / 8)
        operands = [shares, steps, self._b.constant(np.zeros(1, np.int32), 1 / 8 / 256)]
        index = self._b.op("CONV_2D", operands, (1, count, 4, 1), "int8", (bins - 1) / 255, -128, version=3)
        return self._b.op("DEQUANTIZE", [index], (1, count, 4, 1), "float32", name="distances")

    def file(self, outputs: Sequence[int]) -> bytes:
        """The file with these outputs."""
        return self._b.build(list(outputs))

    def _moved(self, op: str, index: int, how: Sequence[int], shape: Sequence[int], like: Value) -> int:
        """The codes of a tensor in another shape or order."""
        operands = [index, self._b.constant(np.array(how, np.int32))]
        return self._b.op(op, operands, shape, "int8", like.scale, like.zero_point)

    def _channels(self, index: int, shape: Sequence[int], start: int, count: int, like: Value) -> int:
        """STRIDED_SLICE of the last axis."""
        first, last = [0] * len(shape), list(shape)
        first[-1], last[-1] = start, start + count
        bounds = [self._b.constant(np.array(bound, np.int32)) for bound in (first, last, [1] * len(shape))]
        codes = (like.scale, like.zero_point)
        return self._b.op("STRIDED_SLICE", [index, *bounds], (*shape[:-1], count), "int8", *codes, version=2)

    def _scaled_as(self, like: Value, part: Value, shape: tuple[int, ...]) -> int:
        """The tensor of ``part``, behind a QUANTIZE where its scale or zero-point is another."""
        if (part.scale, part.zero_point) == (like.scale, like.zero_point):
            return part.index
        return self._b.op("QUANTIZE", [part.index], shape, "int8", like.scale, like.zero_point)

    def _to(
        self, op: str, operands: Sequence[int], shape: tuple[int, ...], scale: float, zero_point: int, **options: Any
    ) -> FieldBuilder:
        index = self._b.op(op, list(operands), shape, "int8", scale, zero_point, **options)
        self.value = Value(index, shape, scale, zero_point)  # type: ignore[arg-type]  # four sizes
        return self


def yolo_v8n(size: int = 224, classes: int = 80, width: int = 16, *, attention: bool = False, bins: int = 0) -> bytes:
    """YOLOv8n: C2f stages, SPPF, a neck of two ways, one decoded output ``(1, 4 + classes, boxes)``.

    With ``attention`` behind the SPPF, as in YOLO11; with ``bins`` two outputs, distances of distributions and scores.
    """
    net, w = FieldBuilder(size, seed=8), width
    net.conv_silu(w, stride=2).conv_silu(2 * w, stride=2).c2f(2 * w, residual=True)
    p3 = net.conv_silu(4 * w, stride=2).c2f(4 * w, 2, residual=True).value
    p4 = net.conv_silu(8 * w, stride=2).c2f(8 * w, 2, residual=True).value
    p5 = net.conv_silu(16 * w, stride=2).c2f(16 * w, residual=True).pooled_pyramid(16 * w).value
    if attention:
        p5 = net.attention().value
    n4 = net.twice_as_large().concatenate([net.value, p4]).c2f(8 * w).value
    maps = [net.twice_as_large().concatenate([net.value, p3]).c2f(4 * w).value]
    maps.append(net.conv_silu(4 * w, stride=2).concatenate([net.value, n4]).c2f(8 * w).value)
    maps.append(net.conv_silu(8 * w, stride=2).concatenate([net.value, p5]).c2f(16 * w).value)
    boxes, scores, rows = list[Value](), list[Value](), list[Value]()
    for start in maps:
        net.value = start
        box = net.conv_silu(4 * w).conv_silu(4 * w).conv(4 * bins or 4, 1).value
        if bins:
            boxes.append(net.rows(4 * bins))
        net.value = start
        score = net.conv_silu(5 * w).conv_silu(5 * w).conv(classes, 1).value
        if bins:
            scores.append(net.rows(classes))
        else:
            rows.append(net.concatenate([box, score]).rows(4 + classes))
    if bins:
        return net.file([net.distances(boxes, bins), net.stack(scores, "LOGISTIC", "scores")])
    return net.file([net.stack(rows, "LOGISTIC", turned=True)])


def yolo_v5n(size: int = 320, classes: int = 80, width: int = 16) -> bytes:
    """YOLOv5n: C3 stages, SPPF, a neck of two ways, three raw grids of three anchors."""
    net, w = FieldBuilder(size, seed=5), width
    net.conv_silu(w, 6, 2).conv_silu(2 * w, stride=2).c3(2 * w, residual=True)
    p3 = net.conv_silu(4 * w, stride=2).c3(4 * w, 2, residual=True).value
    p4 = net.conv_silu(8 * w, stride=2).c3(8 * w, 3, residual=True).value
    p5 = net.conv_silu(16 * w, stride=2).c3(16 * w, residual=True)
    n5 = p5.pooled_pyramid(16 * w).conv_silu(8 * w, 1).value
    n4 = net.twice_as_large().concatenate([net.value, p4]).c3(8 * w).conv_silu(4 * w, 1).value
    maps = [net.twice_as_large().concatenate([net.value, p3]).c3(4 * w).value]
    maps.append(net.conv_silu(4 * w, stride=2).concatenate([net.value, n4]).c3(8 * w).value)
    maps.append(net.conv_silu(8 * w, stride=2).concatenate([net.value, n5]).c3(16 * w).value)
    outputs = []
    for start, stride in zip(maps, STRIDES, strict=True):
        net.value = start
        net.conv(3 * (5 + classes), 1)
        outputs.append(net.real(f"stride_{stride}"))
    return net.file(outputs)


def mobilenet_ssd(size: int = 300, classes: int = 90) -> bytes:
    """MobileNet v1 SSD of TensorFlow's zoo: RELU6 throughout, six maps, scores by a LOGISTIC."""
    net = FieldBuilder(size, seed=1)
    net.conv(32, stride=2, activation="RELU6")
    widths = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5)
    for channels, stride in (*widths, (1024, 2), (1024, 1)):
        net.depthwise(stride, activation="RELU6").conv(channels, 1, activation="RELU6")
        if channels == 512:
            fourth = net.value
    maps = [fourth, net.value]
    for channels in (512, 256, 256, 128):
        net.conv(channels // 2, 1, activation="RELU6").conv(channels, stride=2, activation="RELU6")
        maps.append(net.value)
    offsets: list[Value] = []
    scores: list[Value] = []
    for place, start in enumerate(maps):
        priors = 6 if place else 3
        for values, found in ((4, offsets), (classes + 1, scores)):
            net.value = start
            net.conv(priors * values, 1)
            found.append(net.rows(values))
    return net.file([net.stack(offsets, name="offsets"), net.stack(scores, "LOGISTIC", "scores")])


def blazeface(size: int = 128) -> bytes:
    """BlazeFace of close range: residual blocks of few channels, two boxes a cell of stride 8, six of stride 16."""
    net = FieldBuilder(size, seed=3)
    net.conv(24, 5, stride=2, activation="RELU")
    for channels, stride in (
        (24, 1),
        (28, 1),
        (32, 2),
        (36, 1),
        (42, 1),
        (48, 2),
        *((c, 1) for c in (56, 64, 72, 80, 88)),
    ):
        net.blaze(channels, stride)
    maps = [net.value]
    for stride in (2, 1, 1, 1, 1):
        net.blaze(96, stride)
    maps.append(net.value)
    boxes: list[Value] = []
    scores: list[Value] = []
    for start, each in zip(maps, (2, 6), strict=True):
        for values, found in ((1, scores), (16, boxes)):
            net.value = start
            net.conv(each * values, 1)
            found.append(net.rows(values))
    return net.file([net.stack(scores, name="scores"), net.stack(boxes, name="boxes")])


@dataclass(frozen=True)
class FieldNetwork:
    """One of them: how to build it, its usual size, and what its sidecar says."""

    build: Callable[[int], bytes]
    size: int
    sidecar: dict[str, Any]


def _names(count: int) -> list[str]:
    return [f"class_{place}" for place in range(count)]


FIELD: dict[str, FieldNetwork] = {
    "st_yolo_lc_192": FieldNetwork(
        st_yolo_lc,
        192,
        {"head": "yolo_v2", "class_names": ["person"], "anchors": [[i, i] for i in range(1, 6)], "anchor_unit": "cell"},
    ),
    "mobilenet_ssd_300": FieldNetwork(
        mobilenet_ssd, 300, {"head": "ssd", "class_names": _names(90), "priors": "coco-ssd", "score_activation": "none"}
    ),
    "yolo_v8n_224": FieldNetwork(yolo_v8n, 224, {"head": "yolo_v8", "class_names": _names(80)}),
    "yolo_v5n_320": FieldNetwork(
        yolo_v5n,
        320,
        {
            "head": "yolo_v5_raw",
            "class_names": _names(80),
            "anchors": [[8 * i, 7 * i] for i in range(1, 10)],
            "anchor_unit": "pixel",
        },
    ),
    "blazeface_128": FieldNetwork(blazeface, 128, {"head": "blazeface", "class_names": ["face"]}),
}
