"""Results of ``xdet detect`` in place of a model: the same precision, and refused where they are not comparable."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xdet.detection.batch import detect_to_file
from xdet.detection.detector import Detector
from xdet.detection.parquet import open_results
from xdet.detection.results import results_header
from xdet.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.xdet.labelled_scenes import Scene


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
