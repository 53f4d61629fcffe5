"""Reads the options of a custom operator, a FlexBuffer: a map of names to numbers, without trusting a byte of it.

Only what a map of numbers needs is read. Values of other kinds (texts, vectors) are left out: exporters write a few
that change nothing. Offsets lead backwards and are followed once each, so there is no cycle; entries and names are
bounded. Format: https://flatbuffers.dev/flatbuffers_internals.html, "FlexBuffers".
"""

from __future__ import annotations

import struct

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
    """The numbers of a map.

    Args:
        data: the FlexBuffer.

    Returns:
        Name -> number; the last one counts where a name stands twice.

    Raises:
        ValueError: it is no FlexBuffer, a damaged one, or none that holds a map.
    """
    if not 3 <= len(data) <= MOST_BYTES:
        raise ValueError(f"{len(data)} bytes, expected a FlexBuffer of 3 to {MOST_BYTES}")
    width, kind = data[-1], data[-2]
    if width not in (1, 2, 4, 8) or kind >> 2 != MAP:
        raise ValueError("no map of names to numbers")
    return _read_map(data, _behind(data, len(data) - 2 - width, width), 1 << (kind & 3))


def _read_map(data: bytes, start: int, width: int) -> dict[str, int | float | bool]:
    """The map whose values begin at ``start``; before them stand offset and width of the names, and their number."""
    count = _unsigned(data, start - width, width)
    keys, key_width = _behind(data, start - 3 * width, width), _unsigned(data, start - 2 * width, width)
    if count > MOST_ENTRIES or key_width not in (1, 2, 4, 8) or _unsigned(data, keys - key_width, key_width) != count:
        raise ValueError(f"a map of {count} values, expected at most {MOST_ENTRIES} and as many names")
    numbers = {}
    for index in range(count):
        name = _read_key(data, _behind(data, keys + index * key_width, key_width))
        kind = _unsigned(data, start + count * width + index, 1)
        number = _read_number(data, start + index * width, width, kind)
        if number is not None:
            numbers[name] = number
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


def _read_key(data: bytes, place: int) -> str:
    end = data.find(b"\0", place, place + LONGEST_KEY)
    if end < 0:
        raise ValueError(f"a name at byte {place} does not end within {LONGEST_KEY} bytes")
    return data[place:end].decode("utf-8", errors="backslashreplace")


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
