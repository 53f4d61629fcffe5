"""An ONNX source's graph with opset, picture, batch and sizes fixed; and what it tells of its detector.

Before -> after: any opset from 7 on, sizes that are open or computed -> the opset in which graphs are written, or a
newer one (onnx's own version converter, where it is older), a picture of one size, every shape known, and constants
where operators computed sizes from sizes. Numeric effect: none; an operator that computes on pixels is left as it is.

Outputs of rank 4 that leave a convolution are channels first; they are told, and written, channels last like those of
every other source. Which they are tells the last operator in front that knows: a convolution or pool, or a Transpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from converters._ir import ir
from converters.errors import UnsupportedModelError, list_some, reason_of
from converters.facts import SourceFacts, SourceOutput
from converters.graph import (
    NCHW_TO_NHWC,
    NHWC_TO_NCHW,
    OPSET,
    GraphWriter,
    constant_at,
    constant_of,
    infer_shapes,
    static_shape,
)
from converters.opset import upgraded
from converters.quant import QuantParams
from converters.sources.onnx.reader import invalid

if TYPE_CHECKING:
    from converters.sources.onnx.reader import OnnxSource

CHANGED = frozenset({"GridSample", "GroupNormalization"})  # mean something else in opset 20 or 21
LARGEST_TENSOR = 2**31 - 1  # numbers, as in a TFLite file
MOST_FOLDED = 1 << 20  # numbers of a constant that is computed here: anchors and strides of the largest pictures
ACTIVATIONS = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
MOVERS = frozenset({"Cast", "Concat", "DequantizeLinear", "Flatten", "Gather", "Identity", "Pad", "QuantizeLinear",
                    "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})  # fmt: skip
PRODUCTS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearConv"})
ELEMENTWISE = frozenset({"Add", "BatchNormalization", "Clip", "DequantizeLinear", "Div", "Exp", "HardSigmoid",
                         "Identity", "LeakyRelu", "Mul", "QuantizeLinear", "Relu", "Sigmoid", "Softmax", "Sub",
                         "Tanh"})  # fmt: skip
CHANNELS_FIRST = frozenset({"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace", "MaxPool",
                            "QLinearConv", "Resize", "Upsample"})  # fmt: skip
FOLDED = frozenset({"Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Cos", "Div", "Equal", "Exp", "Expand", "Floor",
                    "Gather", "Identity", "Less", "Mod", "Mul", "Neg", "Pow", "Range", "Reshape", "Sin", "Slice",
                    "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where"})  # fmt: skip

# What ONNX's reference evaluator raises where constants do not fit an operator.
NOT_COMPUTED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def fixed_graph(source: OnnxSource, batch: int | str = 1) -> ir.Graph:
    """The graph for pictures of one size, in execution order, without what was folded.

    ``batch`` is how many images a call takes, or the name of the open dimension.

    Raises:
        SourceFileError: its shapes or types contradict each other.
        UnsupportedModelError: onnx cannot bring it to ``OPSET``, or a shape stays unknown.
    """
    proto, file = _sized(source, batch), source.file
    changed = sorted({node.op_type for node in proto.graph.node} & CHANGED)
    if changed:
        raise UnsupportedModelError(
            f"{file}: holds {', '.join(changed)}, whose meaning depends on the opset; export the model without them"
        )
    if proto.opset_import[0].version < OPSET:
        proto = upgraded(proto, OPSET, file, f"; export it with opset {OPSET}")
    try:  # every shape that can be told; what contradicts itself or the standard is refused
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, OverflowError) as error:
        raise invalid(file, error) from error
    model = ir.from_proto(proto)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.graph.sort()
    for _ in range(2):  # folded sizes let more shapes be inferred
        infer_shapes(model)
        _fold(model.graph, file)
    infer_shapes(model)
    common.RemoveUnusedNodesPass()(model)
    _require_known(model.graph, file, batch)
    return model.graph


def _sized(source: OnnxSource, batch: int | str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    picture = next(value for value in proto.graph.input if value.name == source.picture)
    sized = onnx.helper.make_tensor_type_proto(picture.type.tensor_type.elem_type, source.shape(batch))
    picture.type.CopyFrom(sized)
    del proto.graph.value_info[:]
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    del proto.opset_import[:]
    proto.opset_import.add(domain="", version=opset)
    for node in proto.graph.node:
        node.domain = ""
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto


def _fold(graph: ir.Graph, file: str) -> None:
    """Write results that only constants and fixed shapes decide as constants, in place; bounded in size."""
    writer = GraphWriter.appending(graph)
    for node in graph:
        try:
            arrays = _computed_now(node)
        except NOT_COMPUTED as error:
            name = str(node.outputs[0].name)
            raise invalid(file, f"{node.op_type} {name!r} cannot be computed: {reason_of(error):.300}") from error
        for value, array in zip(node.outputs, arrays, strict=True) if arrays else ():
            value.replace_all_uses_with(writer.constant(array, f"{value.name}/folded"))


def _computed_now(node: ir.Node) -> list[Any] | None:
    """A node's results; None where they depend on the picture, are many, or nobody reads them."""
    if not any(value.uses() for value in node.outputs) or any(value.is_graph_output() for value in node.outputs):
        return None
    if node.op_type == "Shape" and node.inputs[0] is not None and not node.attributes:
        shape = static_shape(node.inputs[0])
        return None if shape is None else [np.array(shape, np.int64)]
    shapes = [static_shape(value) for value in node.outputs]
    if node.op_type not in FOLDED or any(s is None or math.prod(s) > MOST_FOLDED for s in shapes):
        return None
    feeds = {str(value.name): constant_of(value) for value in node.inputs if value is not None}
    if any(array is None for array in feeds.values()):
        return None
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
        if array is not None
    ]
    results = [onnx.ValueInfoProto(name=str(value.name)) for value in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "folded", infos, results)
    opset = node.graph.opset_imports[""] if node.graph is not None else OPSET
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]


