"""ONNX bytes -> a model that was looked through: whole, valid, of standard operators that end, and one picture in.

Read is what stands in the file alone: numbers in other files are not opened. Refused, all obstacles at once, is what
can run for ever or means nothing here (If, Loop, Scan, functions, other domains), and a suppression, which the head
replaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from converters._ir import ir
from converters.errors import OptionError, SourceFileError, UnsupportedModelError, list_some
from converters.facts import read_metadata_props

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from converters.facts import FileMetadata

NOT_READ = (ValueError, TypeError, LookupError, OverflowError, AttributeError, ir.serde.SerdeError)
OLDEST_OPSET, NEWEST_OPSET = 7, 22
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
NUMBERS = frozenset({
    *(TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
})  # fmt: skip
CHANNELS = (3, 1)
LARGEST_SIDE = 8192
WITHOUT_END = (
    "export the network alone, with standard operators and all its numbers in the file, without its post-processing "
    "(Ultralytics: nms=False), as ONNX of opset 11 to 22"
)


@dataclass(frozen=True, eq=False)
class OnnxSource:
    """An ONNX file that was looked through."""

    file: str  # its name, for messages
    proto: onnx.ModelProto  # what it holds
    picture: str  # name of its input
    dtype: str  # of the input, ``"float32"`` or ``"uint8"``
    is_nchw: bool  # whether channels come before rows and columns
    channels: int  # of the picture
    size_hw: tuple[int, int]  # rows and columns of the picture
    any_batch: bool  # whether the batch is open; otherwise it is one image
    metadata: FileMetadata | None  # what the file says in words; None where it says nothing that is known

    def shape(self, batch: int | str) -> tuple[int | str, ...]:
        """The input's shape for a batch."""
        height, width = self.size_hw
        return (batch, self.channels, height, width) if self.is_nchw else (batch, height, width, self.channels)


def read_onnx(data: bytes, file: str, size_hw: tuple[int, int] | None = None) -> OnnxSource:
    """Read an ONNX file without a head.

    ``size_hw`` are rows and columns of the picture, for files that leave them open; None: what their metadata say.

    Raises:
        SourceFileError: it is damaged, or no valid ONNX model.
        UnsupportedModelError: it holds more than a network of standard operators that takes one picture.
        OptionError: its size is open and nobody states it, or it is another than the one stated.
    """
    proto = decode_onnx(data, file)
    obstacles = list(dict.fromkeys(_obstacles(proto)))
    if obstacles:
        raise UnsupportedModelError(f"{file}: holds {list_some(obstacles)}; {WITHOUT_END}")
    require_valid(proto, file)
    return _with_picture(proto, file, size_hw)


def decode_onnx(data: bytes, file: str) -> onnx.ModelProto:
    """Decode an ONNX file.

    Raises:
        SourceFileError: no message, a constant whose numbers are elsewhere or do not fill its shape, an operator
            without results, a name that is no text.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise _damaged(file, str(error)) from error
    _require_text((model.producer_name, model.producer_version, model.domain, model.doc_string), file)
    _require_text((text for entry in model.metadata_props for text in (entry.key, entry.value)), file)
    _require_whole(model.graph, file)
    return model


def require_valid(model: onnx.ModelProto, file: str) -> None:
    """Check a model against the standard: its operators have the inputs and attributes they need, in a possible order.

    Raises:
        SourceFileError: it breaks the standard, or is of a newer one than the installed onnx knows.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise invalid(file, error) from error


def invalid(file: str, reason: object) -> SourceFileError:
    """The error for a model that breaks the standard."""
    text = " ".join(str(reason).split())
    return SourceFileError(
        f"'{file}' is no valid ONNX model: {text:.500}; convert its source again, or export it again"
    )


def _damaged(file: str, what: str) -> SourceFileError:
    return SourceFileError(f"'{file}' is a damaged ONNX file: {what}")


def _require_text(texts: Iterable[str | bytes], file: str) -> None:
    """Refuse names that are no UTF-8: protobuf hands them out as bytes."""
    for text in texts:
        if isinstance(text, bytes):
            raise _damaged(file, f"the text {text!r:.60} is not UTF-8")


def _require_whole(graph: onnx.GraphProto, file: str) -> None:
    """Look at every constant and operator, those of graphs inside the graph included."""
    values = (*graph.input, *graph.output, *graph.value_info)
    _require_text((value.name for value in values), file)
    for value in values:
        # onnx's shape inference aborts on such
        if any(size.dim_value < 0 for size in value.type.tensor_type.shape.dim):
            raise _damaged(file, f"value {value.name!r:.60} has a negative size")
    for tensor in graph.initializer:
        _require_numbers(tensor, file)
    for node in graph.node:
        _require_text((node.op_type, node.name, node.domain, *node.input, *node.output), file)
        if not node.output:
            raise _damaged(file, f"operator {node.op_type!r:.60} has no results")
        for entry in node.attribute:
            for tensor in (*([entry.t] if entry.HasField("t") else ()), *entry.tensors):
                _require_numbers(tensor, file)
            for inner in (*([entry.g] if entry.HasField("g") else ()), *entry.graphs):
                _require_whole(inner, file)


