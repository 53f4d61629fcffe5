"""The table of source formats, and the first steps that are the same for all: open a file, describe it.

Nothing is imported before it is needed: a TFLite conversion never loads TensorFlow, and telling formats apart loads
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from converters.errors import OptionError, SourceFileError
from converters.files import is_finished, is_h5, is_keras, is_onnx, is_tflite, read_model_bytes
from converters.sources.base import Importer, Later, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.description.statements import SourceDescription, SourceOptions
    from converters.options import ImporterChoice

_TFLITE = Importer(
    read=Later("converters.sources.tflite.supported", "read_convertible"),
    facts=Later("converters.sources.tflite.facts", "facts_from_tflite"),
    build=Later("converters.sources.tflite.importer", "import_tflite"),
    require=Later("converters.sources.tflite.supported", "require_supported"),
    dequantizes=True,
)
_TF2ONNX = Importer(_TFLITE.read, _TFLITE.facts, build=Later("converters.sources.tf2onnx", "import_by_tf2onnx"))
_KERAS = Importer(
    read=Later("converters.sources.keras.loading", "open_keras"),
    facts=Later("converters.sources.keras.importer", "facts_from_keras"),
    build=Later("converters.sources.keras.importer", "import_keras"),
)
_H5 = Source(
    "Keras H5",
    sniff=is_h5,
    importers={"native": _KERAS},
    inspect=Later("xdet.inspection.inspect", "inspect_keras"),
    compare=Later("xdet.checking.numbers.keras", "read_keras_source"),
    extra="keras",
    loads=True,
)
SOURCES: Mapping[str, Source] = {
    "tflite": Source(
        "TFLite",
        sniff=is_tflite,
        importers={"native": _TFLITE, "tf2onnx": _TF2ONNX},
        inspect=Later("xdet.inspection.inspect", "inspect_tflite"),
        compare=Later("xdet.checking.numbers.tflite", "read_tflite_source"),
    ),
    "h5": _H5,
    "keras": replace(_H5, title="Keras", sniff=is_keras),
    "onnx-source": Source(
        "ONNX",
        sniff=is_onnx,
        importers={
            "native": Importer(
                read=Later("converters.sources.onnx.reader", "read_onnx"),
                facts=Later("converters.sources.onnx.network", "facts_from_onnx"),
                build=Later("converters.sources.onnx.importer", "import_onnx"),
                takes_size=True,
                dequantizes=True,
            )
        },
        inspect=Later("xdet.inspection.inspect", "inspect_onnx_source"),
        compare=Later("xdet.checking.numbers.onnx", "read_onnx_source"),
    ),
}
"""A new format is a row here, the files behind it, and its name in a row of ``xdet.runtimes.table`` that runs it."""
FINISHED = "onnx"
"""The format of finished models, which are no sources."""


def sniff_format(data: bytes) -> str | None:
    r"""Tell the format of a model file.

    Args:
        data: the file's bytes; the first few thousand suffice for usual files.

    Returns:
        ``FINISHED``, a row of ``SOURCES``, or None when the bytes are no model that is known here.

    Example:
        >>> sniff_format(b"\x18\x00\x00\x00TFL3")
        'tflite'
        >>> sniff_format(b"\xff\xd8\xff\xe0 a photograph") is None
        True
    """
    if is_finished(data):
        return FINISHED
    return next((name for name, row in SOURCES.items() if row.sniff(data)), None)


def read_source(path: Path) -> bytes:
    """All bytes of a source model; of a file that is no model by its beginning, the beginning.

    Raises:
        SourceFileError: no such file, not a regular file, unreadable, or larger than any model can be.
    """
    try:
        return read_model_bytes(path, sniff_format)
    except (OSError, ValueError) as error:
        raise SourceFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True, eq=False)
class OpenSource:
    """A source model that was read: the bytes of its file, and what its format's importer made of them."""

    path: Path
    data: bytes
    format: str
    model: Any
    importer: Importer


def open_source(path: Path, importer: ImporterChoice = "native", size_hw: tuple[int, int] | None = None) -> OpenSource:
    """Read a source model of any format that has an importer.

    Args:
        path: the model's file.
        importer: who translates it; where a format has only its own, that one.
        size_hw: rows and columns of the picture, for files that leave them open.

    Raises:
        OptionError: a size is given and the file has one, or none is given and the file has none.
        SourceFileError: the file cannot be read, is damaged, or of another format.
        UnsupportedModelError: a sound file that holds what no importer represents.
    """
    data = read_source(path)
    name = sniff_format(data)
    if name is None or name not in SOURCES:
        *titles, last = (row.title for row in SOURCES.values())
        found = "none of the known formats" if name is None else "an ONNX file that xdet made"
        raise SourceFileError(
            f"{path}: expected a {', '.join(titles)} or {last} file, found {found}; give the model as its training "
            "wrote it"
        )
    source = SOURCES[name]
    reader = source.importers.get(importer, source.importers["native"])
    if size_hw is not None and not reader.takes_size:
        raise OptionError(f"{path}: a {source.title} file has a size of its own; leave --input-size out")
    sizes = (size_hw,) if reader.takes_size else ()
    return OpenSource(path, data, name, reader.read(data, path.name, *sizes), reader)


def describe(source: OpenSource, options: SourceOptions) -> SourceDescription:
    """Describe the detector in a source model: from the file, the sidecar beside it, and the options.

    Raises:
        OptionError: the options are incomplete or contradict the model.
        SourceFileError: the sidecar or yaml is missing, damaged or contradicts the model.
        UnsupportedModelError: the model's input cannot take pixels.
    """
    from converters.description.statements import describe_source

    return describe_source(source.path, source.importer.facts(source.model), options)
