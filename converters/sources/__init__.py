"""Which importer reads which source format, and the first steps that are the same for all: open a file, describe it.

Nothing is imported before it is needed: a TFLite conversion never loads TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.description.statements import SourceOptions, describe_source
from converters.errors import SourceFileError
from converters.files import ModelFormat, read_source, sniff_format
from converters.sources.base import ImportedNetwork, Importer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.description.statements import SourceDescription
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.options import ConvertOptions, ImporterChoice
    from converters.sources.keras.loading import LoadedKeras
    from converters.sources.tf2onnx import CheckedTflite
    from converters.sources.tflite.reader import TfliteModel
    from converters.spec import DetectorSpec, SourceFormat


def _read_tflite(data: bytes, file: str) -> TfliteModel:
    from converters.sources.tflite.reader import read_tflite

    return read_tflite(data, file)


def _tflite_facts(model: TfliteModel) -> SourceFacts:
    from converters.sources.tflite.facts import facts_from_tflite

    return facts_from_tflite(model)


def _build_tflite(
    model: TfliteModel, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    from converters.sources.tflite.importer import import_tflite

    return import_tflite(model, writer, spec, options)


def _read_for_tf2onnx(data: bytes, file: str) -> CheckedTflite:
    from converters.sources.tf2onnx import CheckedTflite

    return CheckedTflite(_read_tflite(data, file), data)


def _build_by_tf2onnx(
    model: CheckedTflite, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    from converters.sources.tf2onnx import import_by_tf2onnx

    return import_by_tf2onnx(model, writer, spec, options)


def _read_h5(data: bytes, file: str) -> LoadedKeras:
    from converters.sources.keras.loading import load_keras
    from converters.sources.keras.stored import read_keras

    return load_keras(read_keras(data, file, "h5"))


def _read_keras_zip(data: bytes, file: str) -> LoadedKeras:
    from converters.sources.keras.loading import load_keras
    from converters.sources.keras.stored import read_keras

    return load_keras(read_keras(data, file, "keras"))


def _keras_facts(model: LoadedKeras) -> SourceFacts:
    from converters.sources.keras.importer import facts_from_keras

    return facts_from_keras(model)


def _build_keras(
    model: LoadedKeras, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    from converters.sources.keras.importer import import_keras

    return import_keras(model, writer, spec, options)


IMPORTERS: Mapping[SourceFormat, Importer[Any]] = {
    "tflite": Importer(_read_tflite, _tflite_facts, _build_tflite),
    "h5": Importer(_read_h5, _keras_facts, _build_keras),
    "keras": Importer(_read_keras_zip, _keras_facts, _build_keras),
}
BY_TF2ONNX: Mapping[SourceFormat, Importer[Any]] = {
    **IMPORTERS,
    "tflite": Importer(_read_for_tf2onnx, lambda checked: _tflite_facts(checked.records), _build_by_tf2onnx),
}
CHOICES: Mapping[ImporterChoice, Mapping[SourceFormat, Importer[Any]]] = {
    "native": IMPORTERS,
    "tf2onnx": BY_TF2ONNX,
}
TITLES: Mapping[ModelFormat, str] = {
    "tflite": "TFLite",
    "h5": "Keras H5",
    "keras": "Keras",
    "onnx": "ONNX",
}


@dataclass(frozen=True, eq=False)
class OpenSource:
    """A source model that was read.

    Attributes:
        path: its file.
        data: the file's bytes.
        format: the format they are in.
        model: what the format's importer made of them.
        importer: that importer.
    """

    path: Path
    data: bytes
    format: SourceFormat
    model: Any
    importer: Importer[Any]


def open_source(path: Path, importer: ImporterChoice = "native") -> OpenSource:
    """Read a source model of any format that has an importer.

    Args:
        path: the model's file.
        importer: who translates TFLite files; for other formats both are the same.

    Raises:
        SourceFileError: the file cannot be read, is damaged, or of another format.
        UnsupportedModelError: a sound file that holds what no importer represents.
    """
    data = read_source(path)
    found = sniff_format(data)
    known = next((name for name in IMPORTERS if name == found), None)
    if known is None:
        expected = " or ".join(f"a {TITLES[name]} file" for name in IMPORTERS)
        what = "none of the known formats" if found is None else f"an {TITLES[found]} file"
        msg = f"{path}: expected {expected}, found {what}; give the model as its training wrote it"
        raise SourceFileError(msg)
    chosen = CHOICES[importer][known]
    return OpenSource(path, data, known, chosen.read(data, path.name), chosen)


def describe(source: OpenSource, options: SourceOptions) -> SourceDescription:
    """Describe the detector in a source model: from the file, the sidecar beside it, and the options.

    Raises:
        OptionError: the options are incomplete or contradict the model.
        SourceFileError: the sidecar or yaml is missing, damaged or contradicts the model.
        UnsupportedModelError: the model's input cannot take pixels.
    """
    return describe_source(source.path, source.importer.facts(source.model), options)


def resolve_source_spec(path: Path, *, options: SourceOptions | None = None) -> DetectorSpec:
    """Open and describe the source model in a file.

    Raises:
        ConversionError: as ``open_source`` and ``describe``.
    """
    return describe(open_source(path), options or SourceOptions()).spec
