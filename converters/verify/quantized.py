"""The promises of a quantised model: what makes runtimes execute a QDQ graph in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from converters.verify.finished import Finished, Promise

WEIGHTED = frozenset({"Conv", "Gemm"})
MOVERS = frozenset({"Reshape", "Transpose"})  # may stand between a Gemm and its QuantizeLinear


def dequantizes_what_it_multiplies(finished: Finished) -> Iterator[str]:
    """Every operand of a convolution or product comes from a DequantizeLinear."""
    for node in _weighted(finished):
        for position, value in enumerate(node.inputs):
            source = node if value is None else _producer_through(value, MOVERS)
            if source is None or (source is not node and source.op_type != "DequantizeLinear"):
                what = "a constant or input" if source is None else source.op_type
                yield f"{node.op_type} {node.name!r} reads operand {position} from {what}, expected DequantizeLinear"


def quantizes_every_product_once(finished: Finished) -> Iterator[str]:
    """The result of a convolution or product goes to exactly one QuantizeLinear, and nowhere else."""
    for node in _weighted(finished):
        value = node.outputs[0]
        readers = _readers_through(value, MOVERS if node.op_type == "Gemm" else frozenset())
        if readers != ["QuantizeLinear"]:
            yield f"{node.op_type} {node.name!r} is read by {', '.join(readers) or 'nothing'}, expected one QuantizeLinear"


def scales_every_bias_by_its_operands(finished: Finished) -> Iterator[str]:
    """A bias has exactly the float32 scale ``x_scale * w_scale`` and zero-point 0."""
    for node in _weighted(finished):
        if len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        operands = [_producer_through(value, MOVERS) for value in node.inputs if value is not None]
        parts = [None if source is None else _scale_and_zero_point(source) for source in operands]
        if any(part is None for part in parts):
            continue  # told by dequantizes_what_it_multiplies
        (x, _), (w, _), (bias, zero_point) = (part for part in parts if part is not None)
        wanted = (x * w).astype(np.float32)
        if bias.dtype != np.float32 or not np.array_equal(bias, np.broadcast_to(wanted, bias.shape)):
            yield f"the bias of {node.op_type} {node.name!r} has scale {_few(bias)}, expected {_few(wanted)} = x * w"
        if zero_point.any():
            yield f"the bias of {node.op_type} {node.name!r} has zero-point {_few(zero_point)}, expected 0"


def gives_every_weight_its_own_constants(finished: Finished) -> Iterator[str]:
    """No codes, scale or zero-point of weights or bias is read by a second node: some sessions replace them in place."""
    for node in _weighted(finished):
        for value in node.inputs[1:]:
            source = None if value is None else value.producer()
            for constant in () if source is None else source.inputs:
                if constant is not None and constant.is_initializer() and len(constant.uses()) != 1:
                    readers = ", ".join(sorted(str(use.node.name) for use in constant.uses()))
                    yield f"{constant.name!r} is read by {readers}, expected one reader"


def speaks_one_dialect(finished: Finished) -> Iterator[str]:
    """Every QuantizeLinear writes codes of the document's dtype."""
    wanted = np.dtype(finished.document.activations)
    for node in finished.model.graph:
        if node.op_type == "QuantizeLinear":
            part = _scale_and_zero_point(node)
            if part is None or part[1].dtype != wanted:
                found = "computed codes" if part is None else part[1].dtype.name
                yield f"QuantizeLinear {node.name!r} writes {found}, expected {wanted.name}"


QUANTIZED_PROMISES: tuple[Promise, ...] = (
    dequantizes_what_it_multiplies,
    quantizes_every_product_once,
    scales_every_bias_by_its_operands,
    gives_every_weight_its_own_constants,
    speaks_one_dialect,
)


def _weighted(finished: Finished) -> list[ir.Node]:
    return [node for node in finished.model.graph if node.op_type in WEIGHTED]


def _producer_through(value: ir.Value, movers: frozenset[str]) -> ir.Node | None:
    """The node that computes ``value``, behind nodes that only move it."""
    node = value.producer()
    while node is not None and node.op_type in movers and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _readers_through(value: ir.Value, movers: frozenset[str]) -> list[str]:
    """Operators that read ``value``, behind nodes that only move it; a graph output is a reader, too."""
    readers = ["a graph output"] if value.is_graph_output() else []
    for use in value.uses():
        moves = use.node.op_type in movers
        readers.extend(_readers_through(use.node.outputs[0], movers) if moves else [use.node.op_type])
    return readers


def _scale_and_zero_point(node: ir.Node) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The constants of a QuantizeLinear or DequantizeLinear."""
    tensors = [None if v is None else ir.convenience.get_const_tensor(v) for v in node.inputs[1:3]]
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(tensors) != 2:
        return None
    scale, zero_point = tensors
    return None if scale is None or zero_point is None else (scale.numpy(), zero_point.numpy())


def _few(values: NDArray[Any]) -> str:
    flat = values.reshape(-1)
    return ", ".join(f"{v:.9g}" for v in flat[:3]) + (", ..." if flat.size > 3 else "")
