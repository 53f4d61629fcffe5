"""Reads an untrusted FlatBuffer: every offset, length and count is checked against the file before use.

A table starts with a signed offset back to its vtable; the vtable lists where in the table each slot is, 0
for absent. Strings, vectors and tables are reached through forward offsets, so there is no cycle, and the
schema decides how deep a reader goes. Tables may share parts, so the file's size alone does not bound the
work: ``FlatBuffer`` has a budget, an upper estimate in bytes of the Python objects made from the file, and
a file that exceeds it is refused. Raw bytes are views and cost nothing. Alignment is not asked for: numpy
reads unaligned views, too. Format: https://flatbuffers.dev/internals/

The options of a custom operator are a FlexBuffer, of which only what a map of names to numbers needs is read. Values of
other kinds (texts, vectors) are left out: exporters write a few that change nothing. Offsets lead backwards and are
followed once each, so there is no cycle; entries and names are bounded. Format:
https://flatbuffers.dev/flatbuffers_internals.html, "FlexBuffers".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError
from converters.sources.tflite.schema import WORDS, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BUDGET = 128 << 20
TABLE_COST = 1024
ELEMENT_COST = 40
CHARACTER_COST = 4
WITHOUT_FIELDS = struct.pack("<HHi", 4, 4, 4)  # a table at byte 4, and its vtable in front of it
MAX_TEXT = 1 << 16  # a fused operator carries the names of all its parts, yet never so many

_U16, _I32, _U32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")
_SCALARS = {
    "bool": struct.Struct("<?"),
    "int8": struct.Struct("<b"),
    "uint8": struct.Struct("<B"),
    "int32": _I32,
    "uint32": _U32,
    "uint64": struct.Struct("<Q"),
    "float32": struct.Struct("<f"),
}


class FlatBuffer:
    """The bytes of one file, and the budget for reading them."""

    def __init__(self, data: bytes, file: str) -> None:
        self.data = data
        self.file = file
        self._budget = BUDGET

    def root(self, fields: Schema) -> Table:
        """The table that the first four bytes point to."""
        return Table(self, self.follow(0, "root"), fields, "root")

    def damaged(self, where: str, what: str) -> SourceFileError:
        """The error for a broken structure at the path ``where``; ``what`` says expected and found."""
        return SourceFileError(f"{self.file}: damaged TFLite file at {where}: {what}; fetch or export the file again")

    def charge(self, cost: int, where: str) -> None:
        """Take ``cost`` from the budget.

        Raises:
            SourceFileError: the file describes more than any detector has.
        """
        self._budget -= cost
        if self._budget < 0:
            raise self.damaged(where, f"the file describes more than {BUDGET >> 20} MB of tables, names and shapes")

    def scalar(self, kind: struct.Struct, position: int, where: str) -> Any:
        """Unpack one little-endian number."""
        if not 0 <= position <= len(self.data) - kind.size:
            raise self.damaged(where, f"byte {position} lies outside the file's {len(self.data)} bytes")
        return kind.unpack_from(self.data, position)[0]

    def follow(self, position: int, where: str) -> int:
        """The position that the forward offset at ``position`` points to."""
        offset = int(self.scalar(_U32, position, where))
        if not 4 <= offset < len(self.data) - position:
            raise self.damaged(where, f"offset {offset} at byte {position} leads outside the {len(self.data)} bytes")
        return position + offset

    def span(self, position: int, width: int, where: str) -> tuple[int, int]:
        """Start and element count of the vector at ``position``."""
        count = int(self.scalar(_U32, position, where))
        start, room = position + 4, (len(self.data) - position - 4) // width
        if count > room:
            raise self.damaged(where, f"{count} elements of {width} bytes are announced, the file has room for {room}")
        return start, count


class Table:
    """One table: its fields by the names of its schema, each checked when it is read."""

    __slots__ = ("_fields", "_position", "_size", "_vtable", "_vtable_size", "buffer", "where")

    def __init__(self, buffer: FlatBuffer, position: int, fields: Schema, where: str) -> None:
        buffer.charge(TABLE_COST, where)
        self.buffer = buffer
        self.where = where
        self._fields = fields
        self._position = position
        self._vtable = position - int(buffer.scalar(_I32, position, where))
        self._vtable_size = int(buffer.scalar(_U16, self._vtable, where))
        self._size = int(buffer.scalar(_U16, self._vtable + 2, where))
        end = len(buffer.data)
        if self._vtable_size < 4 or self._vtable_size % 2 or self._vtable + self._vtable_size > end:
            raise self.damaged("", f"a vtable of {self._vtable_size} bytes at byte {self._vtable} is not possible")
        if self._size < 4 or position + self._size > end:
            raise self.damaged("", f"a table of {self._size} bytes at byte {position} is not possible")

    def damaged(self, name: str, what: str) -> SourceFileError:
        """The error for a broken field of this table."""
        return self.buffer.damaged(f"{self.where}.{name}" if name else self.where, what)

    def _locate(self, name: str, width: int) -> int | None:
        """Where the field's own bytes are, or None when it is absent."""
        entry = 4 + 2 * self._fields[name].slot
        if entry + 2 > self._vtable_size:
            return None
        offset = int(self.buffer.scalar(_U16, self._vtable + entry, self.where))
        if offset == 0:
            return None
        if offset < 4 or offset + width > self._size:
            raise self.damaged(name, f"{width} bytes at {offset} do not fit the table's {self._size} bytes")
        return self._position + offset

    def _target(self, name: str) -> int | None:
        """Where the field's offset leads, or None when it is absent."""
        position = self._locate(name, 4)
        return None if position is None else self.buffer.follow(position, f"{self.where}.{name}")

    def integer(self, name: str) -> int:
        """An integer field, or its default."""
        return int(self._number(name))

    def flag(self, name: str) -> bool:
        """A boolean field, or its default."""
        return bool(self._number(name))

    def real(self, name: str) -> float:
        """A float field, or its default; NaN and infinity are damage."""
        value = float(self._number(name))
        if not np.isfinite(value):
            raise self.damaged(name, f"a finite number is expected, found {value}")
        return value

    def word(self, name: str) -> str:
        """An enumeration as its schema's word; a data type newer than the schema reads ``"type_99"``."""
        kind, number = self._fields[name].kind, int(self._number(name))
        words = WORDS[kind]
        if 0 <= number < len(words):
            return words[number]
        if kind == "dtype":
            return f"type_{number}"
        raise self.damaged(name, f"{kind} number {number} does not exist; known are {', '.join(words)}")

    def _number(self, name: str) -> float:
        field = self._fields[name]
        kind = _SCALARS[field.kind if field.kind in _SCALARS else "int8"]  # words are numbers of a byte
        position = self._locate(name, kind.size)
        value: float = field.default if position is None else self.buffer.scalar(kind, position, self.where)
        return value

    def text(self, name: str) -> str:
        """A string field, empty when absent; bytes that are not UTF-8 read as backslash escapes."""
        target = self._target(name)
        if target is None:
            return ""
        start, count = self.buffer.span(target, 1, f"{self.where}.{name}")
        if count > MAX_TEXT:
            raise self.damaged(name, f"a text of {count} bytes, expected at most {MAX_TEXT}")
        self.buffer.charge(count * CHARACTER_COST, f"{self.where}.{name}")
        return self.buffer.data[start : start + count].decode("utf-8", errors="backslashreplace")

    def vector(self, name: str) -> NDArray[Any] | None:
        """A vector of numbers as a read-only view, or None when absent; only uint8 vectors are free."""
        target = self._target(name)
        if target is None:
            return None
        dtype = np.dtype(self._fields[name].kind.removeprefix("vector:")).newbyteorder("<")
        start, count = self.buffer.span(target, dtype.itemsize, f"{self.where}.{name}")
        if dtype.itemsize > 1:
            self.buffer.charge(count * ELEMENT_COST, f"{self.where}.{name}")
        return np.frombuffer(self.buffer.data, dtype, count, start) if count else np.empty(0, dtype)

    def integers(self, name: str) -> tuple[int, ...]:
        """A vector of integers as a tuple, empty when absent."""
        vector = self.vector(name)
        return () if vector is None else tuple(vector.tolist())

    def child(self, name: str, fields: Schema) -> Table | None:
        """The table behind a field, or None when absent."""
        target = self._target(name)
        return None if target is None else Table(self.buffer, target, fields, f"{self.where}.{name}")

    def children(self, name: str, fields: Schema) -> Iterator[Table]:
        """The tables of a vector, one after the other; none when the vector is absent."""
        target = self._target(name)
        if target is None:
            return
        where = f"{self.where}.{name}"
        start, count = self.buffer.span(target, 4, where)
        for i in range(count):
            path = f"{where}[{i}]"
            yield Table(self.buffer, self.buffer.follow(start + 4 * i, path), fields, path)


