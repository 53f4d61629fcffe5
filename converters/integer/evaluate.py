"""Evaluate a QDQ graph: a table from operator to kernel, and a walk that forgets values as soon as nobody needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from converters._ir import ir
from converters.integer.kernels import (
    BINARY,
    EXACT,
    EXTREMES,
    MOVERS,
    PLAIN,
    apply_function,
    average_pool,
    combine,
    concatenate,
    convolve,
    extreme,
    matrix_product,
    max_pool,
    move,
    multiply,
    pad,
    prelu,
    resize,
    softmax,
    window_of,
)
from converters.integer.reductions import REDUCTIONS, add_up, arg_max, integer_product, reduce_values, running_sums
from converters.integer.values import Quantized, Reals, Rounding, Value, is_settled, quantize_value, to_reals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray


class NotEvaluatedError(Exception):
    """The graph holds something that has no exact kernel here; the message names it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a walk found.

    Attributes:
        values: name -> value, of those that were asked for.
        inexact: names of the values in front of which float32 arithmetic of several numbers was rounded to codes: there
            another honest runtime may round to the neighbouring code.
    """

    values: Mapping[str, Value]
    inexact: tuple[str, ...]


def read_graph(model: bytes) -> ir.Graph:
    """The graph of a finished model's bytes."""
    return ir.from_proto(onnx.load_model_from_string(model)).graph


def evaluate(
    graph: ir.Graph, feeds: Mapping[str, NDArray[Any]], wanted: Iterable[str], *, rounding: Rounding | None = None
) -> Evaluation:
    """Compute values of a graph.

    Args:
        graph: nodes in execution order; constants are initialisers.
        feeds: arrays for graph inputs, or for values inside it, which then are not computed.
        wanted: names of values.
        rounding: moved decisions, to measure what they change; None is the real arithmetic.

    Raises:
        NotEvaluatedError: a value depends on an operator or an input that is not covered.
    """
    names = tuple(wanted)
    needed = _needed(graph, set(names), set(feeds))
    values: dict[str, Value] = {name: Reals(array) for name, array in feeds.items()}
    last_use = {str(v.name): node for node in needed for v in node.inputs if v is not None}
    inexact: list[str] = []
    with np.errstate(all="ignore"):  # absurd scales overflow as they do in a runtime, which says nothing either
        for node in needed:
            inputs = [_input(values, value) for value in node.inputs]
            results = _run(node, inputs, rounding or Rounding())
            if node.op_type == "QuantizeLinear" and not is_settled(_first(inputs), _read_as(inputs)):
                inexact.append(str(node.outputs[0].name))
            values.update({str(v.name): result for v, result in zip(node.outputs, results, strict=True)})
            for value in node.inputs:
                if value is not None and last_use[str(value.name)] is node and value.name not in names:
                    values.pop(str(value.name), None)
    return Evaluation({name: values[name] for name in names}, tuple(inexact))


def _needed(graph: ir.Graph, wanted: set[str], given: set[str]) -> list[ir.Node]:
    """The nodes on which ``wanted`` depends, in execution order."""
    missing, nodes = wanted - given, []
    for node in reversed(list(graph)):
        outputs = {str(value.name) for value in node.outputs}
        if outputs & missing:
            nodes.append(node)
            missing -= outputs
            missing |= {
                str(value.name)
                for value in node.inputs
                if value is not None and ir.convenience.get_const_tensor(value) is None
            } - given
    if missing:
        msg = f"values without a producer: {', '.join(sorted(missing))}"
        raise NotEvaluatedError(msg)
    return nodes[::-1]


def _input(values: Mapping[str, Value], value: ir.Value | None) -> Value | None:
    if value is None:
        return None
    if str(value.name) in values:
        return values[str(value.name)]
    constant = ir.convenience.get_const_tensor(value)
    assert constant is not None, "what is not computed is constant"  # noqa: S101
    return Reals(constant.numpy())


def _run(node: ir.Node, inputs: Sequence[Value | None], rounding: Rounding) -> Sequence[Value]:
    if node.op_type not in KERNELS:
        raise NotEvaluatedError(f"{node.op_type} {node.name!r} has no kernel")
    try:
        return KERNELS[node.op_type](node, inputs, rounding)
    except NotImplementedError as error:
        msg = f"{node.op_type} {node.name!r} {error}"
        raise NotEvaluatedError(msg) from error


def _dequantize(node: ir.Node, inputs: Sequence[Value | None], _rounding: Rounding) -> Sequence[Value]:
    codes, scale = _array(inputs, 0), _array(inputs, 1)
    zero_point = _array(inputs, 2) if len(inputs) > 2 else np.zeros(scale.shape, np.int32)
    axis = node.attributes.get_int("axis", 1) % max(codes.ndim, 1)
    return [Quantized(codes, scale, zero_point.astype(np.int32), axis)]


def _quantize(_node: ir.Node, inputs: Sequence[Value | None], rounding: Rounding) -> Sequence[Value]:
    like = _read_as(inputs)
    if like.scale.size != 1:
        raise NotImplementedError("quantises per channel")
    return [Reals(quantize_value(_first(inputs), like, rounding))]


def _read_as(inputs: Sequence[Value | None]) -> Quantized:
    """An empty tensor of a QuantizeLinear's scale, zero-point and dtype."""
    scale, zero_point = _array(inputs, 1), _array(inputs, 2)
    return Quantized(np.empty(0, zero_point.dtype), scale, zero_point.astype(np.int32))


