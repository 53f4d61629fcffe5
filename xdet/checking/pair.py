"""The two files of a check, read once: the finished model, its graph and document; the source and its description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from converters.sources import SOURCES
from converters.spec import THRESHOLD_INPUTS
from xdet.errors import UsageError, converter_errors
from xdet.model.file import ModelFile, hash_model, read_document, read_model_file
from xdet.model.graph import FinishedGraph, inferred_model, load_onnx
from xdet.model.surgery import at_network_size

if TYPE_CHECKING:
    from pathlib import Path

    from converters.description.statements import SourceOptions, Statements
    from converters.spec import ModelDocument
    from xdet.checking.numbers.comparison import CheckedSource


@dataclass(frozen=True, eq=False)
class OpenedPair:
    """A finished model and its source."""

    model: ModelFile  # the ONNX file; of one that takes photographs of any size the fixed file inside it
    document: ModelDocument  # what its metadata says
    graph: FinishedGraph  # its operators and constants
    source: ModelFile  # the source file, with its SHA-256
    source_sha256: str
    origin: CheckedSource  # what the source holds
    stated: Statements  # what options, sidecar and the source itself state of the detector
    any_size: ModelFile | None = None  # the ONNX file as it is where it takes photographs of any size

    @property
    def file(self) -> ModelFile:
        """The finished model as it was given."""
        return self.any_size or self.model

    @cached_property
    def half_values(self) -> frozenset[str]:
        """The values of a float16 model that are float16; they are inferred, since an open batch leaves dtypes out."""
        if not self.document.float16:
            return frozenset()
        graph = inferred_model(self.graph.proto, self.graph.file).graph
        values = (value for node in graph for value in node.outputs if value.dtype is not None)
        return frozenset(str(value.name) for value in values if value.dtype.name == "FLOAT16")  # type: ignore[union-attr]

    @property
    def no_yardstick(self) -> str | None:
        """Why other runtimes have no limit: one runtime alone computes the codes of an ONNX source."""
        if self.origin.nodes is None or self.document.activations == "float32":
            return None
        return "runtimes round a quantised ONNX source's integers in ways of their own: compare accuracy with xdet eval"

    @property
    def has_thresholds(self) -> bool:
        """Whether both thresholds stand in the graph by their names: a simplifier may merge or rename frozen ones."""
        return all(self.graph.constant(name) is not None and self.graph.readers(name) for name in THRESHOLD_INPUTS)


def open_pair(model: Path | ModelFile, source: Path, source_options: SourceOptions | None = None) -> OpenedPair:
    """Read both files.

    Raises:
        ModelError: one of them is missing, damaged, or no such model.
        UsageError: they are not an ONNX file and a source, in this order.
    """
    from converters.description.statements import SourceOptions, find_statements

    finished = model if isinstance(model, ModelFile) else read_model_file(model)
    source_file = read_model_file(source)
    if not finished.is_finished:
        raise UsageError(
            f"'{finished.file}' is {finished.format or 'no model'}, expected an ONNX file made by xdet convert; "
            f"the source goes behind `source`"
        )
    if source_file.format is None or source_file.format not in SOURCES:
        formats = ", ".join(row.title for row in SOURCES.values())
        raise UsageError(
            f"'{source}' is {source_file.format or 'no model'}, "
            f"expected the source that '{finished.file}' was made of ({formats})"
        )
    document, any_size = read_document(finished.data, file=finished.file), None
    if document.spec.image.any_size:
        any_size = finished
        finished = replace(finished, data=at_network_size(finished.data, finished.file))
        document = read_document(finished.data, file=finished.file)
    origin = SOURCES[source_file.format].compare(source_file, document)
    graph = FinishedGraph(load_onnx(finished.data, finished.file), file=finished.file)
    with converter_errors():
        stated = find_statements(source_file.path, origin.facts, source_options or SourceOptions(), document.spec.head)
    return OpenedPair(
        model=finished,
        document=document,
        graph=graph,
        source=source_file,
        source_sha256=hash_model(source_file.data),
        origin=origin,
        stated=stated,
        any_size=any_size,
    )
