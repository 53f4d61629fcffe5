"""The two files of a check, read once: the finished model, its graph and document; the source and its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.checking.finished_graph import FinishedGraph
from xdet.checking.keras_steps import network_steps
from xdet.checking.source_graph import SourceGraph
from xdet.errors import ModelError, UsageError
from xdet.runtimes.model_file import hash_model, read_model_file

if TYPE_CHECKING:
    from pathlib import Path

    from converters.description.facts import SourceFacts
    from converters.spec import DetectorSpec, ModelDocument
    from xdet.checking.keras_steps import KerasSteps
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
        source_graph: its tensors and operators; None for formats other than TFLite.
        source_steps: what its layers compute; None for formats other than Keras, and where ``source_problem`` says why.
        source_problem: why the numbers of a Keras source cannot be compared; else None.
        described: the detector as the source's sidecar describes it; None where it has no (complete) sidecar.
    """

    model: ModelFile
    document: ModelDocument
    graph: FinishedGraph
    source: ModelFile
    source_sha256: str
    source_graph: SourceGraph | None
    described: DetectorSpec | None
    source_steps: KerasSteps | None = None
    source_problem: str | None = None


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
    read = _read_tflite(origin) if origin.format == "tflite" else _read_keras(origin, document)
    return OpenedPair(
        model=finished,
        document=document,
        graph=FinishedGraph(finished.data, file=finished.file),
        source=origin,
        source_sha256=hash_model(origin.data),
        source_graph=read.graph,
        described=read.described,
        source_steps=read.steps,
        source_problem=read.problem,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Source:
    """A source's operators and description, as far as its format and its sidecar tell them."""

    graph: SourceGraph | None = None
    steps: KerasSteps | None = None
    described: DetectorSpec | None = None
    problem: str | None = None


def _read_tflite(origin: ModelFile) -> _Source:
    from converters.errors import ConversionError
    from converters.tflite.facts import facts_from_tflite
    from converters.tflite.reader import read_tflite
    from converters.tflite.signatures import require_sound

    try:
        records = read_tflite(origin.data, origin.file)
        require_sound(records)
    except ConversionError as error:
        raise ModelError(str(error)) from error
    return _Source(SourceGraph(records), described=_described(origin, facts_from_tflite(records)))


def _read_keras(origin: ModelFile, document: ModelDocument) -> _Source:
    """Layers and weights, read as data: neither Keras nor TensorFlow is loaded."""
    from converters.description.facts import SourceFacts
    from converters.errors import ConversionError, MissingExtraError, UnsupportedModelError
    from converters.keras.network import read_network
    from converters.keras.reader import read_keras

    spec = document.spec
    try:
        checked = read_keras(origin.data, origin.file, "h5" if origin.format == "h5" else "keras")
    except MissingExtraError as error:
        return _Source(problem=str(error))
    except ConversionError as error:
        raise ModelError(str(error)) from error
    sizes = (spec.image.height, spec.image.width, spec.grid_h, spec.grid_w, spec.head_channels)
    described = _described(origin, SourceFacts(origin.file, *sizes, "float32", None))
    try:
        steps = network_steps(read_network(checked))
    except (UnsupportedModelError, MissingExtraError) as error:  # an archive's layers are read without h5py
        return _Source(described=described, problem=str(error))
    except ConversionError as error:
        raise ModelError(str(error)) from error
    return _Source(steps=steps, described=described)


def _described(origin: ModelFile, facts: SourceFacts) -> DetectorSpec | None:
    from converters.description.settings import SourceOptions, describe_source
    from converters.errors import ConversionError, OptionError

    try:
        return describe_source(origin.path, facts, SourceOptions()).spec
    except OptionError:  # no sidecar: anchors and classes came as options, and the document holds them
        return None
    except ConversionError as error:
        raise ModelError(str(error)) from error
