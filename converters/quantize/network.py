"""The step from a float network to canonical QDQ int8: clean, calibrate on photographs, write anew, measure the loss.

Before: what an importer wrote, float32 from the rescaled pixels to the head. After: the same network in a graph of its
own, with integer codes between all operators (``converters.graph``). Numeric effect: that of 8 bit quantisation; see
docs/keras.md for what it costs.

::

    Conv [-> Relu]      DQ(x), DQ(weights), DQ(bias) -> Conv -> Q       the clamp is the output's range
    LeakyRelu           DQ -> LeakyRelu -> Q                            a pair of its own, the real slope
    pools and movers    DQ -> op -> Q                                   equal scale and zero-point on both sides
    anything else       DQ each -> op -> Q                              computed in float32

The pixels are codes already (``converters.quantize.parameters``).

The loss is measured on the calibration photographs: boxes found again, or the noise in the outputs. Both networks run
with every operator in float32 between its integers, so no kernel's rounding counts. The boxes of the float network that
are sure (score above ``SURE``) are looked for among those of the quantised one above half of that, by class and an
overlap of ``OVERLAP``; where a head is not known, or finds too few, the ratio of signal to noise of the raw outputs
counts.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from onnx_ir.passes import common

from converters._ir import ir
from converters.calibration import observe_ranges
from converters.errors import OptionError
from converters.graph import (
    IR_VERSION,
    GraphWriter,
    constant_at,
    constant_node,
    constant_of,
    cut_graph,
    dequantize_node,
    image_pixels,
    infer_shapes,
    nodes_before,
    pixel_codes,
    quantize_node,
    rescaled_pixels,
)
from converters.heads.arithmetic import iou_xyxy
from converters.heads.base import join_outputs
from converters.heads.nms import detect_from_head
from converters.passes.base import only_consumer
from converters.passes.fold import FoldAffine
from converters.passes.movements import CancelTransposes
from converters.quant import real_numbers
from converters.quantize.parameters import (
    activation_params,
    is_activation,
    keeps_values,
    pixel_quantization,
    quantize_convolution,
)
from converters.spec import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from converters.calibration import Ranges
    from converters.options import ConvertOptions
    from converters.sources import ImportedNetwork
    from converters.spec import DetectorSpec, ImageInput

LOGGER = logging.getLogger(__name__)
RESCALED = "pixels/rescaled"  # what ``converters.graph.rescaled_pixels`` calls its result
IN_FLOAT = frozenset({"Gemm", "MatMul", "ConvTranspose"})
CLAMPS = ("Relu", "Clip")


class Rewriter:
    """One float network, whose outputs are the raw outputs, being written anew."""

    def __init__(
        self, writer: GraphWriter, graph: ir.Graph, ranges: Ranges, image: ImageInput, options: ConvertOptions
    ) -> None:
        self._writer, self._graph, self._image, self._options = writer, graph, image, options
        int8 = options.symmetric or options.activations == "int8"
        self._dtype: type[np.uint8] | type[np.int8] = np.int8 if int8 else np.uint8
        self._rescaled = next(value for node in graph for value in node.outputs if value.name == RESCALED)
        self._pixels = pixel_quantization(image.rescaling)
        fixed = {} if options.symmetric else {self._rescaled: self._pixels.params}
        shift = -128 if int8 else 0
        params = activation_params(graph, ranges, fixed, symmetric=options.symmetric)
        self._params = {value: unshifted.shifted(shift) for value, unshifted in params.items()}
        self._codes: dict[ir.Value, ir.Value] = {}
        self._reals: dict[ir.Value, ir.Value] = {}  # what a clamp behind it will close
        self._plain: dict[ir.Value, ir.Value] = {}  # constants, and integers that are computed
        self._notes: list[str] = []

    def rewrite(self, network: ImportedNetwork) -> ImportedNetwork:
        """Write every node; returns the network with its new head and twins."""
        symmetric = self._options.symmetric
        pixels = image_pixels(self._writer, self._image, self._options.batch_size, as_float=symmetric)
        if self._pixels.are_codes and not symmetric:
            params = self._params[self._rescaled]
            self._codes[self._rescaled] = pixel_codes(self._writer, pixels, params, self._dtype, RESCALED)
        else:
            self._quantize(self._rescaled, rescaled_pixels(self._writer, pixels, self._image.rescaling))
        rescaling = nodes_before([self._rescaled])
        for node in self._graph:
            if node not in rescaling:
                self._write(node)
        outputs = tuple(self._reals[value] for value in self._graph.outputs)
        kept = {*(str(value.name) for value in outputs), *(str(value.name) for value in self._codes)}
        return replace(
            network,
            outputs=outputs,
            twins={name: twin for name, twin in network.twins.items() if twin.onnx in kept},
            quantization=f"int8 {self._options.quantize}{' symmetric' if symmetric else ''}",
            activations="int8" if self._dtype is np.int8 else "uint8",
            notes=(*network.notes, *self._notes),
        )

    def _write(self, node: ir.Node) -> None:
        output = node.outputs[0]
        if not any(is_activation(value) for value in node.outputs):  # it computes integers, such as a shape
            self._plain.update(zip(node.outputs, self._written(node, self._float_inputs(node)), strict=True))
        elif node.op_type in CLAMPS and node.inputs[0] in self._reals:
            self._quantize(output, self._reals[node.inputs[0]])
        else:
            if node.op_type in IN_FLOAT:
                self._notes.append(f"{node.op_type} {output.name!r} runs in float32 between its integer neighbours")
            results = self._written(node, self._convolution_inputs(node) or self._float_inputs(node), "/float")
            for value, real in zip(node.outputs, results, strict=True):
                if value.is_graph_output():
                    self._reals[value] = self._finished_output(node, real, str(value.name))
                elif self._clamp_behind(value) is None:
                    self._quantize(value, real)
                else:
                    self._reals[value] = real

    def _finished_output(self, node: ir.Node, real: ir.Value, name: str) -> ir.Value:
        """A raw output as reals: moved behind the last operator's codes, or from codes of its own."""
        if not keeps_values(node):
            params = self._params[node.outputs[0]]
            codes = quantize_node(self._writer, real, params, self._dtype, f"{name}/codes")
            real = dequantize_node(self._writer, codes, params, self._dtype, f"{name}/dequantized")
        real.name = name
        return real

    def _written(self, node: ir.Node, inputs: list[ir.Value | None], suffix: str = "") -> Sequence[ir.Value]:
        """The same operator on other operands, its results with other names."""
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        names = [f"{value.name}{suffix}" for value in node.outputs]
        return self._writer.ops(node.op_type, inputs, names, **attributes)

    def _convolution_inputs(self, node: ir.Node) -> list[ir.Value | None] | None:
        """Dequantised input, weights and bias of a convolution with constant weights; None for any other node."""
        weights = constant_at(node, 1) if node.op_type == "Conv" else None
        source = node.inputs[0]
        if weights is None or source is None or weights.ndim != 4:
            return None
        stored = constant_at(node, 2)
        bias = np.zeros(len(weights)) if stored is None else stored.astype(np.float64)
        if source is self._rescaled and not self._options.symmetric:
            bias = bias + self._pixels.shift * weights.astype(np.float64).sum(axis=(1, 2, 3))
        integers = quantize_convolution(weights, bias, self._params[source], self._options.quantize)
        name = str(node.outputs[0].name)
        inputs: list[ir.Value | None] = [self._real(source, name)]
        inputs.append(constant_node(self._writer, integers.weights, integers.weight_params, f"{name}/weights")[1])
        if bias.any() and self._options.symmetric:
            reals = real_numbers(integers.bias, integers.bias_params)
            inputs.append(self._writer.constant(reals, f"{name}/bias"))
        elif bias.any():
            inputs.append(constant_node(self._writer, integers.bias, integers.bias_params, f"{name}/bias")[1])
        return inputs

    def _float_inputs(self, node: ir.Node) -> list[ir.Value | None]:
        return [
            self._real(value, str(node.outputs[0].name)) if is_activation(value) else self._copied(value)
            for value in node.inputs
        ]

    def _clamp_behind(self, value: ir.Value) -> ir.Node | None:
        """The Relu or Clip that alone reads ``value`` and whose limits the codes of its result keep anyway."""
        reader, writer = only_consumer(value), value.producer()
        if reader is None or reader.op_type not in CLAMPS or reader.inputs[0] is not value:
            return None
        if writer is None or keeps_values(writer):
            return None
        low, high = _limits(reader)
        params, codes = self._params[reader.outputs[0]], np.iinfo(self._dtype)
        step = float(params.scalar_scale)
        lowest, highest = ((int(code) - params.scalar_zero_point) * step for code in (codes.min, codes.max))
        return reader if lowest >= low - step / 2 and highest <= high + step / 2 else None

    def _quantize(self, value: ir.Value, real: ir.Value) -> None:
        self._codes[value] = quantize_node(self._writer, real, self._params[value], self._dtype, str(value.name))

    def _real(self, value: ir.Value | None, reader: str) -> ir.Value:
        """A DequantizeLinear of an activation for one reader alone."""
        assert value is not None  # noqa: S101 - the caller asked is_activation
        name = self._writer.unique(f"{reader}/input")
        return dequantize_node(self._writer, self._codes[value], self._params[value], self._dtype, name)

    def _copied(self, value: ir.Value | None) -> ir.Value | None:
        """A constant or a computed integer in the new graph."""
        if value is None:
            return None
        if value not in self._plain:
            array = constant_of(value)
            assert array is not None, f"{value.name} is written before it is read"  # noqa: S101
            self._plain[value] = self._writer.constant(array, str(value.name))
        return self._plain[value]


