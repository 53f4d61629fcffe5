"""Whole detectors with random weights as TFLite files: the shapes of the zoo's two families, as exporters write them.

uint8 pixels, a QUANTIZE to int8, int8 layers with per-channel weights, float32 output behind a DEQUANTIZE. Scales are
chosen from the weights' sizes so that codes neither vanish nor saturate after many layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.description.statements import SourceOptions
from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD_CHANNELS = 30  # 5 anchors x (5 + 1 class)
TYPICAL_CODE = 60.0  # root mean square of codes relative to the zero-point
RELU6_SCALE = 6 / 220  # codes 221..255 lie above 6: the clamp is not free
# Of networks with a YOLO v2 head.
ANCHORS = tuple((0.5 + i, 0.7 + i) for i in range(5))
# What a small network with a YOLO v2 head does not say of itself.
SAID = SourceOptions(
    anchors=((2.0, 2.0), (3.0, 4.0), (4.0, 3.0), (2.5, 2.5), (1.5, 1.7)),
    anchor_unit="cell",
    class_names=("person",),
    score_threshold=0.05,
    iou_threshold=0.45,
)


@dataclass(frozen=True)
class Value:
    """A tensor under construction: its index, shape (NHWC), scale and zero-point."""

    index: int
    shape: tuple[int, int, int, int]
    scale: float
    zero_point: int


class NetworkBuilder:
    """Appends quantised layers to one TFLite file; ``gain`` enlarges what each convolution gives."""

    def __init__(self, size: int, seed: int = 0, channels: int = 3, gain: float = 1.0) -> None:
        self._b, self._gain = TfliteBuilder(), np.float32(gain)
        self._rng = np.random.default_rng(seed)
        self._reach: float | None = (
            None  # of a convolution's real results, root mean square; None: as weights give them
        )
        shape = (1, size, size, channels)
        pixels = self._b.input("image", shape, "uint8", 1 / 255, 0)
        codes = self._b.op("QUANTIZE", [pixels], shape, "int8", 1 / 255, -128, name="quantized")
        self.value = Value(codes, shape, 1 / 255, -128)

    def conv(self, channels: int, kernel: int = 3, stride: int = 1, **choices: str) -> NetworkBuilder:
        """CONV_2D; ``padding`` SAME unless told, ``activation`` NONE, RELU or RELU6."""
        weights = self._weights((channels, kernel, kernel, self.value.shape[3]))
        return self._convolution("CONV_2D", weights, 0, stride, choices)

    def depthwise(self, stride: int = 1, **choices: str) -> NetworkBuilder:
        """DEPTHWISE_CONV_2D, 3x3."""
        weights = self._weights((1, 3, 3, self.value.shape[3]))
        return self._convolution("DEPTHWISE_CONV_2D", weights, 3, stride, choices)

    def pad(self, before: int, after: int) -> NetworkBuilder:
        """PAD of height and width, as old converters write it in front of strided convolutions."""
        n, h, w, c = self.value.shape
        edges = self._b.constant(np.array([[0, 0], [before, after], [before, after], [0, 0]], np.int32))
        more = before + after
        return self._same_codes("PAD", [self.value.index, edges], (n, h + more, w + more, c))

    def max_pool(self, stride: int = 2) -> NetworkBuilder:
        """MAX_POOL_2D 2x2, SAME."""
        n, h, w, c = self.value.shape
        shape = (n, -(-h // stride), -(-w // stride), c)
        options = {"padding": "SAME", "filter_h": 2, "filter_w": 2, "stride_h": stride, "stride_w": stride}
        return self._same_codes("MAX_POOL_2D", [self.value.index], shape, **options)

    def average_pool(self, window: int = 3, stride: int = 2) -> NetworkBuilder:
        """AVERAGE_POOL_2D, VALID."""
        n, h, w, c = self.value.shape
        shape = (n, (h - window) // stride + 1, (w - window) // stride + 1, c)
        sizes = {"filter_h": window, "filter_w": window, "stride_h": stride, "stride_w": stride}
        return self._same_codes("AVERAGE_POOL_2D", [self.value.index], shape, padding="VALID", **sizes)

    def residual(self, channels: int, activation: str = "RELU") -> NetworkBuilder:
        """Depthwise 3x3 and CONV_2D 1x1, beside a PAD of the channels; ADD, with its activation (BlazeFace)."""
        before = self.value
        after, (n, h, w, c) = self.depthwise().conv(channels, 1).value, before.shape
        if channels > c:
            edges = self._b.constant(np.array([[0, 0], [0, 0], [0, 0], [0, channels - c]], np.int32))
            self.value = before
            before = self._same_codes("PAD", [before.index, edges], (n, h, w, channels)).value
        scale, zero_point = 1.3 * max(before.scale, after.scale), -128 if activation == "RELU" else 5
        operands, shape = [before.index, after.index], after.shape
        index = self._b.op("ADD", operands, shape, "int8", scale, zero_point, fused_activation=activation)
        self.value = Value(index, shape, scale, zero_point)
        return self

    def relu(self) -> NetworkBuilder:
        """RELU as an operator of its own, with equal scales on both sides."""
        return self._same_codes("RELU", [self.value.index], self.value.shape)

    def softmax(self) -> NetworkBuilder:
        """SOFTMAX over the channels, 1/256 a code."""
        shape = self.value.shape
        index = self._b.op("SOFTMAX", [self.value.index], shape, "int8", 1 / 256, -128, beta=1.0)
        self.value = Value(index, shape, 1 / 256, -128)
        return self

    def build(self) -> bytes:
        """The file, its output dequantised."""
        head = self._b.op("DEQUANTIZE", [self.value.index], self.value.shape, "float32", name="head_real")
        return self._b.build([head])

    def _weights(self, shape: tuple[int, ...]) -> NDArray[np.int8]:
        return np.clip(np.rint(self._rng.normal(0, 40, shape)), -127, 127).astype(np.int8)

    def _convolution(
        self, op: str, weights: NDArray[np.int8], axis: int, stride: int, choices: dict[str, str]
    ) -> NetworkBuilder:
        n, h, w, _ = self.value.shape
        kernel, channels = weights.shape[1], weights.shape[axis]
        padding, activation = choices.get("padding", "SAME"), choices.get("activation", "NONE")
        taps = weights.size // channels
        scales = self._rng.uniform(0.5, 2, (channels,)).astype(np.float32) * np.float32(1e-3) * self._gain
        sums = 40 * TYPICAL_CODE * np.sqrt(taps) * self.value.scale * float(scales.mean())
        if self._reach is not None:
            scales *= np.float32(self._reach / sums)
            sums = self._reach
        scale = RELU6_SCALE if activation == "RELU6" else sums / TYPICAL_CODE
        if activation == "RELU6":  # weights of such a size that sums reach beyond 6
            scales *= np.float32(4 / sums)
        bias_scales = np.float32(self.value.scale) * scales
        bias = np.rint(self._rng.normal(0, 0.2 * sums, channels) / bias_scales).astype(np.int32)
        less = kernel - 1 if padding == "VALID" else 0
        shape = (n, -(-(h - less) // stride), -(-(w - less) // stride), channels)
        zero_point = 5 if activation == "NONE" else -128
        operands = [self.value.index, self._b.constant(weights, scales, axis=axis), self._b.constant(bias, bias_scales)]
        options: dict[str, Any] = {"padding": padding, "stride_h": stride, "stride_w": stride}
        if op == "DEPTHWISE_CONV_2D":
            options["depth_multiplier"] = 1
        index = self._b.op(
            op, operands, shape, "int8", scale, zero_point, version=3, fused_activation=activation, **options
        )
        self.value = Value(index, shape, scale, zero_point)
        return self

    def _same_codes(
        self, op: str, operands: list[int], shape: tuple[int, int, int, int], **options: Any
    ) -> NetworkBuilder:
        scale, zero_point = self.value.scale, self.value.zero_point
        index = self._b.op(op, operands, shape, "int8", scale, zero_point, **options)
        self.value = Value(index, shape, scale, zero_point)
        return self


def two_raw_outputs(*, dequantised: bool = True) -> bytes:
    """A network that no head fits: a map of 8 x 8 and a vector, whose steps differ; the vector is int8 or float32."""
    b = TfliteBuilder()
    pixels = b.input("image", (1, 16, 16, 3), "uint8", 1 / 255, 0)
    codes = b.op("QUANTIZE", [pixels], (1, 16, 16, 3), "int8", 1 / 255, -128, name="quantized")
    weights = np.random.default_rng(5).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    operands = [codes, b.constant(weights, [1e-3] * 4, axis=0), b.constant(np.zeros(4, np.int32), [1e-3 / 255] * 4)]
    options = {"padding": "SAME", "stride_h": 2, "stride_w": 2}
    grid = b.op("CONV_2D", operands, (1, 8, 8, 4), "int8", 0.004, 5, name="grid", version=3, **options)
    rows = b.op("RESHAPE", [grid, b.constant(np.array([1, 256], np.int32))], (1, 256), "int8", 0.004, 5, name="rows")
    matrix = np.random.default_rng(6).integers(-127, 128, (7, 256)).astype(np.int8)
    operands = [rows, b.constant(matrix, [2e-3]), b.constant(np.zeros(7, np.int32), [0.004 * 2e-3])]
    vector = b.op("FULLY_CONNECTED", operands, (1, 7), "int8", 0.25, 0, name="vector", version=4)
    if dequantised:
        vector = b.op("DEQUANTIZE", [vector], (1, 7), "float32", name="vector_real")
    return b.build([grid, vector])


def tiny_yolo_v2_relu(size: int, widest: int = 256) -> bytes:
    """Tiny YOLO v2 with fused RELU instead of LeakyReLU, stride 32; channels capped at ``widest`` to stay small."""
    net = NetworkBuilder(size)
    for position, channels in enumerate((16, 32, 64, 128, 256, 512)):
        net.conv(min(channels, widest), activation="RELU").max_pool(2 if position < 5 else 1)
    net.conv(min(1024, widest), activation="RELU").conv(min(512, widest), activation="RELU")
    return net.conv(HEAD_CHANNELS, 1).build()


def st_yolo_lc(size: int) -> bytes:
    """In the manner of st_yolo_lc_v1: depthwise-separable, stride 16, strided layers behind a PAD, RELU6 and RELU."""
    net = NetworkBuilder(size, seed=1).pad(0, 1).conv(16, stride=2, padding="VALID", activation="RELU6")
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        if stride == 2:
            net.pad(0, 1).depthwise(2, padding="VALID", activation="RELU6")
        else:
            net.depthwise(activation="RELU")
        net.conv(channels, 1, activation="RELU6" if stride == 2 else "RELU")
    return net.conv(64, 1).relu().conv(HEAD_CHANNELS, 1).build()
