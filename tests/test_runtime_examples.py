"""The programs that measure runtimes: a matrix of all, and a block about an execution provider."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xdet.conversion import convert

ROOT = Path(__file__).resolve().parent.parent


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"examples/{program}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_matrix_has_a_row_per_dialect_and_runtime(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    header = "| source | dialect | runtime | head | boxes | ms |"
    page = tmp_path / "page.md"
    before = f"# Runtimes\n\n{header}\n| of | another |\n\n## These\n\n"
    page.write_text(f"{before}{header}\n| old | row |\n\nBehind.\n", "utf-8")
    done = run(
        "runtime_matrix.py",
        *("--into", page, "--under", "## These"),
        *(embedded_tflite, "--images", sample_pictures[0], "--dialects", "portable,int8", "--repeats", 1),
        *("--runtimes", "onnxruntime-unfused,iree"),
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert [(row[1], row[2]) for row in rows[2:]] == [
        (dialect, runtime)
        for dialect in ("portable", "int8")
        for runtime in ("onnxruntime:cpu", "onnxruntime-unfused:cpu", "iree:llvm-cpu")
    ]
    assert rows[2][3] == "the reference"
    assert rows[3][4] == "equal"
    assert page.read_text("utf-8") == f"{before}{done.stdout}\nBehind.\n"


def test_a_dialect_that_there_is_not_is_told(embedded_tflite: Path) -> None:
    done = run("runtime_matrix.py", embedded_tflite, "--images", embedded_tflite, "--dialects", "latin")
    assert done.returncode == 2
    assert done.stderr.startswith("there is no dialect 'latin'; choose among portable, cpu, int8, float leaky, ")


def test_the_block_holds_versions_placement_and_the_check(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    convert(embedded_tflite, tmp_path / "m.onnx")
    files = (tmp_path / "m.onnx", "--source", embedded_tflite, "--images", sample_pictures[0])
    done = run("report_accelerator.py", *files, "--provider", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == "```"
    for told in ("xdet ", "provider CPUExecutionProvider; devices: ", "nodes on cpu: ", "time on cpu: "):
        assert sum(line.startswith(told) for line in lines) == 1
    assert any(line.startswith("onnxruntime:cpu ") for line in lines)
    absent = run("report_accelerator.py", *files, "--provider", "warp")
    assert absent.returncode == 2
    assert "execution provider 'warp' is not available" in absent.stderr
