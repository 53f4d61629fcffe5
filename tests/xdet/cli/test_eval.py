"""``xdet eval`` as people call it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.xdet.command import run_xdet
from tests.xdet.labelled_scenes import Scene, two_people, write_model

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_xdet("eval", *arguments, "--max-detections", "4")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return two_people(tmp_path)


@pytest.fixture
def inputs(scene: Scene) -> list[str | Path]:
    model = write_model(scene.folder / "m.onnx")
    return [model, "--images", scene.folder, "--annotations", scene.write()]


def test_a_table_a_plot_and_json(inputs: list[str | Path], tmp_path: Path) -> None:
    result = run(*inputs, "--plot", tmp_path / "p.png", "--json", tmp_path / "e.json", "--resume", tmp_path / "kept")
    assert (result.returncode, result.stderr) == (0, "")
    assert "m.onnx  onnxruntime:cpu  50.5  50.5  50.5" in result.stdout
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["schema"] == "xdet.evaluation"
    assert len((tmp_path / "kept").read_bytes().splitlines()) == 1 + 2


def test_json_on_stdout_stands_alone(inputs: list[str | Path]) -> None:
    result = run(*inputs, "--protocol", "zoo-3", "--json", "-")
    assert result.returncode == 0
    assert json.loads(result.stdout)["metrics"] == {"AP50": 0.5}


def test_bad_entries_are_told_on_stderr_and_by_the_exit_code(scene: Scene, inputs: list[str | Path]) -> None:
    scene.annotations[0]["bbox"] = [0, 0, "nan", 1]
    (scene.folder / "2.png").unlink()
    scene.write()
    result = run(*inputs)
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "image 2: there is no file" in lines[0]
    assert "annotations[0] (id 1) has the bbox [0, 0, 'nan', 1], expected four finite numbers" in lines[1]
    assert "  1 images without a file" in result.stdout
    assert "  1 annotations of images left out" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--truncate-input"], 2, "zoo"),
        (["--workers", "99"], 2, "--workers must lie in 1..64"),
        (["--provider", "warp"], 3, "'warp' is not available"),
        (["--iou-threshold", "7"], 2, "iou threshold"),
    ],
)
def test_a_bad_call_is_one_clear_line(inputs: list[str | Path], options: list[str], code: int, words: str) -> None:
    result = run(*inputs, *options)
    assert result.returncode == code
    (line,) = result.stderr.splitlines()
    assert line.startswith("xdet: error: ")
    assert words in line
    assert result.stdout == ""
