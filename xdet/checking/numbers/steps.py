"""Static part, operators that stand as integer arithmetic step by step: run here on all pairs of codes, or on a picture.

There is no scale or zero-point to compare in such a form, only its result: a sum or product must give LiteRT XNNPACK's
code for each of the 65,536 pairs (``converters.integer.pairs``), a bilinear resize must give the codes of XNNPACK's
11-bit weights for a picture of random codes, ABS, EXP, TANH, HARD_SWISH and PRELU must look up those of LiteRT's
kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.integer.functions import function_table, hard_swish_table, prelu_tables, square_table
from converters.integer.pairs import xnnpack_codes, xnnpack_takes
from converters.sources.tflite.ops.activations import BOUNDS, codes_between
from converters.sources.tflite.ops.arithmetic import is_square
from xdet.checking.numbers.context import owners_of
from xdet.checking.numbers.pairs import NODES, case_of, clamped, codes_of, combination_at, pairs_at, stepped_codes
from xdet.checking.numbers.slopes import case_between
from xdet.checking.result import ProvenChange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.leaky import LeakyCase
    from converters.sources.tflite.reader import TfliteOperator
    from xdet.checking.numbers.context import StaticContext
    from xdet.model.graph import Node

CASTS = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32}  # by ONNX's number
STEPS: Mapping[str, Callable[..., NDArray[Any]]] = {
    "Add": np.add,
    "Clip": np.clip,
    "Div": lambda a, b: np.trunc(a / b).astype(a.dtype),
    "Mul": np.multiply,
    "Round": np.rint,
    "Sub": np.subtract,
}


def compare_steps(context: StaticContext) -> None:
    """Compare every sum, product and bilinear resize that ends in a Cast with its source operator."""
    for index, op in context.source.makers.items():
        twin = context.document.tensors.get(context.source.names[index])
        last = None if twin is None or twin.onnx is None else context.graph.producers.get(twin.onnx)
        if _is_table(context, op, last) and context.document.leaky_relu == "litert":
            _compare_table(context, index, op)
        if op.op == "MUL" and last is not None and last.op == "QuantizeLinear":
            _compare_product(context, op, last)
        if op.op not in (*NODES.values(), "RESIZE_BILINEAR") or last is None or last.op != "Cast":
            continue
        leaves = list(dict.fromkeys(_leaves(context, last)))
        unsigned = last.attributes["to"] == 2
        found, wanted = (
            _resized(context, op, last, leaves, unsigned=unsigned)
            if op.op == "RESIZE_BILINEAR"
            else _combined(context, op, last, leaves, unsigned=unsigned)
        )
        _judge(context, op, found, wanted)


def _compare_product(context: StaticContext, op: TfliteOperator, last: Node) -> None:
    """A product step by step between Q and DQ: all its pairs of codes; a fused one is judged with its scales."""
    combination, unsigned = combination_at(context, last), context.document.activations == "uint8"
    case = case_of(context, op, unsigned=unsigned)
    if combination is None or not combination.steps or case is None:
        return
    pairs = pairs_at(context, op, case, unsigned=unsigned)
    _judge(context, op, stepped_codes(context, combination, pairs), clamped(op, case, pairs.wanted))


def _is_table(context: StaticContext, op: TfliteOperator, last: Node | None) -> bool:
    """Whether an operator must stand as a table of 256 codes; a tensor times itself may."""
    if op.op != "MUL":
        return op.op in TABLES
    case = case_of(context, op, unsigned=True) if is_square(op) else None
    return last is not None and last.op == "Gather" and case is not None and xnnpack_takes(case)


def _compare_table(context: StaticContext, index: int, op: TfliteOperator) -> None:
    """All 256 codes of an operator on codes: what is looked up, and what LiteRT's kernel computes."""
    case = case_between(context, op.inputs[0], index, 1.0)
    if case is None:
        return
    lowest = 0 if context.document.activations == "uint8" else -128
    wanted = TABLES[op.op](context, op, case) + lowest + 128
    codes = np.arange(lowest, lowest + 256).reshape(-1, *(1 for _ in wanted.shape[1:]))
    twin = context.document.tensors.get(context.source.names[index])
    last = None if twin is None or twin.onnx is None else context.graph.producers.get(twin.onnx)
    leaves = [] if last is None else list(dict.fromkeys(_leaves(context, last)))
    found = _run(context, last, {leaves[0]: codes}) if last is not None and len(leaves) == 1 else None
    _judge(context, op, found, wanted)


def _square(_context: StaticContext, op: TfliteOperator, case: LeakyCase) -> NDArray[np.int64]:
    """LiteRT's codes of a tensor times itself, its fused activation included."""
    bounds = BOUNDS[str(op.options.get("fused_activation", "NONE"))]
    return np.clip(square_table(case), *codes_between(bounds, case.scale_out, case.zero_point_out, -128))


def _prelu(context: StaticContext, op: TfliteOperator, case: LeakyCase) -> NDArray[np.int64]:
    """LiteRT's codes of every input code and slope, the slopes in the graph's layout."""
    slopes = context.source.model.tensors[op.inputs[1]]
    rank = len(context.source.model.tensors[op.inputs[0]].shape)
    assert slopes.data is not None  # noqa: S101 - the importer asks for a constant
    assert slopes.quant is not None  # noqa: S101 - it has a case
    codes = slopes.data.astype(np.int64) - slopes.quant.scalar_zero_point
    codes = codes.reshape((1,) * (rank - codes.ndim) + codes.shape)
    codes = codes.transpose(0, 3, 1, 2) if rank == 4 else codes
    tables = prelu_tables(case, codes.reshape(-1), slopes.quant.scalar_scale)
    return tables.T.reshape(256, *codes.shape[1:])


