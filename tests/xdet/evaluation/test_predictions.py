"""Predictions of an earlier run and results of ``xdet detect``: which files are taken, and what they give."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xdet.detection.batch import detect_to_file
from xdet.detection.detector import Detector
from xdet.detection.parquet import open_results
from xdet.detection.results import results_header
from xdet.errors import DataError, OutputError, UsageError
from xdet.evaluation.predictions import HEADER, KeptPredictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.xdet.labelled_scenes import Scene

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


def detected(
    model: Path, images: Sequence[Path], target: Path, *, score: float = 0.001, classes: list[str] | None = None
) -> Path:
    with (
        Detector(model, threads=1, score_threshold=score, iou_threshold=0.5) as detector,
        open_results(target, results_header(detector, classes)) as results,
    ):
        detect_to_file(detector, images, results, classes=classes)
    return target


def photographs(scene: Scene) -> list[Path]:
    return sorted(path for path in scene.folder.iterdir() if path.suffix in {".png", ".jpg", ".ppm", ".bmp"})


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_precision_is_the_models_own_wherever_the_photographs_were(
    scene: Scene, model: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "xdet[parquet]"')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [Path(shutil.copy(path, elsewhere / f"other-{path.name}")) for path in photographs(scene)]
    found = scene.measure([detected(model, moved, tmp_path / f"found{suffix}"), model])
    own, others = found.results
    assert own.score.metrics == others.score.metrics
    assert own.score.metrics["AP50"] == pytest.approx(51 / 101, abs=1e-15)
    assert own.file.endswith("(identity.onnx)")
    assert not found.problems


def test_a_photograph_without_a_result_is_told(scene: Scene, model: Path, tmp_path: Path) -> None:
    found = scene.measure(detected(model, photographs(scene)[:1], tmp_path / "found.jsonl"))
    assert found.ignored == {"unreadable_images": 1}
    assert "not among the results" in found.problems[0].message


def test_results_that_cannot_be_compared_are_refused(scene: Scene, model: Path, tmp_path: Path) -> None:
    images = photographs(scene)
    with pytest.raises(UsageError, match=r"made with score 0\.4, not 0\.001; detect with `score_threshold`"):
        scene.measure(detected(model, images, tmp_path / "high.jsonl", score=0.4))
    with pytest.raises(UsageError, match="some classes alone"):
        scene.measure(detected(model, images, tmp_path / "one.jsonl", classes=["person"]))
    with pytest.raises(UsageError, match="--protocol coco"):
        scene.measure(detected(model, images, tmp_path / "zoo.jsonl"), protocol="zoo-4")


@pytest.mark.parametrize("data", [b"", b"{}\n", b"[" * 100_000, b'{"schema": "xdet.detection_lines"}\n{"image": 3}\n'])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_of_another_kind_is_one_line(scene: Scene, tmp_path: Path, data: bytes, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "xdet[parquet]"')
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"results file of xdet detect|Parquet file of xdet detect"):
        scene.measure(path)
