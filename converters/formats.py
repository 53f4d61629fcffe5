"""Tells what kind of model file some bytes are, from the bytes alone: names and suffixes lie.

Only the standard library is imported, so whoever runs a finished model can ask, too. Every check looks at a
few bytes near the start; a file that was cut off later keeps its format: its own reader says what is missing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

ModelFormat = Literal["tflite", "h5", "keras", "onnx"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KERAS_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5")

# ModelProto's fields by number (onnx.proto): those with wire type 0, a varint, and 2, length-delimited.
ONNX_VARINTS = frozenset((1, 5))
ONNX_MESSAGES = frozenset((2, 3, 4, 6, 7, 8, 14, 20, 25, 26))
ONNX_GRAPH = 7
ONNX_MAX_IR_VERSION = 127
ONNX_MAX_FIELDS = 4096  # that many may stand before the graph; exporters write fewer than ten


def sniff_format(data: bytes) -> ModelFormat | None:
    r"""Tell the format of a model file.

    Args:
        data: the file's bytes; the first few thousand suffice for usual files.

    Returns:
        The format, or None when the bytes are no model that is known here.

    Example:
        >>> sniff_format(b"\x18\x00\x00\x00TFL3")
        'tflite'
        >>> sniff_format(b"\xff\xd8\xff\xe0 a photograph") is None
        True
    """
    return next((name for name, matches in SIGNATURES.items() if matches(data)), None)


def _is_tflite(data: bytes) -> bool:
    """A FlatBuffer's file identifier follows the offset of its root table."""
    return data[4:8] == b"TFL3"


def _is_h5(data: bytes) -> bool:
    """An HDF5 superblock starts at byte 0, or behind a user block of 512, 1024, 2048, ... bytes."""
    starts = [0]
    while (behind := max(512, 2 * starts[-1])) < len(data):
        starts.append(behind)
    return any(data.startswith(HDF5_SIGNATURE, start) for start in starts)


def _is_keras(data: bytes) -> bool:
    """A zip archive whose first member is one that Keras writes."""
    if not data.startswith(b"PK\x03\x04") or len(data) < 30:
        return False
    (length,) = struct.unpack_from("<H", data, 26)
    return data[30 : 30 + length] in KERAS_MEMBERS


def _is_onnx(data: bytes) -> bool:
    """A protobuf message that starts with ModelProto's ir_version and has only its fields up to the graph."""
    if not (data.startswith(b"\x08") and 0 < _read_varint(data, 1)[0] <= ONNX_MAX_IR_VERSION):
        return False
    position = 0
    for _ in range(ONNX_MAX_FIELDS):
        key, position = _read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == ONNX_GRAPH and wire_type == 2:
            return True
        value, position = _read_varint(data, position)
        if wire_type == 2 and number in ONNX_MESSAGES:
            position += value
        elif wire_type != 0 or number not in ONNX_VARINTS:
            return False
    return False


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A protobuf varint and the position behind it; 0 where the data ends, which is no field's key."""
    value = 0
    for i, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    return 0, len(data)


SIGNATURES: dict[ModelFormat, Callable[[bytes], bool]] = {
    "tflite": _is_tflite,
    "h5": _is_h5,
    "keras": _is_keras,
    "onnx": _is_onnx,
}
