"""Head-only ONNX files as exporters write them, with random weights: YOLO v8, YOLOX and Tiny YOLO v2, in float and QDQ.

Ultralytics decodes YOLO v8 in the network: distances to the sides become centres and sizes in pixels, classes pass a
sigmoid. YOLOX leaves its three grids raw, objectness and classes behind a sigmoid. Tiny YOLO v2 ends in its last
convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STRIDES = (8, 16, 32)


class OnnxBuilder:
    """Appends nodes to one ONNX graph; values are their names.

    Args:
        shape: of the picture; texts are open sizes.
        seed: of the weights.
        quantised: whether convolutions compute on int8 codes between Q and DQ.
    """

    def __init__(self, shape: Sequence[int | str], *, seed: int = 0, quantised: bool = False) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))
        self.rng, self.quantised = np.random.default_rng(seed), quantised

    def constant(self, array: NDArray[Any] | np.generic, name: str | None = None) -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        name = name or f"/{op}_{len(self.nodes)}_output_0"
        results = [name, *(f"{name}:{i}" for i in range(1, outputs))]
        self.nodes.append(
            helper.make_node(op, list(inputs), results, name=name.removesuffix("_output_0"), **attributes)
        )
        return name

    def conv(self, value: str, before: int, after: int, kernel: int = 3, stride: int = 1) -> str:
        """A convolution with bias that keeps the size of numbers; quantised, its result is codes read again."""
        spread = 1.5 / np.sqrt(before * kernel * kernel)
        weights = self.rng.normal(0, spread, (after, before, kernel, kernel)).astype(np.float32)
        bias = self.rng.normal(0, 0.2, after).astype(np.float32)
        pads = [kernel // 2] * 4
        choices: dict[str, Any] = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": pads}
        if not self.quantised:
            return self.op("Conv", value, self.constant(weights), self.constant(bias), **choices)
        scales = (np.abs(weights).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        codes = np.clip(np.rint(weights / scales[:, None, None, None]), -127, 127).astype(np.int8)
        zeros = np.zeros(after, np.int8)
        read = self.op("DequantizeLinear", *map(self.constant, (codes, scales, zeros)), axis=0)
        return self.coded(self.op("Conv", self.coded(value, 0.03), read, self.constant(bias), **choices), 0.05)

    def coded(self, value: str, scale: float) -> str:
        """A value as int8 codes, read again."""
        quantiser = [self.constant(np.float32(scale)), self.constant(np.int8(3))]
        codes = self.op("QuantizeLinear", value, *quantiser)
        return self.op("DequantizeLinear", codes, *quantiser)

    def silu(self, value: str) -> str:
        return self.op("Mul", value, self.op("Sigmoid", value))

    def build(self, outputs: dict[str, int], *, opset: int = 17, metadata: dict[str, str] | None = None) -> bytes:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_{axis}" for axis in range(rank)])
            for name, rank in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "main_graph", [self.picture], values, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="a test"
        )
        helper.set_model_props(model, metadata or {})
        serialized: bytes = model.SerializeToString()
        return serialized


def backbone(b: OnnxBuilder, width: int = 8) -> list[str]:
    """Three levels of features at strides 8, 16 and 32."""
    value = b.silu(b.conv(b.silu(b.conv("images", 3, width, stride=2)), width, width, stride=2))
    levels = []
    for _ in STRIDES:
        value = b.silu(b.conv(value, width, width, stride=2))
        split = b.op("Split", value, b.constant(np.array([width // 2, width // 2], np.int64)), axis=1, outputs=2)
        half = b.silu(b.conv(split, width // 2, width // 2))
        value = b.op("Concat", half, f"{split}:1", axis=1)
        levels.append(value)
    return levels


def cells(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres (2, B) of all cells in cells, and the stride of each (1, B)."""
    centres, strides = [], []
    for stride in STRIDES:
        count = size // stride
        y, x = np.mgrid[0:count, 0:count] + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full((1, count * count), stride))
    return np.concatenate(centres, 1).astype(np.float32), np.concatenate(strides, 1).astype(np.float32)


