"""float16 weights and activations for a float network; the picture, its rescaling and the head stay float32.

Before -> after: every operator between the rescaled pixels and the last products that ONNX allows on float16 computes
on float16, and a Cast stands where it meets one that stays float32, as what decodes boxes behind the last product. An
operator stays float32 where a number that it reads or gives reached ``LARGEST`` on the probe pictures, or a weight
would lose more than the rounding of float16. Numeric effect: each number is rounded to 11 significant bits.

float16 ends at 65,504; numbers may get four times as large as on the probes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters.calibration import Calibration, observe_ranges
from converters.errors import list_some
from converters.graph import GraphWriter, constant_of, cut_graph, infer_shapes, network_nodes, nodes_before, raw_values
from converters.heads.base import is_raw_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from converters.calibration import Ranges
    from converters.spec import DetectorSpec, ImageInput

LARGEST = 65504 / 4
KEPT_BITS = 2.0**-10  # of the largest weight: what a weight below float16's normal range may lose
PIXELS = "pixels"  # begins the names of what stands in front of the network
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that take float16 from opset 13 on: with all operands; with the first alone, where others are sizes, places.
WHOLE = frozenset({
    *("Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace"),
    *("Div", "Elu", "Exp", "Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul"),
    *("Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Sigmoid", "Softmax", "Softplus", "SpaceToDepth"),
    *("Sqrt", "Sub", "Tanh"),
})  # fmt: skip
FIRST = frozenset({
    *("Expand", "Gather", "ReduceMax", "ReduceMean", "ReduceMin", "Reshape", "Resize", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
})  # fmt: skip


def write_float16(model: ir.Model, spec: DetectorSpec, calibration: Calibration | None, batch: int) -> tuple[str, ...]:
    """Make a finished float network compute on float16, in place; returns notes about what stays float32.

    ``calibration`` holds photographs that show how large its numbers get, beside the probe pictures.
    """
    infer_shapes(model)
    ranges = _ranges(model, spec, calibration, batch)
    nodes = network_nodes(model.graph)
    # what follows the last product decodes boxes in pixels, of which float16 has steps of half a pixel above 512, or
    # moves them
    before = nodes_before(node.outputs[0] for node in nodes if node.op_type in PRODUCTS)
    inner = [node for node in nodes if node in before and not str(node.outputs[0].name).startswith(PIXELS)]
    reasons = {node: _reason(node, ranges) for node in inner}
    halved = [node for node in inner if reasons[node] is None]
    _Halving(model.graph, frozenset(halved)).run(halved)
    large = [reason for reason in reasons.values() if reason]
    return (f"{len(large)} operators stay float32: {list_some(large)}",) if large else ()


def probe_pictures(image: ImageInput) -> Iterator[NDArray[np.uint8]]:
    """Pictures that drive a network far: black, white, the colours, a ramp, and noise of pixels and of blocks."""
    shape = image.shape
    height, width, channels = shape
    for level in (0, 128, 255):
        yield np.full(shape, level, np.uint8)
    for channel in range(channels):
        colour = np.zeros(shape, np.uint8)
        colour[..., channel] = 255
        yield colour
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    yield np.broadcast_to(ramp[None, :, None], shape).copy()
    rng = np.random.default_rng(0)
    yield rng.integers(0, 256, shape, np.uint8)
    yield (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    blocks = rng.integers(0, 2, (-(-height // 16), -(-width // 16), channels)) * 255
    yield np.repeat(np.repeat(blocks, 16, 0), 16, 1)[:height, :width].astype(np.uint8)
    yield (np.indices((height, width)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(channels, 2)


def _ranges(model: ir.Model, spec: DetectorSpec, calibration: Calibration | None, batch: int) -> Ranges:
    """The smallest and largest number of every value in front of the raw outputs."""
    network = ir.Model(cut_graph(model.graph, raw_values(model.graph)), ir_version=model.ir_version)
    part = ir.to_proto(network).SerializeToString()
    probes = list(probe_pictures(spec.image))
    on_probes = observe_ranges(part, spec.image, Calibration(lambda _: iter(probes), len(probes)), batch=batch)
    if calibration is None:
        return on_probes
    on_photographs = observe_ranges(part, spec.image, calibration, batch=batch)
    return {
        name: (min(low, on_photographs[name][0]), max(high, on_photographs[name][1]))
        for name, (low, high) in on_probes.items()
    }


def _reason(node: ir.Node, ranges: Ranges) -> str | None:
    """Why an operator stays float32, empty where it computes no float32 at all; None where it need not."""
    if not any(value.dtype == ir.DataType.FLOAT for value in node.outputs):
        return ""
    name = f"{node.op_type} {str(node.outputs[0].name)!r}"
    if node.op_type not in WHOLE | FIRST:
        return f"{name} has no float16 form here"
    for value in (*node.inputs, *node.outputs):
        low, high = ranges.get(str(None if value is None else value.name), (0.0, 0.0))
        if max(-low, high) > LARGEST:
            return f"{name} meets numbers of {max(-low, high):.3g}"
    for value in node.inputs:
        array = constant_of(value)
        if array is not None and array.dtype == np.float32 and not _fits(array):
            return f"{name} has weights that float16 cannot hold"
    return None


def _fits(array: NDArray[np.float32]) -> bool:
    """Whether constants keep their value but for rounding; infinite limits of a Clip do."""
    finite = array[np.isfinite(array)]
    if not finite.size:
        return True
    largest = float(np.abs(finite).max())
    with np.errstate(over="ignore"):
        lost = np.abs(finite.astype(np.float16).astype(np.float64) - finite)
    return largest <= 65504 and bool((lost <= KEPT_BITS * largest).all())


class _Halving:
    """A graph while operators become float16."""

    def __init__(self, graph: ir.Graph, halved: frozenset[ir.Node]) -> None:
        self._graph, self._halved = graph, halved
        self._cast: dict[ir.Value, ir.Value] = {}  # float32 values -> their float16 copies

    def run(self, nodes: Sequence[ir.Node]) -> None:
        """Change ``nodes``, in execution order."""
        for node in nodes:
            for position, value in enumerate(node.inputs):
                if value is not None and value.dtype == ir.DataType.FLOAT and _is_number(node, position):
                    node.replace_input_with(position, self._half(value, node))
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT:
                    self._halve_output(value, node)

    def _half(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        if value in self._cast:
            return self._cast[value]
        half, array = value, constant_of(value)
        if array is None:
            writer = GraphWriter.inserting(self._graph, reader)
            half = writer.op("Cast", [value], f"{value.name}/float16", to=int(ir.DataType.FLOAT16))
            half.type, half.shape = ir.TensorType(ir.DataType.FLOAT16), value.shape
        else:
            with np.errstate(over="ignore"):
                stored = array.astype(np.float16)
            if self._float32_readers(value):
                half = GraphWriter.appending(self._graph).constant(stored, f"{value.name}/float16")
            else:
                value.const_value, value.type = ir.tensor(stored, name=value.name), ir.TensorType(ir.DataType.FLOAT16)
        self._cast[value] = half
        return half

    def _float32_readers(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        readers = [(use.node, use.idx) for use in value.uses()]
        return [reader for reader in readers if reader[0] not in self._halved or not _is_number(*reader)]

    def _halve_output(self, value: ir.Value, node: ir.Node) -> None:
        """Type a result as float16; a Cast gives float32 to the others that read it, and to the head."""
        others = self._float32_readers(value)
        raw = is_raw_output(str(value.name))
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        self._cast[value] = value
        if not others and not raw and not value.is_graph_output():
            return
        name = str(value.name)
        if raw:
            value.name = node.name = f"{name}/float16"
        real = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], num_outputs=1)
        real.name = real.outputs[0].name = name if raw else f"{name}/float32"
        real.outputs[0].type, real.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        self._graph.insert_after(node, real)
        for reader, position in others:
            reader.replace_input_with(position, real.outputs[0])
        if value.is_graph_output():
            outputs = self._graph.outputs
            outputs[list(outputs).index(value)] = real.outputs[0]


def _is_number(node: ir.Node, position: int) -> bool:
    """Whether an operand is of the network's numbers: not sizes, axes, or the scales of a Resize."""
    return position == 0 or node.op_type in WHOLE
