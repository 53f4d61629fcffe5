"""Evaluate a QDQ graph: a table from operator to kernel, and a walk that forgets values which nobody needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.integer import convolution, kernels
from converters.integer.values import Quantized, Reals, Rounding, first_of, is_settled, quantize_value, reals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.integer.values import Inputs, Value


class NotEvaluatedError(Exception):
    """The graph holds something that has no exact kernel here; the message names it."""


@dataclass(frozen=True, slots=True)
class GraphValues:
    """What a walk gives."""

    values: Mapping[str, Value]  # name -> value, of those that were asked for
    # names of the values in front of which float32 arithmetic of several numbers was rounded to codes: there another
    # honest runtime may round to the neighbouring code
    inexact: tuple[str, ...]


def evaluate(
    graph: ir.Graph, feeds: Mapping[str, NDArray[Any]], wanted: Iterable[str], *, rounding: Rounding | None = None
) -> GraphValues:
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
            if node.op_type == "QuantizeLinear":
                codes, settled = _quantize(node, inputs, rounding or Rounding())
                results: Sequence[Value] = [codes]
                if not settled:
                    inexact.append(str(node.outputs[0].name))
            else:
                results = _run(node, inputs)
            values.update({str(v.name): result for v, result in zip(node.outputs, results, strict=True)})
            for value in node.inputs:
                if value is not None and last_use[str(value.name)] is node and value.name not in names:
                    values.pop(str(value.name), None)
    return GraphValues({name: values[name] for name in names}, tuple(inexact))


def _needed(graph: ir.Graph, wanted: set[str], fed: set[str]) -> list[ir.Node]:
    """The nodes on which ``wanted`` depends, in execution order."""
    missing, nodes = wanted - fed, []
    for node in reversed(list(graph)):
        outputs = {str(value.name) for value in node.outputs}
        if outputs & missing:
            nodes.append(node)
            missing -= outputs
            missing |= {
                str(value.name)
                for value in node.inputs
                if value is not None and ir.convenience.get_const_tensor(value) is None
            } - fed
    if missing:
        raise NotEvaluatedError(f"values without a producer: {', '.join(sorted(missing))}")
    return nodes[::-1]


def _input(values: Mapping[str, Value], value: ir.Value | None) -> Value | None:
    if value is None:
        return None
    if str(value.name) in values:
        return values[str(value.name)]
    constant = ir.convenience.get_const_tensor(value)
    assert constant is not None, "what is not computed is constant"  # noqa: S101
    return Reals(constant.numpy())


def _run(node: ir.Node, inputs: Inputs) -> Sequence[Value]:
    if node.op_type not in KERNELS:
        raise NotEvaluatedError(f"{node.op_type} {node.name!r} has no kernel")
    try:
        results = KERNELS[node.op_type](node, inputs)
    except NotImplementedError as error:
        raise NotEvaluatedError(f"{node.op_type} {node.name!r} {error}") from error
    return results if isinstance(results, list) else [results]


def _dequantize(node: ir.Node, inputs: Inputs) -> Value:
    codes, scale, *zero_points = (value.array for value in reals_of(inputs))
    zero_point = zero_points[0] if zero_points else np.zeros(scale.shape, np.int32)
    axis = node.attributes.get_int("axis", 1) % max(codes.ndim, 1)
    return Quantized(codes, scale, zero_point.astype(np.int32), axis)


def _quantize(node: ir.Node, inputs: Inputs, rounding: Rounding) -> tuple[Value, bool]:
    """The codes of a QuantizeLinear, and whether every runtime has the same."""
    scale, zero_point = (value.array for value in reals_of(inputs[1:]))
    if scale.size != 1:
        raise NotEvaluatedError(f"QuantizeLinear {node.name!r} quantises per channel")
    like = Quantized(np.empty(0, zero_point.dtype), scale, zero_point.astype(np.int32))
    value = first_of(inputs)
    return Reals(quantize_value(value, like, rounding)), is_settled(value, like)


KERNELS: dict[str, Callable[[ir.Node, Inputs], Value | list[Value]]] = {
    "ArgMax": kernels.arg_max,
    "AveragePool": convolution.average_pool,
    "Cast": kernels.cast,
    "Concat": kernels.concatenate,
    "Conv": convolution.conv,
    "ConvInteger": convolution.conv_integer,
    "CumSum": kernels.cum_sum,
    "DequantizeLinear": _dequantize,
    "Gemm": convolution.gemm,
    "MatMul": kernels.mat_mul,
    "MatMulInteger": convolution.mat_mul_integer,
    "MaxPool": convolution.max_pool,
    "Pad": kernels.pad,
    "PRelu": kernels.prelu,
    "Resize": kernels.resize,
    "Softmax": kernels.softmax,
    **dict.fromkeys(kernels.REDUCTIONS, kernels.reduce_values),
    **dict.fromkeys(kernels.FOLDS, kernels.fold),
    **dict.fromkeys(kernels.BINARY, kernels.combine),
    **dict.fromkeys((*kernels.EXACT, *kernels.PLAIN, "HardSigmoid", "Sigmoid"), kernels.apply_function),
    **dict.fromkeys(kernels.MOVERS, kernels.move),
}
