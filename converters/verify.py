"""What a finished model promises (docs/contract.md), checked before anything is written: one function per promise.

First the promises of a quantised model, which make runtimes execute a QDQ graph in integers, then those of every model.
All that are broken are told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from converters.errors import ContractError
from converters.graph import OF_CODES, constant_at, is_static, network_nodes
from converters.opset import oldest_runtimes, refused_nodes
from converters.spec import METADATA_KEY, ModelDocument, contract_io, raw_outputs
from converters.spec.contract import IR_VERSIONS, OPSET_RANGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.spec import ContractTensor

WEIGHTED = frozenset({"Conv", "Gemm"})
MOVERS = frozenset({"Reshape", "Transpose"})  # may stand between a Gemm and its QuantizeLinear


def dequantizes_what_it_multiplies(finished: Finished) -> Iterator[str]:
    """Every operand of a convolution or product comes from a DequantizeLinear."""
    for node in _weighted(finished):
        for position, value in enumerate(node.inputs):
            if position == 2 and finished.document.symmetric:
                continue  # a float32 bias
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
            listed = ", ".join(readers) or "nothing"
            yield f"{node.op_type} {node.name!r} is read by {listed}, expected one QuantizeLinear"


def scales_every_bias_by_its_operands(finished: Finished) -> Iterator[str]:
    """A bias has exactly the float32 scale ``x_scale * w_scale`` and zero-point 0."""
    for node in _weighted(finished):
        if len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        if finished.document.symmetric:
            continue
        operands = [_producer_through(value, MOVERS) for value in node.inputs if value is not None]
        parts = [None if source is None else _scale_and_zero_point(source) for source in operands]
        if any(part is None for part in parts):
            continue  # told by dequantizes_what_it_multiplies
        (x, _), (w, _), (bias, zero_point) = (part for part in parts if part is not None)
        expected = (x * w).astype(np.float32)
        if bias.dtype != np.float32 or not np.array_equal(bias, np.broadcast_to(expected, bias.shape)):
            yield f"the bias of {node.op_type} {node.name!r} has scale {_few(bias)}, expected {_few(expected)} = x * w"
        if zero_point.any():
            yield f"the bias of {node.op_type} {node.name!r} has zero-point {_few(zero_point)}, expected 0"


def gives_every_weight_its_own_constants(finished: Finished) -> Iterator[str]:
    """No codes, scale or zero-point of weights or bias has a second reader: some sessions replace them in place."""
    for node in _weighted(finished):
        for value in node.inputs[1:]:
            source = None if value is None else value.producer()
            for constant in () if source is None else source.inputs:
                if constant is not None and constant.is_initializer() and len(constant.uses()) != 1:
                    readers = ", ".join(sorted(str(use.node.name) for use in constant.uses()))
                    yield f"{constant.name!r} is read by {readers}, expected one reader"


def speaks_one_dialect(finished: Finished) -> Iterator[str]:
    """Every QuantizeLinear writes codes of the document's dtype."""
    expected = np.dtype(finished.document.activations)
    for node in finished.model.graph:
        if node.op_type == "QuantizeLinear":
            part = _scale_and_zero_point(node)
            if part is None or part[1].dtype != expected:
                stated = "computed codes" if part is None else part[1].dtype.name
                yield f"QuantizeLinear {node.name!r} writes {stated}, expected {expected.name}"


def keeps_zero_points_at_0(finished: Finished) -> Iterator[str]:
    """In a symmetric network every zero-point is 0."""
    for node in finished.model.graph if finished.document.symmetric else ():
        part = _scale_and_zero_point(node)
        if part is not None and part[1].any():
            yield f"{node.op_type} {node.name!r} has zero-point {_few(part[1])}, expected 0"


