"""A model file in memory: read once, so that what is checked is what runs; and what it says before a runtime gets it.

A finished model's graph holds operators of the standard domain without graphs of their own, in one self-contained file.
Refused, because it can run for ever or reach beyond the file: Loop, If, Scan and whatever else holds a graph,
functions, other domains, external data. ``read_document`` looks, so whoever knows a file's document knows that its
graph may run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from converters.files import FINISHED, is_finished, read_model_bytes
from converters.spec import METADATA_KEY, ModelDocument
from xdet.errors import ModelError, UsageError
from xdet.model.wire import GRAPH, INITIALIZER, NODE, fields, messages, read_metadata, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TRAINING, FUNCTIONS = 20, 25  # of ModelProto
SPARSE_INITIALIZER = 15  # of GraphProto
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7  # of NodeProto
# Of AttributeProto: tensors, alone and listed; graphs; sparse tensors, each of two tensors.
TENSORS, GRAPHS, SPARSE_TENSORS = (5, 10), (6, 11), (22, 23)
SPARSE_PARTS = (1, 2)  # of SparseTensorProto
EXTERNAL_DATA = 13  # of TensorProto
STANDARD_DOMAINS = ("", "ai.onnx")
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MOST_NAMED = 10
LONGEST_NAME = 100  # bytes
RUNS_GRAPH = "which runs a graph of its own"


@dataclass(frozen=True, eq=False, slots=True)
class ModelFile:
    """A model's bytes and where they came from."""

    path: Path  # the file, as the caller named it; a source's sidecar lies beside it
    data: bytes  # its bytes; the beginning where no format is known
    format: str | None  # FINISHED or a row of converters.sources.SOURCES; None where no format is known

    @property
    def is_finished(self) -> bool:
        """Whether it is a finished model, and no source."""
        return self.format == FINISHED

    @property
    def file(self) -> str:
        """The path as messages give it."""
        return str(self.path)


def read_model_file(path: Path) -> ModelFile:
    """Read a model file and tell its format from its bytes.

    Raises:
        ModelError: as ``read_model``.
    """
    data = read_model(path)
    return ModelFile(path, data, _tell_format(data))


def _tell_format(data: bytes) -> str | None:
    """As ``sniff_format``, whose table is not loaded for a finished model."""
    if is_finished(data):
        return FINISHED
    from converters.sources import sniff_format

    return sniff_format(data)


def require_source(models: Sequence[Path], source_options: object) -> None:
    """Refuse a description where every model describes itself: it would be dropped without a word.

    Raises:
        UsageError: something is said, and none of the files is a source.
        ModelError: as ``read_model``.
    """
    if source_options is not None and all(is_finished(read_model(path)) for path in models):
        listed = ", ".join(f"'{path}'" for path in models)
        raise UsageError(
            f"{listed}: a finished model describes itself; `classes`, `resize` and the like are about sources: convert "
            f"the source again with them, or leave them out"
        )


def read_model(path: Path) -> bytes:
    """A model file's bytes; of a large file that is no model, its beginning.

    Raises:
        ModelError: missing, no regular file, unreadable, empty, or larger than any model can be.
    """
    try:
        data = read_model_bytes(path, _tell_format)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        advice = "" if ";" in str(reason) else "; check the path"
        raise ModelError(f"cannot read model '{path}': {reason}{advice}") from error
    if not data:
        raise ModelError(f"'{path}' is empty; give an ONNX file made by xdet convert, or a TFLite detector")
    return data


def hash_model(data: bytes) -> str:
    """SHA-256 of a model's bytes, as hex digits: how reports name a model."""
    import hashlib  # not for every start: it loads OpenSSL

    return hashlib.sha256(data).hexdigest()


def read_document(model: bytes, *, file: str) -> ModelDocument:
    """The metadata of a finished model, whose graph is looked through, too: whoever runs a file has read its document.

    Raises:
        ModelError: the file is damaged, not made by xdet, by another version of it, or holds more than the contract
            allows.
    """
    try:
        metadata = read_metadata(model).get(METADATA_KEY)
    except ValueError as error:
        raise _damaged(file, error) from error
    if metadata is None:
        raise ModelError(
            f"'{file}' is an ONNX model but not one that xdet made (metadata key {METADATA_KEY!r} is "
            f"missing); convert its TFLite or Keras source with xdet convert"
        )
    try:
        document = ModelDocument.from_json(metadata)
    except ValueError as error:
        raise ModelError(
            f"'{file}': metadata key {METADATA_KEY!r} cannot be read: {error}; "
            f"convert the source again with this version of xdet"
        ) from error
    require_contract_graph(model, file)
    return document


def require_contract_graph(model: bytes, file: str) -> None:
    """Refuse an ONNX file's graph with more than the contract allows, naming what it holds, ten faults at most.

    Raises:
        ModelError: it holds such a thing, or is no protobuf message.
    """
    try:
        faults = list(islice(dict.fromkeys(_faults(memoryview(model))), MOST_NAMED))
    except ValueError as error:
        raise _damaged(file, error) from error
    if faults:
        raise ModelError(
            f"'{file}' holds what no finished model may: {'; '.join(faults)}; expected standard operators without "
            f"graphs of their own and all data in the file; was it edited? Convert the source again with xdet convert"
        )


def holds_graphs(model: bytes) -> bool:
    """Whether operators run graphs of their own, or functions: whoever optimises such a file may run it, and for ever.

    Where an ONNX file's bytes are not understood, they may.
    """
    try:
        return any(fault == "functions" or fault.endswith(RUNS_GRAPH) for fault in _faults(memoryview(model)))
    except ValueError:
        return True


def _faults(model: memoryview) -> Iterator[str]:
    for number, content in fields(model):
        if number == FUNCTIONS:
            yield "functions"
        elif number == TRAINING:
            yield "a training graph"
        elif number == GRAPH:
            yield from _graph_faults(content)


def _graph_faults(graph: memoryview) -> Iterator[str]:
    for number, content in fields(graph):
        if number == NODE:
            yield from _node_faults(content)
        elif number == INITIALIZER and _is_external(content):
            yield "external data of an initialiser"
        elif number == SPARSE_INITIALIZER and _is_external_sparse(content):
            yield "external data of a sparse initialiser"


def _node_faults(node: memoryview) -> Iterator[str]:
    members = list(fields(node))
    names = [text(content[:LONGEST_NAME]) for number, content in members if number == OPERATOR] or [""]
    name = names[-1]
    for domain in (text(content[:LONGEST_NAME]) for number, content in members if number == DOMAIN):
        if domain not in STANDARD_DOMAINS:
            yield f"operator {name!r} of the domain {domain!r}"
    inner = False
    for attribute in (content for number, content in members if number == ATTRIBUTE):
        for number, content in fields(attribute):
            inner |= number in GRAPHS
            if (number in TENSORS and _is_external(content)) or (
                number in SPARSE_TENSORS and _is_external_sparse(content)
            ):
                yield f"external data of operator {name!r}"
    if inner or CONTROL_FLOW.intersection(names):
        yield f"operator {name!r}, {RUNS_GRAPH}"


def _is_external(tensor: memoryview) -> bool:
    return next(messages(tensor, EXTERNAL_DATA), None) is not None


def _is_external_sparse(tensor: memoryview) -> bool:
    return any(number in SPARSE_PARTS and _is_external(part) for number, part in fields(tensor))


def _damaged(file: str, error: ValueError) -> ModelError:
    return ModelError(f"'{file}' is no ONNX file or a damaged one: {error}; see that it is complete")
