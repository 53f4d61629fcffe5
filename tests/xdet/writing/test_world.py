"""Faults of the world: full disks, kills, read-only folders, processes on one file. A file is whole then, or absent."""

from __future__ import annotations

import ctypes
import io
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from xdet.detection.embedded import CACHE_VARIABLE, SOURCE
from xdet.detection.results import ResultsFile
from xdet.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs a POSIX system, such as Linux or macOS: its signals and limits are tested"
)

_PIXELS = io.BytesIO()
Image.new("RGB", (64, 48), "grey").save(_PIXELS, "png")
PICTURE = _PIXELS.getvalue()
HEADER = {"schema": "xdet.detection_lines", "version": 1}
LINE = {"image": "a" * 200, "sha256": "0", "width": 1, "height": 1, "detections": []}
WRITER = """
import json, sys
from pathlib import Path
from converters.files import write_whole
from tests.xdet.writing.test_world import HEADER, LINE
from xdet.detection.results import ResultsFile
whole, lines = map(Path, sys.argv[1:])
with ResultsFile(lines, HEADER) as results:
    print("begins", flush=True)
    for number in range(10**9):
        results.add_entry({**LINE, "image": f"{number} {'a' * 200}"})
        write_whole(whole, bytes([number % 256]) * 300_000)
"""
FULL = """
import resource, sys
from pathlib import Path
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from tests.xdet.writing.test_world import HEADER, LINE
from xdet.detection.results import ResultsFile
from xdet.errors import OutputError
from xdet.writing.files import write_bytes
try:
    write_bytes(Path(sys.argv[1]), bytes(5000))
except OutputError as error:
    print(error)
with ResultsFile(Path(sys.argv[2]), HEADER) as results:
    try:
        for number in range(10):
            results.add_entry({**LINE, "image": f"{number} {'a' * 200}"})
    except OutputError as error:
        print(error)
"""


DETECTS = """
from pathlib import Path
import numpy as np
import xdet
pixels = np.random.default_rng(3).integers(0, 256, (120, 160, 3), np.uint8)
with xdet.Detector(threads=1) as detector:
    print(detector(pixels).to_json())
"""


def program(text: str, *paths: Path) -> list[str]:
    return [sys.executable, "-c", text, *map(str, paths)]


@pytest.mark.parametrize("wait_s", [0.003, 0.05, 0.17])
def test_a_process_killed_at_any_moment_leaves_whole_files(tmp_path: Path, wait_s: float) -> None:
    whole, lines = tmp_path / "whole.bin", tmp_path / "lines.jsonl"
    with subprocess.Popen(program(WRITER, whole, lines), stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begins\n"
        with pytest.raises(OutputError, match="another process writes to"):
            ResultsFile(lines, HEADER)
        time.sleep(wait_s)
        writer.kill()
    if whole.exists():
        found = whole.read_bytes()
        assert len(found) == 300_000
        assert len(set(found)) == 1
    with ResultsFile(lines, HEADER) as results:  # nobody holds the lock of the dead
        results.add_entry(LINE)
    first, *entries = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert first == HEADER
    names = [entry["image"].split()[0] for entry in entries]
    assert names == [*map(str, range(len(entries) - 1)), LINE["image"]]


def test_a_full_disk_keeps_the_old_file_and_whole_lines(tmp_path: Path) -> None:
    whole, lines = tmp_path / "whole.bin", tmp_path / "lines.jsonl"
    whole.write_bytes(b"old")
    told = subprocess.run(program(FULL, whole, lines), capture_output=True, text=True, check=True).stdout.splitlines()
    assert whole.read_bytes() == b"old"
    assert len(told) == 2
    assert all("cannot write" in line for line in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl", "whole.bin"]
    with ResultsFile(lines, HEADER) as results:
        assert 0 < len(results.done) < 10


def test_processes_that_fill_one_cache_at_once_find_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path / "cache")}
    start = [subprocess.Popen(program(DETECTS), env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    start[0].kill()  # before or while it converts
    told = [process.communicate()[0] for process in start][1:]
    assert told[0] == told[1]
    assert "detections" in json.loads(told[0])
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])  # what a failing disk leaves
    again = subprocess.run(program(DETECTS), env=environment, capture_output=True, text=True, check=True).stdout
    assert again == told[0]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def without_the_right_to_write_anywhere() -> None:
    """Root may write into read-only folders, on Linux by a capability, which this process and its program lose."""
    if os.geteuid() == 0 and sys.platform == "linux":
        drop_from_bounding_set, override_access = 24, 1
        ctypes.CDLL(None).prctl(drop_from_bounding_set, override_access, 0, 0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", str(SOURCE), "-o", "{}/model.onnx"),
        ("detect", "{}/../picture.png", "-o", "{}/found.jsonl"),
        ("detect", "{}/../picture.png", "--save", "{}"),
        ("detect", "{}/../picture.png", "--save", "{}/new"),
    ],
    ids=["convert", "results", "pictures", "new-folder"],
)
def test_a_read_only_folder_is_one_line(read_only: Path, arguments: tuple[str, ...]) -> None:
    (read_only.parent / "picture.png").write_bytes(PICTURE)
    environment = {**os.environ, CACHE_VARIABLE: str(read_only / "cache")}  # as in a read-only home
    done = subprocess.run(
        [sys.executable, "-m", "xdet", *(argument.format(read_only) for argument in arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=without_the_right_to_write_anywhere,
    )
    assert done.returncode == 3, done
    last = done.stderr.splitlines()[-1]
    assert "ermission denied" in last or "not be written" in last or "cannot write" in last, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in read_only.iterdir()] == ["kept.txt"]
