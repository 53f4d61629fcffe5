"""The promises of docs/contract.md, for every finished model, and the collection of all that are broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from converters.errors import ContractError
from converters.opset import oldest_runtimes, refused_nodes
from converters.spec import HEAD, METADATA_KEY, ModelDocument, contract_io, raw_head
from converters.spec.releases import IR_VERSIONS, OPSET_RANGE
from converters.static_shapes import is_static, network_nodes
from converters.verify.finished import Finished, Promise
from converters.verify.quantized import QUANTIZED_PROMISES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from converters.spec import ContractTensor


def require_contract(
    model: ir.Model, proto: onnx.ModelProto, *, batch: int | str, canonical: bool = True
) -> None:
    """Check a finished model against docs/contract.md.

    Args:
        model: the graph with its metadata.
        proto: the same as it will be serialised.
        batch: images per call, or the name of the dynamic dimension.
        canonical: whether the network is in the form of ``converters.qdq``; a foreign translator's is not.

    Raises:
        ContractError: everything that does not hold, in one message.
    """
    try:
        document = ModelDocument.from_json(model.metadata_props.get(METADATA_KEY, ""))
    except ValueError as error:
        raise ContractError(_complaint([f"metadata: {error}"])) from error
    finished = Finished(model, proto, document, batch)
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
        onnx.checker.check_model(finished.proto, full_check=True)
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
    elif finished.document.oldest_runtimes != oldest_runtimes(model):
        found, wanted = dict(finished.document.oldest_runtimes), oldest_runtimes(model)
        yield f"metadata: the oldest runtimes are said to be {found}, expected {wanted}"
    for node in refused_nodes(model.graph, opset) if opset in IR_VERSIONS else ():
        yield f"{node.op_type} {node.name!r} is not of opset {opset}"
    foreign = sorted({node.domain for node in model.graph if node.domain not in ("", "ai.onnx")})
    if foreign:
        yield f"operators of domains {foreign}"


def has_the_inputs_and_outputs(finished: Finished) -> Iterator[str]:
    """Names, dtypes, shapes and order of ``contract_io``; optional inputs have defaults."""
    document, graph = finished.document, finished.model.graph
    expected = contract_io(document.spec, finished.batch, freeze_thresholds=document.freeze_thresholds)
    for what, values, tensors in zip(
        ("inputs", "outputs"), (graph.inputs, graph.outputs), expected, strict=True
    ):
        found = [_described(value) for value in values]
        wanted = [_promised(tensor) for tensor in tensors]
        if found != wanted:
            yield f"{what} {', '.join(found)}, expected {', '.join(wanted)}"
    defaults = {name for name in graph.initializers if name in {v.name for v in graph.inputs}}
    optional = {tensor.name for tensor in expected[0] if tensor.optional}
    if defaults != optional:
        yield f"inputs with defaults {sorted(defaults)}, expected {sorted(optional)}"


def names_the_raw_head(finished: Finished) -> Iterator[str]:
    """A value ``head`` exists: the raw head, float32 NHWC."""
    wanted = _promised(raw_head(finished.document.spec, finished.batch))
    found = [_described(v) for node in finished.model.graph for v in node.outputs if v.name == HEAD]
    if found != [wanted]:
        yield f"raw head {', '.join(found) or 'missing'}, expected {wanted}"


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
    names_the_raw_head,
    has_static_shapes,
    follows_every_tensor,
)


def _described(value: ir.Value) -> str:
    dtype = "unknown" if value.dtype is None else value.dtype.numpy().name
    shape = "[?]" if value.shape is None else f"[{', '.join(map(str, value.shape))}]"
    return f"{value.name} {dtype} {shape}"


def _promised(tensor: ContractTensor) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