def _require_numbers(tensor: onnx.TensorProto, file: str) -> None:
    _require_text((tensor.name,), file)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        what = "keeps its numbers in another file, which is not opened; save the model as one file"
        raise _damaged(file, f"constant {tensor.name!r:.60} {what}")
    try:
        numpy_helper.to_array(tensor)
        ir.serde.deserialize_tensor(tensor).numpy()  # wants numbers of less than a byte to fill the shape exactly
    except NOT_READ as error:
        raise _damaged(file, f"constant {tensor.name!r:.60} cannot be read: {error}") from error


def _obstacles(proto: onnx.ModelProto) -> Iterator[str]:
    """What a source may not hold, a few words each."""
    if proto.functions:
        yield "functions"
    if proto.training_info:
        yield "a training graph"
    if proto.graph.sparse_initializer:
        yield "sparse constants"
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        yield f"operators of opset {opset}"
    tensors = [*proto.graph.initializer, *(e.t for node in proto.graph.node for e in node.attribute if e.HasField("t"))]
    for element in dict.fromkeys(tensor.data_type for tensor in tensors):
        if element not in NUMBERS:
            yield f"constants of {_type_name(element) or f'type {element}'}"
    for node in proto.graph.node:
        inner = any(entry.HasField("g") or entry.graphs for entry in node.attribute)
        if node.domain not in ("", "ai.onnx"):
            yield f"operator {node.op_type!r} of the domain {node.domain!r}"
        elif inner or node.op_type in CONTROL_FLOW:
            yield f"operator {node.op_type!r}, which runs a graph of its own"
        elif node.op_type == "NonMaxSuppression":
            yield "a suppression of its own (operator 'NonMaxSuppression')"


def _with_picture(proto: onnx.ModelProto, file: str, stated: tuple[int, int] | None) -> OnnxSource:
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    sizes = _sizes(inputs[0]) if len(inputs) == 1 else []
    is_one = len(sizes) == 4 and (sizes[0] == 1 or not isinstance(sizes[0], int))
    is_nchw = is_one and sizes[1] in CHANNELS
    if not is_one or not (is_nchw or sizes[3] in CHANNELS):
        found = list_some([f"'{value.name}' {_sizes(value)}" for value in inputs]) or "none"
        raise UnsupportedModelError(
            f"{file}: is not a detector: input expected one picture, [1, 3, height, width] or [1, height, width, 3] "
            f"(grey: 1), found {found}"
        )
    channels, *open_hw = sizes[1:] if is_nchw else (sizes[3], *sizes[1:3])
    element = inputs[0].type.tensor_type.elem_type
    dtype = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}.get(element)
    if dtype is None:
        raise UnsupportedModelError(
            f"{file}: takes a picture of {_type_name(element) or element}, expected float32 or uint8; export it in "
            "float32 (half=False)"
        )
    metadata = read_metadata_props({entry.key: entry.value for entry in proto.metadata_props}, f"metadata of '{file}'")
    fixed = all(isinstance(size, int) for size in open_hw)
    size_hw = _settled(file, open_hw, stated or (None if fixed or metadata is None else metadata.size_hw))
    return OnnxSource(file, proto, inputs[0].name, dtype, is_nchw, int(str(channels)), size_hw, sizes[0] != 1, metadata)


def _type_name(element: int) -> str | None:
    return TensorProto.DataType.Name(element).lower() if element in TensorProto.DataType.values() else None


def _sizes(value: onnx.ValueInfoProto) -> list[int | str | None]:
    return [
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in value.type.tensor_type.shape.dim
    ]


def _settled(file: str, sizes: list[int | str | None], stated: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns: those of the file, or where they are open those that are stated."""
    fixed = [size if isinstance(size, int) else None for size in sizes]
    shown = " x ".join(str(size or "?") for size in sizes)
    if stated is not None and any(own not in (None, other) for own, other in zip(fixed, stated, strict=True)):
        raise OptionError(
            f"{file}: takes pictures of {shown} (rows x columns), --input-size says {stated[0]} x {stated[1]}; leave "
            "it out, or export the model at that size"
        )
    height, width = stated or fixed
    if height is None or width is None:
        raise OptionError(
            f"{file}: leaves the size of its picture open ({shown}); say it with --input-size HEIGHTxWIDTH, such as "
            "--input-size 640x640"
        )
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise UnsupportedModelError(
            f"{file}: takes pictures of {height} x {width}, expected at most {LARGEST_SIDE} pixels a side"
        )
    return height, width
