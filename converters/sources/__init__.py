"""The table of source formats, and the first steps that are the same for all: open a file, describe it.

Nothing is imported before it is needed: a TFLite conversion never loads TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.description.statements import SourceOptions, describe_source
from converters.errors import SourceFileError
from converters.files import read_source, sniff_format
from converters.sources.base import Importer, Later, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.description.statements import SourceDescription
    from converters.options import ImporterChoice
    from converters.spec import DetectorSpec, SourceFormat


_KERAS = Importer(
    read=Later("converters.sources.keras.loading", "open_keras"),
    facts=Later("converters.sources.keras.importer", "facts_from_keras"),
    build=Later("converters.sources.keras.importer", "import_keras"),
)
SOURCES: Mapping[SourceFormat, Source] = {
    "tflite": Source(
        "TFLite",
        {
            "native": Importer(
                read=Later("converters.sources.tflite.supported", "read_convertible"),
                facts=Later("converters.sources.tflite.facts", "facts_from_tflite"),
                build=Later("converters.sources.tflite.importer", "import_tflite"),
            ),
            "tf2onnx": Importer(
                read=Later("converters.sources.tf2onnx", "read_checked"),
                facts=Later("converters.sources.tf2onnx", "facts_from_checked"),
                build=Later("converters.sources.tf2onnx", "import_by_tf2onnx"),
            ),
        },
    ),
    "h5": Source("Keras H5", {"native": _KERAS, "tf2onnx": _KERAS}, extra="keras"),
    "keras": Source("Keras", {"native": _KERAS, "tf2onnx": _KERAS}, extra="keras"),
}
"""Whoever adds a format adds a row, its folder, and the bytes by which it is known to ``converters.files``."""


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
    importer: Importer


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
    known = next((name for name in SOURCES if name == found), None)
    if known is None:
        expected = " or ".join(f"a {row.title} file" for row in SOURCES.values())
        what = "none of the known formats" if found is None else "an ONNX file"
        msg = f"{path}: expected {expected}, found {what}; give the model as its training wrote it"
        raise SourceFileError(msg)
    chosen = SOURCES[known].importers[importer]
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
