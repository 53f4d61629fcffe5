"""What may be overwritten, and that a file is written whole or not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from converters.errors import OptionError, OutputError, SourceFileError
from converters.files import LARGEST_MODEL, SNIFFED_BYTES, read_regular, require_writable, write_output, write_whole
from converters.sources import read_source


def test_the_source_is_never_the_output_even_when_forced(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(b"model")
    with pytest.raises(
        OptionError, match=r"is a file that this command reads \(.*\); name another to write to with -o"
    ):
        require_writable(source, inputs=[source], force=True)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_to_the_source_is_the_source(tmp_path: Path) -> None:
    source, output = tmp_path / "net.tflite", tmp_path / "out.onnx"
    source.write_bytes(b"model")
    output.symlink_to(source)
    with pytest.raises(OptionError, match="is a file that this command reads"):
        require_writable(output, inputs=[source], force=True)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
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


@pytest.mark.skipif(os.name == "nt", reason="Windows calls such a name missing")
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
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


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux has files without a size")
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
