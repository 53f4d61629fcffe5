"""``.keras`` archives with other members than Keras', damaged ones, and those that unfold without end are refused."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from converters.errors import SourceFileError
from converters.sources.keras import archive
from converters.sources.keras.stored import read_keras
from tests.converters.sources.keras.stored_models import functional, keras_zip, layer

if TYPE_CHECKING:
    from pathlib import Path

MODEL = functional(layer("Conv2D", "conv"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param({"../../evil.py": b"x"}, r"unknown members '\.\./\.\./evil\.py'", id="a path upwards"),
        pytest.param({"/etc/cron.d/x": b"x"}, "unknown members '/etc/cron.d/x'", id="an absolute path"),
        pytest.param({"assets/vocabulary.txt": b"x"}, "unknown members 'assets/vocabulary.txt'", id="assets"),
        pytest.param(
            {"metadata.json": b" " * 70000}, "'metadata.json' unfolds to 70000 bytes, more than 65536", id="too large"
        ),
        pytest.param({"metadata.json": b"\xff\xfe"}, "not UTF-8 text", id="no text"),
        pytest.param({"metadata.json": b"{}"}, "expected a keras_version, found None", id="no version"),
        pytest.param({"config.json": b"[1, 2]"}, "expected a JSON object, found list", id="no object"),
        pytest.param({"config.json": b"{"}, "not JSON", id="no JSON"),
    ],
)
def test_an_archive_with_other_members_than_keras_writes_is_refused(members: dict[str, bytes], message: str) -> None:
    with pytest.raises(SourceFileError, match=rf"m\.keras: .*{message}"):
        read_keras(keras_zip(MODEL, members), "m.keras")


def test_a_member_that_is_missing_or_there_twice_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(SourceFileError, match=r"expected each of .* once, found config\.json"):
        read_keras(path.read_bytes(), "m.keras")


def test_a_member_that_unfolds_to_more_than_its_header_says_is_refused() -> None:
    data = bytearray(keras_zip(MODEL))
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"config.json"))
    size = struct.unpack_from("<I", data, entry + 24)[0]
    struct.pack_into("<I", data, entry + 24, size - 10)
    with pytest.raises(SourceFileError, match=r"m\.keras: "):
        read_keras(bytes(data), "m.keras")


def test_every_flipped_byte_of_a_zip_archive_is_a_model_or_a_source_file_error() -> None:
    """Of all bytes, not of some: zipfile raises a dozen kinds of errors, each for a few of them."""
    data = keras_zip(MODEL)
    directory = data.index(b"PK\x01\x02")
    for place in (*range(40), *range(directory, len(data))):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = bytearray(data)
            damaged[place] = value
            try:
                archive.read_members(bytes(damaged), "m.keras")
            except SourceFileError as error:
                assert str(error).startswith("m.keras: ")  # noqa: PT017  both outcomes are fine


def test_a_member_that_unfolds_to_many_times_the_archive_is_refused_before_it_is_read() -> None:
    data = keras_zip(MODEL, {"model.weights.h5": bytes(200 << 20)})
    assert len(data) < 1 << 20
    tracemalloc.start()
    with pytest.raises(SourceFileError, match=r"'model.weights.h5' unfolds to 209715200 bytes, an archive of"):
        read_keras(data, "m.keras")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