QUANTIZED_PROMISES: tuple[Promise, ...] = (
    dequantizes_what_it_multiplies,
    quantizes_every_product_once,
    scales_every_bias_by_its_operands,
    gives_every_weight_its_own_constants,
    speaks_one_dialect,
    keeps_zero_points_at_0,
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
    """The constants of a QuantizeLinear or DequantizeLinear; without a zero-point it is 0."""
    if node.op_type not in OF_CODES:
        return None
    scale, zero_point = constant_at(node, 1), constant_at(node, 2)
    if node.op_type == "DequantizeLinear" and len(node.inputs) == 2:
        zero_point = np.zeros((), np.int32)
    return None if scale is None or zero_point is None else (scale, zero_point)


def _few(values: NDArray[Any]) -> str:
    flat = values.reshape(-1)
    return ", ".join(f"{v:.9g}" for v in flat[:3]) + (", ..." if flat.size > 3 else "")


@dataclass(frozen=True, eq=False)
class Finished:
    """Everything a promise may look at."""

    model: ir.Model
    data: bytes  # the same, serialised
    document: ModelDocument  # its metadata
    batch: int | str  # images per call, or the name of the dynamic dimension


Promise = Callable[[Finished], Iterator[str]]
"""Yields one sentence per place where the promise is broken."""


def require_contract(model: ir.Model, data: bytes, *, batch: int | str, canonical: bool = True) -> None:
    """Check a finished model against docs/contract.md.

    Args:
        model: the graph with its metadata.
        data: the same, serialised.
        batch: images per call, or the name of the dynamic dimension.
        canonical: whether the network is in the form of ``converters.graph``; a foreign translator's is not.

    Raises:
        ContractError: everything that does not hold, in one message.
    """
    try:
        document = ModelDocument.from_json(model.metadata_props.get(METADATA_KEY, ""))
    except ValueError as error:
        raise ContractError(_complaint([f"metadata: {error}"])) from error
    finished = Finished(model, data, document, batch)
    quantized = canonical and document.activations != "float32"
    promises = (*PROMISES, *QUANTIZED_PROMISES) if quantized else PROMISES
    problems = [problem for promise in promises for problem in promise(finished)]
    if problems:
        raise ContractError(_complaint(problems))


def _complaint(problems: Sequence[str]) -> str:
    listed = "; ".join(problems)
    return f"the finished graph breaks the model contract: {listed}; please report this with the source file"


def passes_the_checker(finished: Finished) -> Iterator[str]:
    """``onnx.checker`` accepts the file, and shape inference contradicts no shape that it states."""
    try:
        onnx.checker.check_model(finished.data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"onnx.checker: {error}"


def has_the_format(finished: Finished) -> Iterator[str]:
    """An opset that takes every node, its IR version, standard operators only, and the releases that load them."""
    model = finished.model
    opset = model.opset_imports.get("", 0)
    if set(model.opset_imports) != {""} or model.ir_version != IR_VERSIONS.get(opset):
        yield (
            f"opset {dict(model.opset_imports)} and IR {model.ir_version}, expected {OPSET_RANGE} and "
            f"{IR_VERSIONS.get(opset, 'its own')}"
        )
    elif finished.document.oldest_runtimes != (expected := oldest_runtimes(model, finished.document)):
        stated = dict(finished.document.oldest_runtimes)
        yield f"metadata: the oldest runtimes are said to be {stated}, expected {expected}"
    for node in refused_nodes(model.graph, opset) if opset in IR_VERSIONS else ():
        yield f"{node.op_type} {node.name!r} is not of opset {opset}"
    foreign = sorted({node.domain for node in model.graph if node.domain not in ("", "ai.onnx")})
    if foreign:
        yield f"operators of domains {foreign}"


def has_the_inputs_and_outputs(finished: Finished) -> Iterator[str]:
    """Names, dtypes, shapes and order of ``contract_io``; optional inputs have defaults."""
    document, graph = finished.document, finished.model.graph
    expected = contract_io(document.spec, finished.batch, freeze_thresholds=document.freeze_thresholds)
    for what, values, tensors in zip(("inputs", "outputs"), (graph.inputs, graph.outputs), expected, strict=True):
        stated = [_described(value) for value in values]
        promised = [_promised(tensor) for tensor in tensors]
        if stated != promised:
            yield f"{what} {', '.join(stated)}, expected {', '.join(promised)}"
    defaults = {name for name in graph.initializers if name in {v.name for v in graph.inputs}}
    optional = {tensor.name for tensor in expected[0] if tensor.optional}
    if defaults != optional:
        yield f"inputs with defaults {sorted(defaults)}, expected {sorted(optional)}"


def names_the_raw_outputs(finished: Finished) -> Iterator[str]:
    """The raw outputs exist under their names: float32, in the shapes that the document tells."""
    for tensor in raw_outputs(finished.document.spec, finished.batch):
        expected = _promised(tensor)
        stated = [_described(v) for node in finished.model.graph for v in node.outputs if v.name == tensor.name]
        if stated != [expected]:
            yield f"raw output {', '.join(stated) or 'missing'}, expected {expected}"


def has_static_shapes(finished: Finished) -> Iterator[str]:
    """Every value of the network states a fixed shape; with a dynamic batch some state none, but never a wrong name."""
    for node in network_nodes(finished.model.graph):
        for value in node.outputs:
            unknown = value.shape is None and isinstance(finished.batch, str)
            if not unknown and not is_static(value, finished.batch):
                yield f"{node.op_type} gives {_described(value)}, expected a fixed shape"


def follows_every_tensor(finished: Finished) -> Iterator[str]:
    """The metadata's name map points at values that exist."""
    graph = finished.model.graph
    alive = {value.name for value in graph.inputs} | set(graph.initializers)
    alive |= {value.name for node in graph for value in node.outputs}
    for name, twin in finished.document.tensors.items():
        if twin.onnx is not None and twin.onnx not in alive:
            yield f"metadata: source tensor {name!r} is said to be {twin.onnx!r}, which does not exist"


PROMISES: tuple[Promise, ...] = (
    passes_the_checker,
    has_the_format,
    has_the_inputs_and_outputs,
    names_the_raw_outputs,
    has_static_shapes,
    follows_every_tensor,
)


def _described(value: ir.Value) -> str:
    dtype = "unknown" if value.dtype is None else value.dtype.numpy().name
    shape = "[?]" if value.shape is None else f"[{', '.join(map(str, value.shape))}]"
    return f"{value.name} {dtype} {shape}"


def _promised(tensor: ContractTensor) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
