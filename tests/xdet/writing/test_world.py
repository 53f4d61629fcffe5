"""Faults of the world: a full disk, a kill at any moment, two processes on one file. What is there then is whole, or absent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from xdet.detection.results import ResultsFile
from xdet.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

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
    told = subprocess.run(
        program(FULL, whole, lines), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert whole.read_bytes() == b"old"
    assert len(told) == 2
    assert all("cannot write" in line for line in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl", "whole.bin"]
    with ResultsFile(lines, HEADER) as results:
        assert 0 < len(results.done) < 10
