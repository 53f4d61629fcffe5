"""Writing files whole or not at all."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from xdet.errors import OutputError
from xdet.writing.files import json_mark, make_folder, to_json, write_bytes, write_text


def test_a_file_is_written_and_replaced_without_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "caf\u00e9 1.json"
    write_text(target, "old")
    write_text(target, "new \u732b\n")
    assert target.read_bytes() == "new \u732b\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_name_that_is_no_utf_8_is_written_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '"\udce9"')
    assert (tmp_path / "a.json").read_bytes() == b'"\\udce9"'


def test_json_begins_with_its_mark_and_has_null_for_what_no_reader_of_json_takes() -> None:
    text = to_json("xdet.made", 3, {"b": (math.inf, {"c": math.nan}), "a": [1, 0.5, "caf\u00e9"]})
    assert json_mark("xdet.made").match(text.encode())
    assert "".join(text.split()) == '{"schema":"xdet.made","version":3,"b":[null,{"c":null}],"a":[1,0.5,"caf\u00e9"]}'
    assert text.endswith("}\n")


def test_a_failed_replacement_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot write '.*a\.bin': No space left on device"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder '.*absent' does not exist; create it or choose another"):
        write_bytes(tmp_path / "absent" / "a.bin", b"")


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder; give a file name"):
        write_bytes(tmp_path, b"")


def test_a_path_no_system_accepts_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a usable path"):
        write_bytes(tmp_path / "a\0b", b"")
    with pytest.raises(OutputError, match="cannot write"):
        write_bytes(tmp_path / ("x" * 300), b"")


@pytest.mark.skipif(
    os.name == "nt",
    reason="needs a POSIX system, such as Linux or macOS: Windows has no such links or device for every user",
)
def test_links_are_followed_and_devices_survive(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    write_bytes(Path(os.devnull), b"gone")
    assert not Path(os.devnull).is_file()


def test_a_folder_is_made_with_its_parents_once_or_twice(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OutputError, match="a file of that name is in the way"):
            make_folder(folder)
