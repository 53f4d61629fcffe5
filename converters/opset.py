"""Which opset a graph needs, the IR version that goes with it, and the oldest releases of runtimes that load the file.

Before: a graph as it was written, in ``OPSET``. After: the same nodes, stamped with the lowest opset that takes all of
them, or with the one that was asked for. An opset takes a node if its schema knows every attribute, as many operands
and results, and their dtypes; the axes of a mean are an attribute where the opset has no operand for them. Numeric
effect: none; an operator that takes the same node in two of these opsets means the same in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import version_converter
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from converters._ir import ir
from converters.errors import OptionError, UnsupportedModelError, reason_of
from converters.graph import constant_at
from converters.spec.contract import (
    ANY_SIZE_RULES,
    ANY_SIZE_RUNTIMES,
    IR_VERSIONS,
    ONNXRUNTIME,
    ONNXRUNTIMES,
    OTHER_RUNTIMES,
    REFUSED_TRAITS,
    UINT8_MAX_ONNXRUNTIME,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.spec import ModelDocument
    from converters.spec.contract import Trait

AXES_BY_OPERAND = {"ReduceMean": 18}  # operator -> the first opset in which constant axes are an operand
# From this opset on ONNX Runtime 1.27 to 1.32 moves a QuantizeLinear of int8 codes over a Transpose, states there that
# its output_dtype is int8, makes the zero-point uint8, and then refuses the two (1.20 to 1.26 do not).
NO_INT8_CODES = 21


def upgraded(proto: onnx.ModelProto, opset: int, file: str, advice: str = "") -> onnx.ModelProto:
    """A model's copy in a newer opset, by onnx's own converter; ``advice`` ends the message.

    Raises:
        UnsupportedModelError: onnx cannot bring it there.
    """
    try:
        return version_converter.convert_version(proto, opset)
    except (RuntimeError, ValueError, ValidationError, InferenceError) as error:
        reason, old = reason_of(error), proto.opset_import[0].version
        raise UnsupportedModelError(
            f"{file}: opset {old} cannot be brought to {opset}: {reason:.300}{advice}"
        ) from error


def stamp_opset(model: ir.Model, requested: int | None) -> None:
    """Give a model, whose dtypes are inferred, its opset and IR version, in place.

    Args:
        model: the graph.
        requested: an opset of ``IR_VERSIONS``, or None for the lowest that takes the graph.

    Raises:
        OptionError: the requested opset does not take the graph; names the operators.
    """
    codes = {_dtype(node.outputs[0]) for node in model.graph if node.op_type == "QuantizeLinear"}
    if requested is not None and requested >= NO_INT8_CODES and ir.DataType.INT8 in codes:
        raise OptionError(
            f"`opset` {requested} with int8 activation codes: ONNX Runtime 1.27 to 1.32 cannot load many such files; "
            f"choose an `opset` below {NO_INT8_CODES}, or leave it out"
        )
    taking = (opset for opset in IR_VERSIONS if all(_takes(opset, node) for node in model.graph))  # looked at on demand
    refused: dict[str, str] = {}
    for node in () if requested is None else refused_nodes(model.graph, requested):
        refused.setdefault(node.op_type, str(node.outputs[0].name))
    if refused:
        named = ", ".join(f"{op_type} (first {name!r})" for op_type, name in refused.items())
        raise OptionError(
            f"`opset` {requested} does not have {named} as this graph needs it; choose among "
            f"{', '.join(map(str, taking))}, or leave `opset` out for the lowest"
        )
    opset = requested or next(taking, model.graph.opset_imports[""])
    model.graph.opset_imports[""], model.ir_version = opset, IR_VERSIONS[opset]
    for node in model.graph:
        if opset < AXES_BY_OPERAND.get(node.op_type, 0) and (axes := _constant_axes(node)) is not None:
            node.attributes["axes"] = ir.AttrInt64s("axes", axes)
            node.resize_inputs(1)


def refused_nodes(graph: ir.Graph, opset: int) -> Sequence[ir.Node]:
    """The nodes that an opset does not take; dtypes that the graph does not state are not looked at."""
    return [node for node in graph if not _takes(opset, node)]


def oldest_runtimes(model: ir.Model, document: ModelDocument) -> dict[str, str]:
    """The oldest release known to run a stamped model, by runtime; runtimes that do not take it are left out."""
    oldest = ONNXRUNTIME[model.graph.opset_imports[""]]
    if any(node.op_type == "Max" and _dtype(node.inputs[-1]) == ir.DataType.UINT8 for node in model.graph):
        oldest = UINT8_MAX_ONNXRUNTIME
    spec = document.spec
    has: dict[Trait, bool] = {
        "float16": document.float16,
        "competing classes": spec.gives_boxes and spec.competing_classes > 1,
        "int8 activations": document.activations == "int8" and not document.symmetric,
    }
    refusing = {name for name, traits in REFUSED_TRAITS.items() if any(has[trait] for trait in traits)}
    releases = dict(OTHER_RUNTIMES)
    if spec.image.any_size:
        refusing |= {name for name, rules in ANY_SIZE_RULES.items() if spec.image.resize not in rules}
        releases |= ANY_SIZE_RUNTIMES
    others = {name: release for name, release in releases.items() if name not in refusing}
    return {**dict.fromkeys(ONNXRUNTIMES, oldest), **others}


def _takes(opset: int, node: ir.Node) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return False
    operands = len(node.inputs)
    if opset < AXES_BY_OPERAND.get(node.op_type, 0) and _constant_axes(node) is not None:
        operands = 1
    counts = schema.min_input <= operands <= schema.max_input and len(node.outputs) <= schema.max_output
    if not counts or not set(node.attributes) <= set(schema.attributes):
        return False
    values = ((node.inputs, schema.inputs), (node.outputs, schema.outputs))
    return all(
        dtype is None or f"tensor({dtype.name.lower()})" in formal[min(position, len(formal) - 1)].types
        for actual, formal in values
        for position, dtype in enumerate(map(_dtype, actual[:operands] if actual is node.inputs else actual))
    )


def _constant_axes(node: ir.Node) -> list[int] | None:
    """The axes of a reduction whose second operand is constant."""
    axes = constant_at(node, 1)
    return None if axes is None else [int(axis) for axis in axes.reshape(-1)]


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    if value is None or value.dtype is not None or value.const_value is None:
        return None if value is None else value.dtype
    return value.const_value.dtype
