"""What nobody states about a model is told by every command that takes a default for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.xdet.command import run_xdet

if TYPE_CHECKING:
    import subprocess

NOTES = ["note: class names class_0 are assumed", "note: resize nearest is assumed"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    result = run_xdet(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def notes(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.partition(",")[0] for line in result.stderr.splitlines() if line.startswith("note: ")]


@pytest.fixture(scope="module")
def source(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded detector, of which only the anchors are stated."""
    sidecar = json.loads(embedded_tflite.with_name(f"{embedded_tflite.stem}.xdet.json").read_text("utf-8"))
    folder = tmp_path_factory.mktemp("assumed")
    kept = {key: sidecar[key] for key in ("anchors", "anchor_unit")}
    (folder / "bare.xdet.json").write_text(json.dumps(kept), "utf-8")
    return Path(shutil.copy(embedded_tflite, folder / "bare.tflite"))


def test_convert_detect_and_inspect_tell_what_they_assume(source: Path, sample_pictures: list[Path]) -> None:
    converted = source.with_suffix(".onnx")
    assert notes(run("convert", source, "-o", converted)) == NOTES
    for model in (source, converted):
        assert notes(run("detect", model, sample_pictures[0], "--json", "-")) == NOTES
        shown = run("inspect", model).stdout.splitlines()
        assert [line.split(maxsplit=1)[1] for line in shown if line.startswith(("Resize", "Classes"))] == [
            "nearest  (assumed: nobody states it)",
            "class_0  (assumed: nobody states it)",
        ]
        assert json.loads(run("inspect", model, "--json", "-").stdout)["spec"]["assumed"] == ["class_names", "resize"]


def test_what_is_stated_needs_no_note(embedded_tflite: Path, sample_pictures: list[Path]) -> None:
    assert notes(run("detect", embedded_tflite, sample_pictures[0], "--json", "-")) == []
    assert "assumed" not in run("inspect", embedded_tflite).stdout