def _convolve(node: ir.Node, inputs: Sequence[Value | None], _rounding: Rounding) -> Sequence[Value]:
    x, w, bias = _operands(inputs)
    window = window_of(node, x.codes.shape, w.codes.shape[2:])
    return [convolve(x, w, bias, window, node.attributes.get_int("group", 1))]


def _convolve_codes(node: ir.Node, inputs: Sequence[Value | None], _rounding: Rounding) -> Sequence[Value]:
    """ConvInteger: int32 sums."""
    arrays = [_array(inputs, place) for place in range(4)]
    one = np.array(1, np.float32)
    x, w = (Quantized(arrays[i], one, arrays[i + 2].astype(np.int32)) for i in (0, 1))
    window = window_of(node, x.codes.shape, w.codes.shape[2:])
    return [Reals(convolve(x, w, None, window, node.attributes.get_int("group", 1)).sums)]


def _multiply(node: ir.Node, inputs: Sequence[Value | None], _rounding: Rounding) -> Sequence[Value]:
    if node.attributes.get_int("transA", 0) or not node.attributes.get_int("transB", 0):
        raise NotImplementedError("multiplies another way than rows by transposed weights")
    return [multiply(*_operands(inputs))]


def _operands(inputs: Sequence[Value | None]) -> tuple[Quantized, Quantized, Quantized | None]:
    """Input, weights and bias as codes."""
    x, w, bias = (*inputs, None)[:3]
    if not (isinstance(x, Quantized) and isinstance(w, Quantized) and x.scale.size == 1):
        raise NotImplementedError("works on float32 numbers, not on codes")
    if isinstance(bias, Reals):
        return x, w, _bias_codes(bias.array, x, w)
    if bias is not None and not isinstance(bias, Quantized):
        raise NotImplementedError("has a bias of float32 numbers")
    return x, w, bias


def _bias_codes(bias: NDArray[Any], x: Quantized, w: Quantized) -> Quantized:
    """A float32 bias of whole steps (``--symmetric``) as the codes that runtimes make of it again."""
    step = np.broadcast_to((x.scale * w.scale).astype(np.float32), bias.shape)
    codes = np.rint(bias / step.astype(np.float64))
    if not np.array_equal((codes * step).astype(np.float32), bias):
        raise NotImplementedError("has a bias of float32 numbers")
    return Quantized(codes.astype(np.int32), step, np.zeros(step.shape, np.int32))


def _cast(node: ir.Node, inputs: Sequence[Value | None], _rounding: Rounding) -> Sequence[Value]:
    array, target = _array(inputs, 0), ir.DataType(node.attributes.get_int("to"))
    if array.dtype.kind not in "iubf" or target not in CAST_TARGETS:
        raise NotImplementedError(f"casts {array.dtype} to {target}")
    return [Reals(array.astype(target.numpy()))]


def _array(inputs: Sequence[Value | None], position: int) -> NDArray[Any]:
    value = inputs[position]
    assert value is not None, "Q/DQ inputs are never omitted in the graphs that importers write"  # noqa: S101
    return to_reals(value).array


def _first(inputs: Sequence[Value | None]) -> Value:
    assert inputs[0] is not None, "the first operand is never omitted"  # noqa: S101
    return inputs[0]


CAST_TARGETS = (ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.UINT8, ir.DataType.INT8)
KERNELS: dict[str, Callable[[ir.Node, Sequence[Value | None], Rounding], Sequence[Value]]] = {
    "ArgMax": lambda node, inputs, _: [arg_max(node, _first(inputs))],
    "AveragePool": lambda node, inputs, _: [average_pool(node, _first(inputs))],
    "Cast": _cast,
    "Concat": lambda node, inputs, _: [concatenate(node, inputs)],
    "Conv": _convolve,
    "ConvInteger": _convolve_codes,
    "CumSum": lambda _node, inputs, _: [running_sums(inputs)],
    "DequantizeLinear": _dequantize,
    "Gemm": _multiply,
    "MatMulInteger": lambda _node, inputs, _: [integer_product(inputs)],
    "MatMul": lambda _node, inputs, _: [matrix_product(inputs)],
    "MaxPool": lambda node, inputs, _: [max_pool(node, _first(inputs))],
    "Pad": lambda node, inputs, _: [pad(node, inputs)],
    "PRelu": lambda _node, inputs, _: [prelu(inputs)],
    "QuantizeLinear": _quantize,
    "Resize": lambda node, inputs, _: [resize(node, inputs)],
    "Sum": lambda _node, inputs, _: [add_up(inputs)],
    "Softmax": lambda node, inputs, _: [softmax(node, _first(inputs))],
    **dict.fromkeys(REDUCTIONS, lambda node, inputs, _: [reduce_values(node, inputs)]),
    **dict.fromkeys(EXTREMES, lambda node, inputs, _: [extreme(node, inputs)]),
    **dict.fromkeys(BINARY, lambda node, inputs, _: [combine(node, inputs)]),
    **dict.fromkeys((*EXACT, *PLAIN, "HardSigmoid", "Sigmoid"), lambda node, inputs, _: [apply_function(node, inputs)]),
    **dict.fromkeys(MOVERS, lambda node, inputs, _: move(node, inputs)),
}
