"""HDF5 files and ``.keras`` archives that hold, reach or unfold to more than Keras writes, or are damaged."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.errors import ConversionError, MissingExtraError, SourceFileError
from converters.sources.keras import containers
from converters.sources.keras.stored import read_keras
from tests.converters.sources.keras.stored_models import functional, h5_bytes, h5py, keras_zip, layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = functional(layer("Conv2D", "conv"))


def external_link(file: Any) -> None:
    file["secret"] = h5py.ExternalLink("/etc/other.h5", "/")


def soft_link(file: Any) -> None:
    file["alias"] = h5py.SoftLink("/model_weights")


def virtual_dataset(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/other.h5", "d", (4,))
    file.create_virtual_dataset("virtual", layout)


def external_storage(file: Any) -> None:
    file.create_dataset("stored", (4,), np.float32, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def unfolding(file: Any) -> None:
    file.create_dataset("bomb", (1 << 32,), np.float32, chunks=(1 << 20,), compression="gzip")


def plug_in_filter(file: Any) -> None:
    file.create_dataset("packed", (64,), np.float32, chunks=(64,), compression="lzf")


def text_dataset(file: Any) -> None:
    file["text"] = "not a weight"


def named_type(file: Any) -> None:
    file["type"] = np.dtype(np.float32)


def list_attribute(file: Any) -> None:
    lists = np.empty(1, object)
    lists[0] = np.ones(3, np.uint8)
    file["model_weights"].attrs.create("odd", lists, dtype=h5py.vlen_dtype(np.uint8))


def reference_attribute(file: Any) -> None:
    file["model_weights/kernel:0"].attrs["odd"] = file.ref


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(external_link, "'/secret' is a link to somewhere else", id="external link"),
        pytest.param(soft_link, "'/alias' is a link to somewhere else", id="soft link"),
        pytest.param(virtual_dataset, "'/virtual' keeps its numbers in other files", id="virtual dataset"),
        pytest.param(external_storage, "'/stored' keeps its numbers in other files", id="external storage"),
        pytest.param(unfolding, "unfold to more than 67", id="a bomb"),
        pytest.param(plug_in_filter, r"'/packed' is packed with filters \[32000\]", id="a filter from elsewhere"),
        pytest.param(text_dataset, "'/text' holds object, expected numbers", id="text"),
        pytest.param(named_type, "'/type' is neither a group nor a dataset", id="a named type"),
        pytest.param(
            list_attribute, "attribute 'odd' of '/model_weights' holds object, expected text", id="a list of lists"
        ),
        pytest.param(
            reference_attribute, "'odd' of '/model_weights/kernel:0' holds object, expected text", id="a reference"
        ),
    ],
)
def test_an_h5_file_that_is_more_than_it_seems_is_refused(write: Callable[[Any], None], message: str) -> None:
    with pytest.raises(SourceFileError, match=rf"m\.h5: .*{message}"):
        read_keras(h5_bytes(MODEL, write), "m.h5")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", r"ended the process that read it \(exit code -6\)"),
        ("while True: pass", "reads it for more than 1 s"),
    ],
    ids=["a crash", "a hang"],
)
def test_a_file_that_the_library_does_not_survive_is_refused(
    program: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "library.py").write_text(program, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(containers, "__name__", "library")
    monkeypatch.setattr(containers, "READING_S", 1 if "while" in program else 60)
    data = h5_bytes(MODEL, lambda file: file.attrs.create("unlike", message))
    with pytest.raises(SourceFileError, match=rf"m\.h5: damaged HDF5: the HDF5 library {message}"):
        read_keras(data, "m.h5")


def test_a_text_that_became_a_list_is_refused_before_the_library_reads_it() -> None:
    """Fixed-width text needs no heap; the flag that makes a variable-length type a text lies in its class bits."""
    data = bytearray(h5_bytes(MODEL))
    kinds = [place for place in range(len(data) - 8) if data[place : place + 4] == b"\x19\x01\x01\x00"]
    assert kinds  # version 1, class 9: variable length; 1: text of variable length; UTF-8
    for place in kinds:
        data[place + 1] = 0
    with pytest.raises(SourceFileError, match=r"m\.h5: attribute '.*' of '/' holds object, expected text or numbers"):
        read_keras(bytes(data), "m.h5")


@pytest.mark.parametrize("size", [0, 8, 15, 1024, 1 << 40])
def test_a_heap_that_the_library_reads_for_ever_is_refused(size: int) -> None:
    data = bytearray(h5_bytes(MODEL))
    heap = place = data.index(b"GCOL")
    place += 16
    while int.from_bytes(data[place : place + 2], "little"):  # texts, then the rest, which has number 0
        length = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + length + -length % 8
    data[place + 8 : place + 16] = size.to_bytes(8, "little")
    with pytest.raises(
        SourceFileError, match=rf"m\.h5: damaged HDF5: the heap at byte {heap} has a rest of {size} bytes"
    ):
        read_keras(bytes(data), "m.h5")


def test_the_weights_inside_an_archive_are_checked_the_same_way() -> None:
    members = {"model.weights.h5": h5_bytes(None, external_link)}
    with pytest.raises(SourceFileError, match=r"m\.keras: model\.weights\.h5: '/secret' is a link"):
        read_keras(keras_zip(MODEL, members), "m.keras")


def test_a_group_that_contains_itself_is_visited_once() -> None:
    def cycle(file: Any) -> None:
        file["model_weights/again"] = file["model_weights"]

    assert len(read_keras(h5_bytes(MODEL, cycle), "m.h5").layers) == 2


def test_more_objects_than_any_network_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_OBJECTS", 1)
    with pytest.raises(SourceFileError, match="more than 1 objects"):
        read_keras(h5_bytes(MODEL), "m.h5")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_of_either_kind_is_refused(part: float) -> None:
    for data, name in ((h5_bytes(MODEL), "m.h5"), (keras_zip(MODEL), "m.keras")):
        with pytest.raises(ConversionError, match=name):
            read_keras(data[: int(len(data) * part)], name)


def test_without_h5py_the_message_is_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'h5py.*pip install "xdet\[keras\]"'):
        read_keras(b"", "m.h5")


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
                containers.read_members(bytes(damaged), "m.keras")
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