def _limits(clamp: ir.Node) -> list[float]:
    """Lower and upper limit of a Relu or Clip, infinite where there is none; no range keeps a computed one."""
    if clamp.op_type == "Relu":
        return [0.0, math.inf]
    limits = [-math.inf, math.inf]
    for position, value in enumerate(clamp.inputs[1:]):
        if value is not None:
            stored = constant_of(value)
            limits[position] = -limits[position] if stored is None else float(stored)
    return limits


def quantize_network(
    writer: GraphWriter, network: ImportedNetwork, spec: DetectorSpec, options: ConvertOptions
) -> tuple[GraphWriter, ImportedNetwork]:
    """Quantise an imported float network; its writer is not to be used afterwards.

    Returns:
        A new writer with the quantised network, every shape inferred.

    Raises:
        OptionError: the network is quantised already, or there are no photographs.
        SourceFileError: it computes numbers that are not finite.
    """
    if network.activations != "float32" or options.calibration is None:
        raise OptionError(
            f"`quantize` {options.quantize}: the source is quantised already ({network.quantization}); leave the "
            "option out, or give the float Keras or ONNX file"
        )
    for value in network.outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    writer.graph.outputs.extend(network.outputs)
    model = ir.Model(writer.graph, ir_version=IR_VERSION, producer_name="xdet")
    CancelTransposes()(model)
    FoldAffine()(model)
    common.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    proto = ir.to_proto(model)
    ranges = observe_ranges(proto.SerializeToString(), spec.image, options.calibration, batch=options.fixed_batch)
    quantised = GraphWriter(str(writer.graph.name))
    rewritten = Rewriter(quantised, model.graph, ranges, spec.image, options).rewrite(network)
    infer_shapes(ir.Model(quantised.graph, ir_version=IR_VERSION))
    loss = measure_loss(proto.SerializeToString(), _serialised(quantised, rewritten.outputs), spec, options)
    LOGGER.info(
        "quantised %s: %d of %d boxes found again in %d photographs, outputs %.1f dB above their noise",
        options.quantize, loss.matched, loss.boxes, loss.photographs, loss.signal_db,
    )  # fmt: skip
    warning = loss.warning(options.quantize)
    notes = rewritten.notes if warning is None else (warning, *rewritten.notes)
    return quantised, replace(rewritten, notes=notes)