Table = Callable[["StaticContext", "TfliteOperator", "LeakyCase"], NDArray[np.int64]]
TABLES: Mapping[str, Table] = {
    "HARD_SWISH": lambda _context, _op, case: hard_swish_table(case),
    **{op: lambda _context, op, case: function_table(op.op, case) for op in ("ABS", "EXP", "TANH")},
    "MUL": _square,
    "PRELU": _prelu,
}


def _judge(context: StaticContext, op: TfliteOperator, found: NDArray[Any] | None, wanted: NDArray[Any]) -> None:
    layer = context.source.output_name(op)
    context.compared += wanted.size
    if found is None or found.shape != wanted.shape:
        context.fault("attributes", layer, f"{op.op} {layer!r} stands as steps that are not understood; convert again")
        return
    differing = int(np.count_nonzero(found != wanted))
    if differing:
        told = f"{differing:,} of {wanted.size:,} codes of {op.op} {layer!r}, step by step, differ from LiteRT's"
        context.fault("attributes", layer, told)
        return
    proof = f"all {wanted.size:,} codes that were tried equal LiteRT's"
    context.proven.append(ProvenChange(layer, layer, "table", None, None, proof))


def _combined(
    context: StaticContext, op: TfliteOperator, last: Node, leaves: list[str], *, unsigned: bool
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """All pairs of codes: what the steps give, and what XNNPACK does."""
    case = case_of(context, op, unsigned=unsigned)
    assert case is not None  # noqa: S101 - it has codes
    a, b = (codes_of(context, case, index, unsigned=unsigned) for index in op.inputs[:2])
    left, right = np.repeat(a, b.size), np.tile(b, a.size)
    wanted = clamped(op, case, xnnpack_codes(case, left, right)) if xnnpack_takes(case) else left[:0]
    owners = [owners_of(context, name, set()) for name in leaves]
    first, second = op.inputs[:2]
    swapped = len(leaves) == 2 and (second in owners[0] or first in owners[1]) and first not in owners[0]
    feeds = (right, left) if swapped else (left, right)
    if len(leaves) not in (1, 2):
        return None, wanted
    if len(leaves) == 1:  # a tensor with itself, or two names of one value
        same = left == right
        feeds, wanted = (left[same], right[same]), wanted[same]
    return _run(context, last, dict(zip(leaves, feeds, strict=False))), wanted


def _resized(
    context: StaticContext, op: TfliteOperator, last: Node, leaves: list[str], *, unsigned: bool
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """A picture of two channels of random codes, resized by the steps and by XNNPACK's recipe."""
    tensors = context.source.model.tensors
    before, after = (tensors[index].shape[1:3] for index in (op.inputs[0], op.outputs[0]))
    lowest = 0 if unsigned else -128
    picture = np.random.default_rng(0).integers(lowest, lowest + 256, (1, 2, *before))
    wanted = picture
    for axis in (3, 2):
        low, weight = _weights(op, before[axis - 2], after[axis - 2])
        weight = weight.reshape(-1, 1) if axis == 2 else weight
        high = np.minimum(low + 1, before[axis - 2] - 1)
        wanted = wanted.take(low, axis) * (2048 - weight) + wanted.take(high, axis) * weight
    wanted = (wanted + (1 << 21)) >> 22
    return (_run(context, last, {leaves[0]: picture}) if len(leaves) == 1 else None), wanted


def _weights(op: TfliteOperator, size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lower old position of each new one, and the weight of the next, in 1/2048."""
    aligned = bool(op.options["align_corners"]) and new_size > 1
    half = np.float32(0.5) if op.options["half_pixel_centers"] else np.float32(0)
    step = np.float32(size - aligned) / np.float32(new_size - aligned)
    place = np.clip((np.arange(new_size, dtype=np.float32) + half) * step - half, 0, np.float32(size - 1))
    low = place.astype(np.int64)
    return low, np.rint((place - low.astype(np.float32)) * np.float32(2048)).astype(np.int64)


def _leaves(context: StaticContext, node: Node) -> list[str]:
    """The codes at which the steps begin, in the order of their first reading."""
    found = []
    for name in node.inputs:
        before = context.graph.producers.get(name)
        inner = before is not None and (before.op in STEPS or before.op in ("Cast", "Gather"))
        if before is not None and inner and name not in context.tensors_by_value:
            found += _leaves(context, before)
        elif node.op == "Cast":
            found.append(name)
    return found


def _run(context: StaticContext, node: Node, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The result of a node; None where something else than a step stands in between, or its operands do not fit."""
    inputs = []
    for name in node.inputs:
        before = context.graph.producers.get(name)
        value = feeds.get(name, context.graph.constant(name))
        if value is None and before is not None:
            value = _run(context, before, feeds)
        if value is None:
            return None
        inputs.append(value)
    if node.op == "Cast":
        return np.asarray(inputs[0].astype(CASTS[node.attributes["to"]]))
    try:
        if node.op == "Gather":
            return np.asarray(inputs[0].take(inputs[1], node.attributes.get("axis", 0)))
        return np.asarray(STEPS[node.op](*inputs)) if node.op in STEPS else None
    except (IndexError, ValueError):  # codes beyond the end of a table, shapes that do not fit
        return None
