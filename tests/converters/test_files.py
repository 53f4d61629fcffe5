"""What may be overwritten, that a file is written whole or not at all, and how its bytes tell its format."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import OptionError, OutputError, SourceFileError
from converters.files import (
    FINISHED,
    HDF5_SIGNATURE,
    LARGEST_MODEL,
    ONNX_MAX_FIELDS,
    SNIFFED_BYTES,
    read_regular,
    require_writable,
    write_output,
    write_whole,
)
from converters.sources import SOURCES, read_source, sniff_format
from converters.spec import METADATA_KEY

needs_links = pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: links need a privilege on Windows"
)


@pytest.mark.parametrize("link", [False, pytest.param(True, marks=needs_links)], ids=["itself", "a link to it"])
def test_the_source_is_never_the_output_even_when_forced(tmp_path: Path, *, link: bool) -> None:
    source, output = tmp_path / "net.tflite", tmp_path / "out.onnx"
    source.write_bytes(b"model")
    if link:
        output.symlink_to(source)
    with pytest.raises(
        OptionError, match=r"is a file that this command reads \(.*\); name another to write to with -o"
    ):
        require_writable(output if link else source, inputs=[source], force=True)


@needs_links
def test_a_link_stays_a_link_to_the_new_bytes(tmp_path: Path) -> None:
    real, output = tmp_path / "real.onnx", tmp_path / "out.onnx"
    real.write_bytes(b"old")
    output.symlink_to(real)
    write_output(output, b"new")
    assert output.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    before = Path(os.devnull).stat().st_mode
    write_whole(Path(os.devnull), b"new")
    assert Path(os.devnull).stat().st_mode == before


def test_the_longest_legal_name_is_written(tmp_path: Path) -> None:
    output = tmp_path / ("n" * 250 + ".onnx")
    write_output(output, b"new")
    assert output.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["too long", "a NUL character"])
def test_a_name_no_system_takes_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_output(tmp_path / name, b"new")


@pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: Windows calls such a name missing"
)
def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        require_writable(tmp_path / ("x" * 300), inputs=[tmp_path / "net.tflite"], force=False)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.onnx"
    output.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"out\.onnx: cannot be written: No space left on device"):
        write_output(output, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_missing_source_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=r"no\.tflite: cannot be read: No such file"):
        read_source(tmp_path / "no.tflite")
    with pytest.raises(SourceFileError, match="it is a folder, expected a file"):
        read_source(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: Windows has no such files")
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket", "a folder"])
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "special"
    if kind == "a pipe":
        os.mkfifo(path)  # opening it for reading waits for a writer
    elif kind == "a device":
        path = Path("/dev/zero")  # which never ends
    elif kind == "a socket":
        path = Path(os.path.relpath(path))  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path.mkdir()
    with pytest.raises(OSError, match=f"it is {kind}, expected a file"):
        read_regular(path, 100)
    with pytest.raises(SourceFileError, match=f"it is {kind}, expected a file"):
        read_source(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(LARGEST_MODEL + 1)
    with pytest.raises(SourceFileError, match="it has 2,147,483,648 bytes, more than 2,147,483,647, the most"):
        read_source(path)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux: only it has files without a size")
def test_a_file_whose_size_is_not_told_is_bounded_all_the_same() -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(OSError, match="it has more than 100 bytes, the most"):
        read_regular(Path("/proc/self/status"), 100)


def test_of_a_large_file_that_is_no_model_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert len(read_source(path)) == SNIFFED_BYTES
    with path.open("r+b") as file:
        file.write(b"\x18\x00\x00\x00TFL3")
        file.truncate(3 << 20)
    assert len(read_source(path)) == 3 << 20


def zip_of(*members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, "{}")
    return stream.getvalue()


def onnx_model(**attributes: str | int) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    return onnx.helper.make_model(graph, **attributes)


def finished_onnx() -> bytes:
    model = onnx_model()
    onnx.helper.set_model_props(model, {"other": "x", METADATA_KEY: "{}"})
    serialized: bytes = model.SerializeToString()
    return serialized


FILES: dict[str, tuple[bytes, str | None]] = {
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "tflite"),
    "tflite, cut behind the identifier": (b"\x1c\0\0\0TFL3", "tflite"),
    "h5": (HDF5_SIGNATURE + bytes(40), "h5"),
    "h5 behind a user block": (bytes(1024) + HDF5_SIGNATURE + bytes(8), "h5"),
    "h5 signature at a place that means nothing": (bytes(700) + HDF5_SIGNATURE + bytes(8), None),
    "keras": (zip_of("metadata.json", "config.json", "model.weights.h5"), "keras"),
    "keras, packed again in another order": (zip_of("config.json", "metadata.json"), "keras"),
    "keras, cut": (zip_of("metadata.json", "config.json", "model.weights.h5")[:60], "keras"),
    "another zip": (zip_of("word/document.xml", "config.json"), None),
    "onnx": (onnx_model().SerializeToString(), "onnx-source"),
    "onnx that xdet made": (finished_onnx(), "onnx"),
    "onnx with a long description": (onnx_model(doc_string="x" * 5000).SerializeToString(), "onnx-source"),
    "onnx with a negative model version": (onnx_model(model_version=-1).SerializeToString(), "onnx-source"),
    "onnx, cut inside the graph": (onnx_model().SerializeToString()[:20], "onnx"),
    "onnx without a graph": (onnx.ModelProto(ir_version=9, producer_name="p").SerializeToString(), None),
    "an onnx tensor": (onnx.numpy_helper.from_array(np.ones(3)).SerializeToString(), None),
    "protobuf with fields ModelProto does not have": (b"\x08\x09\x62\x01a\x3a\x01a", None),
    "protobuf with an impossible version": (b"\x08\x80\x80\x80\x80\x10\x3a\x01a", None),
    "nothing but versions": (b"\x08\x09" * (2 * ONNX_MAX_FIELDS), None),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), None),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), None),
    "text": (b"a,b,c\n" * 10, None),
    "empty": (b"", None),
}


@pytest.mark.parametrize(("data", "expected"), FILES.values(), ids=FILES.keys())
def test_the_bytes_tell_the_format(data: bytes, expected: str | None) -> None:
    assert sniff_format(data) == expected


def test_the_embedded_model_is_tflite(embedded_tflite: Path) -> None:
    assert sniff_format(embedded_tflite.read_bytes()) == "tflite"


@given(st.binary(max_size=600), st.sampled_from([b"", b"\x08\x09", b"PK\x03\x04", b"\x08\x09\x12\xff\xff\xff\xff"]))
def test_any_bytes_have_an_answer(tail: bytes, head: bytes) -> None:
    assert sniff_format(head + tail) in {*SOURCES, FINISHED, None}


def test_sniffing_imports_neither_onnx_nor_a_schema() -> None:
    code = (
        "import sys; from converters.sources import sniff_format; "
        "print([m for m in ('onnx', 'onnx_ir', 'tflite', 'tensorflow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