def _require_known(graph: ir.Graph, file: str, batch: int | str) -> None:
    unknown = [
        f"{node.op_type} {str(value.name)!r}"
        for node in graph
        for value in node.outputs
        if value.name and (value.dtype is None or static_shape(value, open_batch=isinstance(batch, str)) is None)
    ]
    for value in (value for node in graph for value in node.outputs):
        shape = static_shape(value, open_batch=True)
        if shape is not None and math.prod(max(size, 1) for size in shape) > LARGEST_TENSOR:
            raise UnsupportedModelError(
                f"{file}: {str(value.name)!r} has shape {list(shape)}, at most {LARGEST_TENSOR} numbers are read"
            )
    misfits = [misfit for node in graph if node.op_type == "Conv" and (misfit := _misfit(node))]
    if misfits:
        raise invalid(file, misfits[0])
    if unknown:
        raise UnsupportedModelError(
            f"{file}: the shapes of {list_some(unknown)} cannot be told before it runs; export the model with fixed "
            "sizes (Ultralytics: dynamic=False), or through a simplifier such as onnxslim"
        )


def _misfit(node: ir.Node) -> str | None:
    """Weights that do not fit the channels, which shape inference lets pass and kernels do not."""
    picture, weights = (static_shape(value, open_batch=True) for value in node.inputs[:2])
    if picture is None or weights is None or len(picture) < 2 or len(weights) != len(picture):
        return None
    group = node.attributes.get_int("group", 1)
    fits = group >= 1 and weights[1] * group == picture[1] and weights[0] % group == 0
    return None if fits else f"Conv {str(node.outputs[0].name)!r} has weights {list(weights)} for {list(picture)}"


@dataclass(frozen=True, slots=True)
class Ending:
    """What stands in front of a value, as far as it tells what the value's numbers are."""

    activations: tuple[str, ...] = ()  # operators that activated them last
    # the largest constant that they were multiplied by last, as boxes by strides; None where there was none
    reach: float | None = None
    is_nchw: bool | None = None  # whether channels come before rows and columns; None where no operator tells
    from_picture: bool = False  # whether a product of the picture reaches the value


def endings(graph: ir.Graph) -> dict[str, Ending]:
    """What stands in front of every value, by its name."""
    by_name: dict[str, Ending] = {}
    for node in graph:
        before = [by_name.get(str(value.name), Ending()) for value in node.inputs if value is not None]
        moved = before if node.op_type in MOVERS else []
        joined = dict.fromkeys(name for part in moved for name in part.activations)
        activations = (node.op_type,) if node.op_type in ACTIVATIONS else tuple(joined)
        pictured = node.op_type in PRODUCTS or any(part.from_picture for part in before)
        ending = Ending(activations, _reach(node, before), _layout(node, before), pictured)
        by_name.update((str(value.name), ending) for value in node.outputs)
    return by_name


def _reach(node: ir.Node, before: list[Ending]) -> float | None:
    largest = max((part.reach for part in before if part.reach is not None), default=None)
    if node.op_type in MOVERS or node.op_type in ("Add", "Sub"):
        return largest
    if node.op_type not in ("Mul", "Div") or len(node.inputs) != 2:
        return None
    factors = [_largest(value) for value in node.inputs if value is not None]
    factor = next((number for number in factors if number), None)
    if factor is None:
        return None
    return (1.0 if largest is None else largest) * (factor if node.op_type == "Mul" else 1 / factor)