def yolo_v8(
    size: int = 64,
    classes: int = 2,
    *,
    quantised: bool = False,
    shape: Sequence[int | str] | None = None,
    **choices: Any,
) -> bytes:
    """As Ultralytics exports it: ``output0`` [1, 4 + NC, B], boxes in pixels."""
    b = OnnxBuilder(shape or (1, 3, size, size), quantised=quantised)
    flat = []
    for level in backbone(b):
        boxes, scores = b.op("Relu", b.conv(level, 8, 4, 1)), b.conv(level, 8, classes, 1)
        joined = b.op("Concat", boxes, scores, axis=1)
        flat.append(b.op("Reshape", joined, b.constant(np.array([1, 4 + classes, -1], np.int64))))
    split = b.constant(np.array([4, classes], np.int64))
    boxes = b.op("Split", b.op("Concat", *flat, axis=2), split, axis=1, outputs=2)
    centres, strides = cells(size)
    near = b.op("Split", boxes, b.constant(np.array([2, 2], np.int64)), axis=1, outputs=2)
    anchors = b.constant(centres[None])
    low, high = b.op("Sub", anchors, near), b.op("Add", anchors, f"{near}:1")
    middle = b.op("Div", b.op("Add", low, high), b.constant(np.float32(2)))
    decoded = b.op("Concat", middle, b.op("Sub", high, low), axis=1)
    pixels = b.op("Mul", decoded, b.constant(strides[None]))
    return b.build({b.op("Concat", pixels, b.op("Sigmoid", f"{boxes}:1"), axis=1, name="output0"): 3}, **choices)


def yolox(size: int = 64, classes: int = 2, *, decoded: bool = False, **choices: Any) -> bytes:
    """As the project YOLOX exports it: ``output`` [1, B, 5 + NC], raw unless ``decoded``; pixels 0..255."""
    b = OnnxBuilder((1, 3, size, size))
    scaled = b.op("Mul", "images", b.constant(np.float32(1 / 255)))
    levels = []
    value = b.silu(b.conv(b.silu(b.conv(scaled, 3, 8, stride=2)), 8, 8, stride=2))
    for _ in STRIDES:
        value = b.silu(b.conv(value, 8, 8, stride=2))
        boxes, scores = b.conv(value, 8, 4, 1), b.op("Sigmoid", b.conv(value, 8, 1 + classes, 1))
        joined = b.op("Concat", boxes, scores, axis=1)
        levels.append(b.op("Reshape", joined, b.constant(np.array([1, 5 + classes, -1], np.int64))))
    rows = b.op("Transpose", b.op("Concat", *levels, axis=2), perm=[0, 2, 1], name=None if decoded else "output")
    if decoded:
        _, strides = cells(size)
        factors = np.concatenate([np.repeat(strides.T, 4, 1), np.ones((strides.size, 1 + classes))], 1)
        rows = b.op("Mul", rows, b.constant(factors[None].astype(np.float32)), name="output")
    return b.build({rows: 3}, **choices)


def tiny_yolo_v2(
    size: int = 64, channels: int = 12, *, shape: Sequence[int | str] | None = None, **choices: Any
) -> bytes:
    """Channels first, raw: ``grid`` [1, A * (5 + NC), G, G]."""
    b = OnnxBuilder(shape or ("None", 3, size, size))
    value = "images"
    for before, after in ((3, 8), (8, 8), (8, 16), (16, 16), (16, 16)):
        value = b.op("LeakyRelu", b.conv(value, before, after), alpha=0.1)
        value = b.op("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    b.op("Conv", value, b.constant(b.rng.normal(0, 0.2, (channels, 16, 1, 1)).astype(np.float32)), name="grid")
    return b.build({"grid": 4}, **choices)