def _serialised(writer: GraphWriter, outputs: Sequence[ir.Value]) -> bytes:
    """A network that ends at its raw outputs as a file."""
    network = cut_graph(writer.graph, outputs)
    for value in network.outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    return bytes(ir.to_proto(ir.Model(network, ir_version=IR_VERSION)).SerializeToString())


MOST_PHOTOGRAPHS = 32
SURE, OVERLAP = 0.3, 0.5
FEWEST_BOXES = 10
LEAST_FOUND = 0.7  # per-channel weights keep some 90 % and more
LEAST_DB = 10.0  # per-channel weights have 20 and more


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """What was measured."""

    photographs: int
    boxes: int  # sure boxes of the float network
    matched: int  # those that the quantised one finds again
    signal_db: float  # signal to noise of the raw outputs, in decibels

    def warning(self, quantize: str) -> str | None:
        """One sentence with the number where the network is ruined, else None."""
        counted = self.boxes >= FEWEST_BOXES
        if counted and self.matched >= LEAST_FOUND * self.boxes:
            return None
        if not counted and self.signal_db >= LEAST_DB:
            return None
        measured = f"its outputs are {self.signal_db:.1f} dB above their noise, expected {LEAST_DB:g} or more"
        if counted:
            again = f"{self.matched} again ({self.matched / self.boxes:.0%})"
            measured = f"of the {self.boxes} boxes that the float network finds, the int8 one finds {again}"
        other = {
            "per-tensor": "--quantize per-channel keeps more, above all in depthwise convolutions",
            "per-channel": "leave it float, or calibrate with photographs of what it will see",
        }[quantize]
        photographs = f"{self.photographs} calibration photographs"
        return f"--quantize {quantize} costs this network much: in {photographs}, {measured}; {other}"


