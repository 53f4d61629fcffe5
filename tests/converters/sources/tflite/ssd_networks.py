"""Networks like MobileNet-SSD, of random weights: two maps of features, offsets and scores of three priors a cell.

uint8 pixels, int8 layers, float32 outputs; with ``TFLite_Detection_PostProcess`` behind them, or ending at offsets and
scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, EACH, CLASSES = 32, 3, 4
MAPS = (8, 4)
BOXES = sum(side * side * EACH for side in MAPS)
POSTPROCESS: dict[str, Any] = {
    "max_detections": 20,
    "max_classes_per_detection": 1,
    "detections_per_class": 100,
    "use_regular_nms": False,
    "nms_score_threshold": 0.5,
    "nms_iou_threshold": 0.6,
    "num_classes": CLASSES,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def priors_yxhw() -> NDArray[np.float32]:
    """Three priors in every cell of both maps, some of which reach beyond the picture: float32 ``(BOXES, 4)``."""
    rows = []
    for side in MAPS:
        row, column = np.divmod(np.arange(side * side), side)
        centers = np.repeat((np.stack([row, column], axis=-1) + 0.5) / side, EACH, axis=0)
        sizes = np.array([[1.5, 1.5], [1.0, 2.5], [2.5, 1.0]]) / side
        rows.append(np.concatenate([centers, np.tile(sizes, (side * side, 1))], axis=-1))
    return np.concatenate(rows).astype(np.float32)


@dataclass(frozen=True)
class Ends:
    """Tensors at the end of a network: float32 offsets ``(1, BOXES, 4)`` and scores ``(1, BOXES, columns)``."""

    builder: TfliteBuilder
    offsets: int
    scores: int


def ssd_network(activation: str = "LOGISTIC", *, columns: int = 1 + CLASSES, seed: int = 3) -> Ends:
    """The network without what stands behind; scores pass ``LOGISTIC``, ``SOFTMAX`` or nothing (``""``)."""
    b, rng = TfliteBuilder(), np.random.default_rng(seed)
    shape = (1, SIZE, SIZE, 3)
    pixels = b.input("image", shape, "uint8", 1 / 255, 0)
    value = b.op("QUANTIZE", [pixels], shape, "int8", 1 / 255, -128, name="codes")

    def conv(source: tuple[int, int, float], channels: int, side: int, stride: int, out: tuple[float, int]) -> int:
        index, depth, step = source
        weights = rng.integers(-127, 128, (channels, 3, 3, depth)).astype(np.int8)
        bias = rng.integers(-300, 300, channels).astype(np.int32)
        operands = [index, b.constant(weights, 0.01), b.constant(bias, 0.01 * step)]
        options: dict[str, Any] = {"padding": "SAME", "stride_h": stride, "stride_w": stride}
        return b.op("CONV_2D", operands, (1, side, side, channels), "int8", *out, version=3, **options)

    def rows(index: int, count: int, values: int, out: tuple[float, int]) -> int:
        sizes = b.constant(np.array([1, count, values], np.int32))
        return b.op("RESHAPE", [index, sizes], (1, count, values), "int8", *out)

    feature = (conv((value, 3, 1 / 255), 8, SIZE // 4, 4, (0.03, -20)), 8, 0.03)
    offsets, scores = [], []
    for level, side in enumerate(MAPS):
        if level:
            feature = (conv(feature, 8, side, 2, (0.05, -20)), 8, 0.05)
        count = side * side * EACH
        offsets.append(rows(conv(feature, EACH * 4, side, 1, (0.1, 4)), count, 4, (0.1, 4)))
        scores.append(rows(conv(feature, EACH * columns, side, 1, (0.06, 20)), count, columns, (0.06, 20)))
    offset = b.op("CONCATENATION", offsets, (1, BOXES, 4), "int8", 0.1, 4, axis=1)
    score = b.op("CONCATENATION", scores, (1, BOXES, columns), "int8", 0.06, 20, axis=1)
    reals = b.op("DEQUANTIZE", [offset], (1, BOXES, 4), "float32", name="offsets")
    quant = (0.06, 20)
    if activation:
        quant = (1 / 256, -128)
        options: dict[str, Any] = {"beta": 1.0} if activation == "SOFTMAX" else {}
        score = b.op(activation, [score], (1, BOXES, columns), "int8", *quant, **options)
    return Ends(b, reals, b.op("DEQUANTIZE", [score], (1, BOXES, columns), "float32", name="scores"))


def ssd_with_postprocess(
    priors: NDArray[np.float32] | None = None, columns: int = 1 + CLASSES, **options: Any
) -> bytes:
    """A file that ends in the custom operator; options replace those of ``POSTPROCESS``, None leaves one out."""
    from flatbuffers import flexbuffers

    ends = ssd_network(columns=columns)
    told = {name: value for name, value in {**POSTPROCESS, **options}.items() if value is not None}
    most = int(told.get("max_detections", 1))
    shapes = [(1, most, 4), (1, most), (1, most), (1,)]
    found = [ends.builder.tensor(f"found:{i}", shape, "float32") for i, shape in enumerate(shapes)]
    anchors = ends.builder.constant(priors_yxhw() if priors is None else priors, name="priors")
    ends.builder.operator("CUSTOM:TFLite_Detection_PostProcess", [ends.offsets, ends.scores, anchors], found)
    ends.builder.subgraph.operators[-1].customOptions = list(flexbuffers.Dumps(told))
    return ends.builder.build(found)


def corners_xyxy() -> NDArray[np.float32]:
    """The priors as corners, x first."""
    y, x, h, w = np.split(priors_yxhw(), 4, axis=1)
    return np.concatenate([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1).astype(np.float32)


def ssd_raw(ends_in: str = "", activation: str = "SOFTMAX", *, columns: int = 1 + CLASSES) -> bytes:
    """A file that ends at scores and offsets, in this order, as the zoo of STMicroelectronics writes them.

    ``ends_in``: nothing more; ``"constant"`` priors as an output that is a constant, first; ``"computed"`` as an output
    that an operator makes of a constant, last; ``"joined"`` all three as columns of one output.
    """
    ends = ssd_network(activation, columns=columns)
    b, outputs = ends.builder, [ends.scores, ends.offsets]
    priors = b.constant(corners_xyxy()[None], name="priors")
    if ends_in == "constant":
        outputs = [priors, *outputs]
    if ends_in == "computed":
        zero = b.constant(np.zeros(1, np.float32))
        outputs.append(b.op("ADD", [priors, zero], (1, BOXES, 4), "float32", name="priors_out"))
    if ends_in == "joined":
        outputs = [b.op("CONCATENATION", [*outputs, priors], (1, BOXES, columns + 8), "float32", axis=2)]
    return b.build(outputs)