MOST_BYTES = 1 << 16
MOST_ENTRIES = 256
LONGEST_KEY = 128

INT, UINT, FLOAT, MAP, BOOL = 1, 2, 3, 9, 26
INDIRECT = {6: INT, 7: UINT, 8: FLOAT}
FORMATS = {
    INT: {1: "<b", 2: "<h", 4: "<i", 8: "<q"},
    UINT: {1: "<B", 2: "<H", 4: "<I", 8: "<Q"},
    FLOAT: {2: "<e", 4: "<f", 8: "<d"},
}


def read_numbers(data: bytes) -> dict[str, int | float | bool]:
    """The numbers of a FlexBuffer's map, by name; the last one counts where a name stands twice.

    Raises:
        ValueError: it is no FlexBuffer, a damaged one, or none that holds a map.
    """
    if not 3 <= len(data) <= MOST_BYTES:
        raise ValueError(f"{len(data)} bytes, expected a FlexBuffer of 3 to {MOST_BYTES}")
    width, kind = data[-1], data[-2]
    if width not in (1, 2, 4, 8) or kind >> 2 != MAP:
        raise ValueError("no map of names to numbers")
    start, width = _behind(data, len(data) - 2 - width, width), 1 << (kind & 3)
    # values begin at ``start``; before them stand offset and width of the names, and their number
    count = _unsigned(data, start - width, width)
    keys, key_width = _behind(data, start - 3 * width, width), _unsigned(data, start - 2 * width, width)
    if count > MOST_ENTRIES or key_width not in (1, 2, 4, 8) or _unsigned(data, keys - key_width, key_width) != count:
        raise ValueError(f"a map of {count} values, expected at most {MOST_ENTRIES} and as many names")
    numbers = {}
    for index in range(count):
        place = _behind(data, keys + index * key_width, key_width)
        end = data.find(b"\0", place, place + LONGEST_KEY)
        if end < 0:
            raise ValueError(f"a name at byte {place} does not end within {LONGEST_KEY} bytes")
        kind = _unsigned(data, start + count * width + index, 1)
        number = _read_number(data, start + index * width, width, kind)
        if number is not None:
            numbers[data[place:end].decode("utf-8", errors="backslashreplace")] = number
    return numbers


def _read_number(data: bytes, place: int, width: int, packed: int) -> int | float | bool | None:
    """The number of a value; None where it is of another kind."""
    kind = packed >> 2
    if kind in INDIRECT:
        place, width, kind = _behind(data, place, width), 1 << (packed & 3), INDIRECT[kind]
    if kind == BOOL:
        return _unsigned(data, place, width) != 0
    code = FORMATS.get(kind, {}).get(width)
    if code is None:
        return None
    _require_inside(data, place, width)
    number: int | float = struct.unpack_from(code, data, place)[0]
    return number


def _behind(data: bytes, place: int, width: int) -> int:
    """Where the offset at ``place`` leads: so many bytes back."""
    offset = _unsigned(data, place, width)
    if offset > place:
        raise ValueError(f"offset {offset} at byte {place} leads outside")
    return place - offset


def _unsigned(data: bytes, place: int, width: int) -> int:
    _require_inside(data, place, width)
    return int.from_bytes(data[place : place + width], "little")


def _require_inside(data: bytes, place: int, width: int) -> None:
    if not 0 <= place <= len(data) - width:
        raise ValueError(f"byte {place} lies outside its {len(data)} bytes")
