"""The table of source formats: what a format is, what its importer hands over, and the steps that are the same for all.

This is the border between formats and everything behind them. Nothing is imported before it is needed: a TFLite
conversion never loads TensorFlow, and telling formats apart loads nothing. Functions of ``xdet`` stand in the table by
name alone: ``xdet`` calls them, and nothing here imports it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import ContractError, OptionError, SourceFileError
from converters.files import FINISHED, is_finished, is_h5, is_keras, is_onnx, is_tflite, read_model_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir

    from converters.description.statements import SourceDescription, SourceOptions
    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.base import RawOutput
    from converters.options import ConvertOptions, ImporterChoice
    from converters.spec import ActivationCodes, DetectorSpec, Deviation, LeakyRelu, TensorTwin


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network in the writer's graph, from ``image`` to the raw outputs, in canonical form (``converters.graph``)."""

    outputs: tuple[ir.Value, ...]  # the values of ``DetectorSpec.network_outputs``, float32, under their names
    twins: Mapping[str, TensorTwin]  # source tensor name -> its ONNX twin, as the importer wrote it
    quantization: str  # summary for people, such as ``"int8 per-channel"``
    activations: ActivationCodes  # dtype of the activation codes; ``"float32"`` for a network that is not quantised
    notes: tuple[str, ...] = ()  # what people should know, one sentence each
    deviations: tuple[Deviation, ...] = ()  # every number that is not the source's
    canonical: bool = True  # whether it is in that form; a foreign translator's graph is taken as it is
    # which LeakyReLU was written where the caller's choice does not apply; None: as the options say
    leaky_relu: LeakyRelu | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """A function of a module that is imported when it is called: a table of these loads nothing."""

    module: str
    function: str

    def __call__(self, *arguments: Any) -> Any:
        """Import the function and call it."""
        return self.resolve()(*arguments)

    def resolve(self) -> Callable[..., Any]:
        """The function itself."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.function)
        return function


@dataclass(frozen=True, slots=True)
class Importer:
    """The three steps of reading one source format."""

    # bytes, file name (for messages) and, where ``takes_size``, what is stated of the picture's size -> the source
    # model, every part of it checked
    read: Callable[..., Any]
    facts: Callable[[Any], SourceFacts]  # what the source model itself tells about its detector
    # writes the network into the writer's graph
    build: Callable[[Any, GraphWriter, DetectorSpec, ConvertOptions], ImportedNetwork]
    # raises what ``build`` would of operators and types, so that it is told beside what the description lacks
    require: Callable[[Any], None] | None = None
    takes_size: bool = False  # files may leave the picture's size open
    dequantizes: bool = False  # it can write the float network of a quantised file


@dataclass(frozen=True, slots=True)
class Source:
    """A source format: a row of ``converters.sources.SOURCES``."""

    title: str  # what messages call it
    sniff: Callable[[bytes], bool]  # whether a file's first bytes are of it
    importers: Mapping[ImporterChoice, Importer]  # who can translate it, by the name of the choice; ``"native"`` always
    inspect: Later  # what ``xdet inspect`` shows of a file; a function of ``xdet.inspection``
    compare: Later  # what ``xdet check`` compares beside the outputs; a function of ``xdet.checking``
    extra: str | None = None  # the extra without which a file cannot be read; None for none
    loads: bool = False  # its layers are known only when that extra has loaded it, which takes time


_TFLITE = Importer(
    read=Later("converters.sources.tflite.supported", "read_convertible"),
    facts=Later("converters.sources.tflite.facts", "facts_from_tflite"),
    build=Later("converters.sources.tflite.importer", "import_tflite"),
    require=Later("converters.sources.tflite.supported", "require_supported"),
    dequantizes=True,
)
_TF2ONNX = Importer(_TFLITE.read, _TFLITE.facts, build=Later("converters.sources.tf2onnx", "import_by_tf2onnx"))
_KERAS = Importer(
    read=Later("converters.sources.keras.importer", "open_keras"),
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


def as_raw_output(writer: GraphWriter, value: ir.Value, shape: tuple[int, ...] | None, output: RawOutput) -> ir.Value:
    """A network's output under its contract name, and in the shape in which the head reads it.

    Args:
        writer: the graph to append to.
        value: the output; it may have that name already.
        shape: its shape in the source, without the batch; a reshape to the head's moves no number. None: the value
            keeps its own name, and a reshape gets that of the output.
        output: the name and shape that it gets.

    Raises:
        ContractError: a tensor of the network has that name.
    """
    name = output.value_name
    if shape != output.shape or value.producer() is None:
        if value.name == name:
            value.name = writer.unique(f"{name}/as the source lays it out")
        sizes = writer.constant(np.array([-1, *output.shape], np.int64), f"{name}/shape")
        value = writer.op("Reshape", [value, sizes], f"{name}/reshaped")
    if value.name != name:
        if any(other.name == name for node in writer.graph for other in node.outputs):
            raise ContractError(
                f"a tensor of the network is named {name!r}, which the contract needs: rename it in the source"
            )
        value.name = name
    return value
