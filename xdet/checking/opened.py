"""The two files of a check, read once: the finished model, its graph and document; the source and its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.checking.finished_graph import FinishedGraph
from xdet.checking.source_graph import SourceGraph
from xdet.errors import ModelError, UsageError
from xdet.runtimes.model_file import hash_model, read_model_file

if TYPE_CHECKING:
    from pathlib import Path

    from converters.spec import DetectorSpec, ModelDocument
    from xdet.runtimes.model_file import ModelFile


@dataclass(frozen=True, eq=False)
class OpenedPair:
    """A finished model and its source.

    Attributes:
        model: the ONNX file.
        document: what its metadata says.
        graph: its operators and constants.
        source: the source file.
        source_sha256: hex digest of its bytes.
        source_graph: its tensors and operators; None for formats whose numbers are not compared.
        described: the detector as the source's sidecar describes it; None where it has no (complete) sidecar.
    """

    model: ModelFile
    document: ModelDocument
    graph: FinishedGraph
    source: ModelFile
    source_sha256: str
    source_graph: SourceGraph | None
    described: DetectorSpec | None


def open_pair(model: Path, source: Path) -> OpenedPair:
    """Read both files.

    Raises:
        ModelError: one of them is missing, damaged, or no such model.
        UsageError: they are not an ONNX file and a source, in this order.
    """
    from xdet.runtimes.onnxruntime import read_document

    finished, origin = read_model_file(model), read_model_file(source)
    if finished.format != "onnx":
        raise UsageError(
            f"'{model}' is {finished.format or 'no model'}, expected an ONNX file made by xdet convert; "
            f"the source goes behind --source"
        )
    if origin.format in (None, "onnx"):
        raise UsageError(
            f"'{source}' is {origin.format or 'no model'}, expected the TFLite or Keras file that '{model}' was made of"
        )
    document = read_document(finished.data, file=finished.file)
    graph, described = _read_source(origin)
    return OpenedPair(
        model=finished,
        document=document,
        graph=FinishedGraph(finished.data, file=finished.file),
        source=origin,
        source_sha256=hash_model(origin.data),
        source_graph=graph,
        described=described,
    )


def _read_source(origin: ModelFile) -> tuple[SourceGraph | None, DetectorSpec | None]:
    """The source's operators and description, as far as its format tells them."""
    if origin.format != "tflite":
        return None, None
    from converters.description.settings import SourceOptions, describe_source
    from converters.errors import ConversionError, OptionError
    from converters.tflite.facts import facts_from_tflite
    from converters.tflite.reader import read_tflite
    from converters.tflite.signatures import require_sound

    try:
        records = read_tflite(origin.data, origin.file)
        require_sound(records)
    except ConversionError as error:
        raise ModelError(str(error)) from error
    try:
        described = describe_source(origin.path, facts_from_tflite(records), SourceOptions()).spec
    except OptionError:  # no sidecar: anchors and classes came as options, and the document holds them
        return SourceGraph(records), None
    except ConversionError as error:
        raise ModelError(str(error)) from error
    return SourceGraph(records), described
