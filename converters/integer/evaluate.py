"""Evaluate a QDQ graph: a table from operator to kernel, and a walk that forgets values which nobody needs any more.

The golden vector of a network is its head for the golden picture, and how far honest kernels may be from it. It is
taken from the graph as the importer wrote it, before any rewrite: a runtime that gives these codes on the finished file
has proven its kernels and the rewrites at once. Two bounds are measured on the same picture, by moving decisions of
rounding up and down by ``NEAR_TIE`` codes and doubling the largest change of the head:

* of operators in float32 alone (sums, products, means, softmax, sigmoid, interpolation): what runtimes with exact
  integer kernels may differ by. Networks without such operators have 0;
* of every operator: what runtimes may differ by whose integer kernels round in another way.

These are measured sensitivities, not proofs; docs/selftest.md has them beside what runtimes really do.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import constant_of
from converters.integer import convolution, kernels
from converters.integer.golden import NO_VECTOR, RawCodes, golden_image, make_vector
from converters.integer.values import Quantized, Reals, Rounding, first_of, is_settled, quantize_value, reals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.integer.values import Inputs, Value
    from converters.sources import ImportedNetwork
    from converters.spec import DetectorSpec, GoldenVector


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
            inputs = [None if value is None else _input(values, value) for value in node.inputs]
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
            missing |= {str(v.name) for v in node.inputs if v is not None and constant_of(v) is None} - fed
    if missing:
        raise NotEvaluatedError(f"values without a producer: {', '.join(sorted(missing))}")
    return nodes[::-1]


def _input(values: Mapping[str, Value], value: ir.Value) -> Value:
    if str(value.name) in values:
        return values[str(value.name)]
    constant = constant_of(value)
    assert constant is not None, "what is not computed is constant"  # noqa: S101
    return Reals(constant)


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


NEAR_TIE = 2.0**-6
SHIFTS = (NEAR_TIE, -NEAR_TIE)
Head = tuple[list[Quantized], tuple[str, ...]]
"""The codes of the raw outputs, and the values that were rounded from float32 arithmetic."""


def attempt_golden_vector(
    graph: ir.Graph, network: ImportedNetwork, spec: DetectorSpec
) -> tuple[GoldenVector | None, tuple[str, ...]]:
    """The golden vector of an imported network and notes; None for float networks and where a note says why."""
    if network.activations == "float32":
        return None, ()
    try:
        return golden_vector(graph, [str(output.name) for output in network.outputs], spec), ()
    except NotEvaluatedError as error:
        return None, (f"{NO_VECTOR}{error}",)


def golden_vector(graph: ir.Graph, head: Sequence[str], spec: DetectorSpec) -> GoldenVector:
    """The golden vector of a network from the input ``image`` to the raw outputs ``head``, float32 ``(N, ...)``.

    Raises:
        NotEvaluatedError: an operator has no kernel, or an output is not quantised.
    """
    picture = golden_image(spec.image.height, spec.image.width, channels=spec.image.channels)

    def heads(*roundings: Rounding) -> list[Head]:
        with ThreadPoolExecutor(len(roundings)) as pool:  # numpy lets other threads run
            return list(pool.map(lambda rounding: _head(graph, head, picture, rounding), roundings))

    (outputs, inexact), *moved = heads(Rounding(), *(Rounding(shift, shift) for shift in SHIFTS))
    raw_codes = []
    for output in outputs:
        shift = 128 if output.codes.dtype == np.int8 else 0
        codes = (output.codes[0].astype(np.int16) + shift).astype(np.uint8)
        raw_codes.append(RawCodes(codes, np.float32(output.scale), int(output.zero_point) + shift))
    barely_moved = heads(*(Rounding(0.0, shift) for shift in SHIFTS)) if inexact else None
    return make_vector(
        raw_codes,
        room_bytes=sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value),
        bound_lsb=0 if barely_moved is None else _largest_change(outputs, barely_moved),
        other_kernels_lsb=_largest_change(outputs, moved),
    )


def _largest_change(outputs: Sequence[Quantized], moved: Sequence[Head]) -> int:
    """Twice the largest change of a head's code when near-ties fall the other way, at least 1."""
    pairs = [pair for others, _ in moved for pair in zip(others, outputs, strict=True)]
    worst = max(int(np.abs(one.codes.astype(np.int16) - other.codes).max()) for one, other in pairs)
    return max(1, 2 * worst)


def _head(graph: ir.Graph, head: Sequence[str], picture: NDArray[np.uint8], rounding: Rounding) -> Head:
    evaluation = evaluate(graph, {str(graph.inputs[0].name): picture}, head, rounding=rounding)
    outputs = []
    for name in head:
        output = evaluation.values[name]
        if not isinstance(output, Quantized) or output.scale.size != 1 or output.codes.dtype.itemsize != 1:
            raise NotEvaluatedError(f"the head {name!r} is not quantised to 8 bits")
        outputs.append(output)
    return outputs, evaluation.inexact
