"""Which files are taken as kept predictions; every other one keeps all its bytes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from xdet.errors import DataError, OutputError
from xdet.evaluation.predictions import HEADER, KeptPredictions

if TYPE_CHECKING:
    from pathlib import Path

LINE = b'{"run": "r", "image": 1, "sha256": "s", "boxes_xyxy": [[0, 0, 1, 1]], "scores": [1], "classes": [0]}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"no json\n", 1),
        (b'{"run": 1}\n', 1),
        (b'{"run": "r"}\n', 1),
        (b"[]\n", 1),
        (b"a photograph, perhaps", 1),
        (b'{"images": [], "annotations": [], "categories": []}', 1),  # COCO on one line
        (b'{"images": [], "annotations": [], "categories": []}\n', 1),
        (b'{"run": "a document of somebody else"}', 1),
        (b"{", 1),
        (b"\n", 1),
        (HEADER.replace(b"1", b"2"), 1),
        (HEADER.strip(), 1),
        (HEADER + b"{}\n", 2),
        (HEADER + LINE + b"my notes", 3),
        (HEADER + LINE + b'{"other": 1}', 3),
        (LINE + b"my notes", 2),
        (LINE + b"{}\n" + LINE, 2),
        (HEADER + LINE.replace(b"[0]", b"[99999999999]"), 2),
        (HEADER + LINE.replace(b"[1]", b"[1e99]"), 2),
        (HEADER + LINE.replace(b"[1]", b"[1" + b"0" * 400 + b"]"), 2),
        (HEADER + LINE.replace(b": 1,", b": 1e999,"), 2),
        (HEADER + LINE.replace(b"[1]", b"[1, 1]"), 2),
        (HEADER + LINE.replace(b"[1]", b"[" * 100_000), 2),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: bytes, line: int) -> None:
    kept = tmp_path / "notes.txt"
    kept.write_bytes(content)
    with pytest.raises(DataError, match=rf"notes\.txt', line {line}, is no kept prediction; give `resume`"):
        KeptPredictions(kept)
    assert kept.read_bytes() == content


@pytest.mark.parametrize("content", [HEADER, HEADER + LINE, LINE, HEADER + HEADER + LINE])
@pytest.mark.parametrize("half", [b"", b"{", b'{"run": "r", "im'])
def test_a_file_of_ours_stays_without_its_half_line(tmp_path: Path, content: bytes, half: bytes) -> None:
    (tmp_path / "kept").write_bytes(content + half)
    KeptPredictions(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == content


@pytest.mark.parametrize("empty", [True, False])
def test_a_new_file_begins_with_the_header(tmp_path: Path, *, empty: bool) -> None:
    if empty:
        (tmp_path / "kept").touch()
    KeptPredictions(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == HEADER


@pytest.mark.skipif(
    sys.platform == "win32",
    reason="needs a POSIX system, such as Linux or macOS: Windows has no named pipes in folders",
)
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe': it is a pipe, expected a file; choose another `resume`"):
        KeptPredictions(tmp_path / "pipe")