def measure_loss(plain: bytes, quantised: bytes, spec: DetectorSpec, options: ConvertOptions) -> QuantizationLoss:
    """Run a network and its quantised form, ONNX files that end at the raw outputs, on photographs and compare."""
    assert options.calibration is not None, "a network was quantised"  # noqa: S101
    images = islice(options.calibration.pixels(spec.image), MOST_PHOTOGRAPHS)
    count = boxes = matched = 0
    signal = noise = 0.0
    for one, other in _heads(plain, quantised, images, options.fixed_batch):
        count += 1
        signal += float(np.square(one, dtype=np.float64).sum())
        noise += float(np.square(one.astype(np.float64) - other).sum())
        sure, again = _found_again(one, other, spec)
        boxes, matched = boxes + sure, matched + again
    decibels = math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)
    return QuantizationLoss(count, boxes, matched, decibels)


def _heads(
    plain: bytes, quantised: bytes, images: Iterator[NDArray[np.uint8]], batch: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    import onnxruntime as ort

    choices = ort.SessionOptions()
    choices.log_severity_level = 3
    choices.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [
        ort.InferenceSession(model, choices, providers=["CPUExecutionProvider"]) for model in (plain, quantised)
    ]
    for pixels in images:
        feed = {IMAGE: np.repeat(pixels[None], batch, axis=0)}
        one, other = (join_outputs([array[:1] for array in session.run(None, feed)]) for session in sessions)
        yield one, other


def _found_again(one: NDArray[np.float32], other: NDArray[np.float32], spec: DetectorSpec) -> tuple[int, int]:
    """Sure boxes of the first raw outputs, and how many of them the second give, too."""
    if spec.head is None:
        return 0, 0
    sure, loose = (
        detect_from_head(head, spec, replace(spec.thresholds, score=score))
        for head, score in ((one, SURE), (other, SURE / 2))
    )
    count, others = int(sure.num_detections[0]), int(loose.num_detections[0])
    overlaps = iou_xyxy(sure.boxes_xyxy[0, :count, None], loose.boxes_xyxy[0, None, :others])
    same = sure.classes[0, :count, None] == loose.classes[0, None, :others]
    return count, int(((overlaps >= OVERLAP) & same).any(axis=1).sum())