def _largest(value: ir.Value) -> float | None:
    """The largest magnitude of a constant, or of codes behind a DequantizeLinear of constants."""
    array, producer = constant_of(value), value.producer()
    if array is None and producer is not None and producer.op_type == "DequantizeLinear":
        codes, params = constant_at(producer, 0), quant_params(producer)
        if codes is not None and params is not None:
            steps = codes.astype(np.float64) - params.scalar_zero_point
            return float(np.abs(steps * float(params.scalar_scale)).max(initial=0))
    if array is None or array.dtype not in (np.float32, np.float16, np.float64):
        return None
    return float(np.abs(array.astype(np.float64)).max(initial=0))


def quant_params(node: ir.Node, axis: int | None = None) -> QuantParams | None:
    """Scales and zero-points of a QuantizeLinear or DequantizeLinear; None where they are computed, or mean nothing.

    All of them where ``axis`` is their axis, else the only ones: None where there are several.
    """
    stored, zero_point = constant_at(node, 1), constant_at(node, 2)
    if stored is None or (len(node.inputs) > 2 and zero_point is None) or (axis is None and stored.size != 1):
        return None
    scale = stored.reshape(-1).astype(np.float32)
    points = np.zeros(scale.size, np.int64) if zero_point is None else zero_point.reshape(-1).astype(np.int64)
    if not scale.size or scale.size != points.size or not (np.isfinite(scale) & (scale > 0)).all():
        return None
    return QuantParams(scale, points, None if scale.size == 1 else axis)


def _layout(node: ir.Node, before: list[Ending]) -> bool | None:
    if node.op_type in CHANNELS_FIRST:
        return True
    if node.op_type == "Transpose":
        perm = tuple(node.attributes.get_ints("perm", []))
        return {tuple(NCHW_TO_NHWC): False, tuple(NHWC_TO_NCHW): True}.get(perm)
    layouts = {part.is_nchw for part in before if part.is_nchw is not None}
    keeps = node.op_type in ELEMENTWISE or node.op_type in ("Concat", "Pad", "Slice", "Split", "Cast")
    return layouts.pop() if keeps and len(layouts) == 1 else None


def turned_outputs(graph: ir.Graph) -> tuple[bool, ...]:
    """Of each output, whether its channels come first, so that it is told and written channels last."""
    by_name = endings(graph)
    return tuple(
        len(static_shape(value, open_batch=True) or ()) == 4 and by_name.get(str(value.name), Ending()).is_nchw is True
        for value in graph.outputs
    )


def facts_from_onnx(source: OnnxSource) -> SourceFacts:
    """What an ONNX file tells about its detector.

    Raises:
        UnsupportedModelError: as ``fixed_graph``; or an output is not float32 numbers of one image.
    """
    graph = fixed_graph(source)
    by_name = endings(graph)
    outputs = []
    for value, turned in zip(graph.outputs, turned_outputs(graph), strict=True):
        shape, ending = static_shape(value), by_name.get(str(value.name), Ending())
        if value.producer() is None or value.dtype != ir.DataType.FLOAT or not shape or shape[0] != 1 or min(shape) < 1:
            found = f"{None if value.dtype is None else value.dtype.name.lower()} {list(shape or ())}"
            raise UnsupportedModelError(
                f"{source.file}: is not a detector: output expected float numbers of one image, [1, ...], found "
                f"'{value.name}' {found}; export the network without its post-processing"
            )
        if turned:
            shape = tuple(shape[axis] for axis in NCHW_TO_NHWC)
        largest, smallest = _extremes(value)
        output = SourceOutput(str(value.name), shape[1:], ending.activations, largest, smallest)
        outputs.append(replace(output, from_picture=ending.from_picture, reach=ending.reach))
    metadata = () if source.metadata is None else (source.metadata,)
    return SourceFacts(
        source.file, *source.size_hw, tuple(outputs), source.dtype, None, channels=source.channels, metadata=metadata
    )


def _extremes(value: ir.Value) -> tuple[float, float] | tuple[None, None]:
    """The largest and smallest number that the codes behind an output can hold; none where it was not quantised."""
    node = value.producer()
    while node is not None and node.op_type in ("Identity", "Reshape", "Transpose") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None, None
    params, codes = quant_params(node), constant_at(node, 2)
    if params is None or codes is None or codes.dtype not in (np.int8, np.uint8):
        return None, None
    return params.extremes(codes.dtype.name)
