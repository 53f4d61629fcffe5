"""Numbers of a FlexBuffer, as flatbuffers' own writer makes them, and damaged bytes, which are refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.sources.tflite.flatbuffer import LONGEST_KEY, MOST_BYTES, read_numbers

flexbuffers: Any = pytest.importorskip("flatbuffers.flexbuffers", reason='needs pip install "xdet[litert]"')

OPTIONS = {"max_detections": 10, "use_regular_nms": True, "y_scale": 10.0, "nms_score_threshold": 1e-8}
names = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20)
numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(-1e30, 1e30), st.booleans())


@given(st.dictionaries(names, numbers, max_size=40))
def test_numbers_are_those_that_were_written(written: dict[str, Any]) -> None:
    assert read_numbers(bytes(flexbuffers.Dumps(written))) == written


def test_values_of_other_kinds_are_left_out_and_indirect_numbers_are_followed() -> None:
    assert read_numbers(bytes(flexbuffers.Dumps({**OPTIONS, "types": [1, 2], "text": "t"}))) == OPTIONS
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, add, value in (("f", builder.IndirectFloat, 0.1), ("i", builder.IndirectInt, 1 << 40)):
            builder.Key(key)
            add(value)
    assert read_numbers(bytes(builder.Finish())) == {"f": 0.1, "i": 1 << 40}


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=5), st.integers(0, 40))
def test_damaged_bytes_are_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(flexbuffers.Dumps(OPTIONS))
    for place, byte in changes:
        data[place % len(data)] = byte
    with contextlib.suppress(ValueError):
        read_numbers(bytes(data[: len(data) - cut]))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "0 bytes, expected a FlexBuffer of 3"),
        (bytes(MOST_BYTES + 1), "65537 bytes"),
        (bytes(flexbuffers.Dumps([1, 2])), "no map of names to numbers"),
        (b"\x00\x00\x00\xff\x25\x02", "leads outside"),
        (bytes(flexbuffers.Dumps({"n" * (LONGEST_KEY + 1): 1})), "does not end within 128 bytes"),
        (bytes(flexbuffers.Dumps({f"n{i}": i for i in range(300)})), "a map of 300 values, expected at most 256"),
    ],
)
def test_what_is_no_map_of_numbers_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_numbers(data)
