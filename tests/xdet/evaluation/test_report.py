"""An evaluation told to people and programs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.heads import yolo_v2
from tests.xdet.finished_models import SPEC
from tests.xdet.labelled_scenes import ELSEWHERE_XYWH_PX, FOUND_XYWH_PX, Scene, write_model
from xdet.errors import MissingExtraError, OutputError
from xdet.evaluation.dataset import Problem
from xdet.evaluation.evaluate import Comparison, Evaluation, evaluate
from xdet.evaluation.report import (
    comparison_blocks,
    difference_text,
    evaluation_report,
    evaluation_to_json,
    problem_lines,
    save_precision_plot,
)
from xdet.evaluation.scoring import Difference
from xdet.writing.terminal import block_text, report_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """Two models (the same detector twice); one person found of two, one crowd, one annotation that is wrong."""
    scene = Scene(tmp_path)
    scene.add(255, truths=[FOUND_XYWH_PX], crowds=[[0, 60, 40, 30]])
    scene.add(0, 128, truths=[ELSEWHERE_XYWH_PX, [0, 0, -1, 4]])
    models = [write_model(tmp_path / "a.onnx"), write_model(tmp_path / "b.onnx")]
    return evaluate(models, tmp_path, scene.write(), max_detections=4, threads=1)


def test_the_text_says_what_was_measured_and_what_was_left_out(evaluation: Evaluation) -> None:
    text = report_text(evaluation_report(evaluation)).splitlines()
    assert text[:7] == [
        "Protocol coco: score > 0.001, NMS IoU > 0.5, at most 4 detections, crowds: ignore",
        "annotations.json: 2 images, 2 ground truths, 1 crowd ignored; matched by name: person",
        "",
        "model   runtime            AP  AP50  AP75   AR1   AR4",
        "------  ---------------  ----  ----  ----  ----  ----",
        "a.onnx  onnxruntime:cpu  50.5  50.5  50.5  50.0  50.0",
        "b.onnx  onnxruntime:cpu  50.5  50.5  50.5  50.0  50.0",
    ]
    left_out = text.index("Left out:")
    assert text[left_out + 1] == "  1 annotations left out"
    assert text[left_out + 3].split() == [
        "time", "read", "resize", "network", "elapsed", "metric", "images/s", "resumed",
    ]  # fmt: skip
    assert len(text) == left_out + 7


def test_the_json_holds_everything_but_times_and_folders(evaluation: Evaluation, tmp_path: Path) -> None:
    text = evaluation_to_json(replace(evaluation, problems=()))
    assert str(tmp_path) not in text
    assert "seconds" not in text
    document = json.loads(text)
    assert list(document) == [
        "schema", "version", "protocol", "metrics", "options", "dataset", "models", "comparisons", "ignored",
        "problems",
    ]  # fmt: skip
    assert (document["schema"], document["version"], document["protocol"]) == ("xdet.evaluation", 1, "coco")
    assert document["metrics"]["AP50"] == pytest.approx(51 / 101, abs=1e-15)
    assert document["metrics"]["AP_small"] is None
    assert document["options"] == {
        "crowd": "ignore",
        "max_gt": None,
        "truncate_input": False,
        "thresholds": {"score": 0.001, "iou": 0.5, "max_detections": 4},
        "eval_iou": None,
    }
    assert document["dataset"]["annotations"] == "annotations.json"
    assert (document["dataset"]["ground_truths"], document["dataset"]["crowds_ignored"]) == (2, 1)
    assert [model["name"] for model in document["models"]] == ["a.onnx", "b.onnx"]
    assert document["models"][1]["classes"]["person"].keys() == {"AP", "AP50"}
    assert document["models"][0]["sha256"] == evaluation.results[0].sha256
    assert document["comparisons"][1] == {
        "model": "b.onnx",
        "reference": "a.onnx",
        "metric": "AP50",
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "seen": False,
    }
    assert document["ignored"] == {"bad_annotations": 1}


def test_equal_evaluations_give_equal_bytes(evaluation: Evaluation, tmp_path: Path) -> None:
    again = evaluate(
        [tmp_path / "a.onnx", tmp_path / "b.onnx"], tmp_path, tmp_path / "annotations.json", max_detections=4, workers=2
    )
    assert evaluation_to_json(again) == evaluation_to_json(evaluation)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Difference(-0.007, -0.011, -0.003), "loses 0.7 +- 0.4 points (-1.1 to -0.3)"),
        (Difference(0.02, 0.01, 0.04), "gains 2.0 +- 1.5 points (+1.0 to +4.0)"),
        (Difference(-0.007, -0.02, 0.001), "no difference seen (-2.0 to +0.1)"),
        (Difference(0.0, 0.0, 0.0), "equal"),
    ],
)
def test_a_difference_is_told_in_words(found: Difference, words: str) -> None:
    assert difference_text(found) == words


def test_further_models_are_compared_with_the_first(evaluation: Evaluation) -> None:
    other = Comparison(1, "AP50", Difference(-0.007, -0.011, -0.003))
    told = comparison_blocks(replace(evaluation, comparisons=(evaluation.comparisons[0], other)))
    assert "\n".join(map(block_text, told)).splitlines() == [
        "Against a.onnx, with the 95 % interval of 1000 draws of the photographs:",
        "model   AP     AP50",
        "------  -----  --------------------------------------",
        "b.onnx  equal  loses 0.7 +- 0.4 points (-1.1 to -0.3)",
    ]


def test_several_classes_have_a_table_of_their_own(tmp_path: Path) -> None:
    scene = Scene(tmp_path, categories=[{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}])
    scene.add(255, truths=[FOUND_XYWH_PX, ELSEWHERE_XYWH_PX])
    scene.annotations[1]["category_id"] = 2
    two = replace(SPEC, head=replace(yolo_v2(SPEC), num_classes=2), class_names=("person", "dog"))
    found = evaluate(write_model(tmp_path / "m.onnx", spec=two), tmp_path, scene.write(), max_detections=4)
    told = report_text(evaluation_report(found)).splitlines()
    start = told.index("model   class      AP   AP50")
    assert told[start + 1 : start + 4] == [
        "------  ------  -----  -----",
        "m.onnx  person  100.0  100.0",
        "m.onnx  dog       0.0    0.0",
    ]
    assert found.results[0].score.metrics["AP50"] == pytest.approx(0.5, abs=1e-15)


def test_a_file_that_runs_twice_is_told_apart_by_its_runtime(evaluation: Evaluation) -> None:
    first, second = evaluation.results
    twice = replace(evaluation, results=(first, replace(second, file=first.file, runtime="onnxruntime:openvino")))
    assert [model["name"] for model in json.loads(evaluation_to_json(twice))["models"]] == [
        "a.onnx (onnxruntime:cpu)",
        "a.onnx (onnxruntime:openvino)",
    ]


def test_of_many_problems_the_first_ten_of_each_kind_are_shown() -> None:
    problems = [Problem("missing_images", f"m{i}") for i in range(13)]
    lines = problem_lines([*problems, Problem("bad_images", "b")])
    assert lines == ["b", *(f"m{i}" for i in range(10)), "... and 3 more images without a file; --json lists all"]


def test_the_plot_is_a_png_and_the_same_every_time(evaluation: Evaluation, tmp_path: Path) -> None:
    first, second = evaluation.results
    nowhere = replace(second, score=replace(second.score, precision=np.full(101, np.nan)))
    for name in ("1.png", "2.png"):
        save_precision_plot(tmp_path / name, replace(evaluation, results=(first, nowhere)))
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    with Image.open(tmp_path / "1.png") as plot:
        assert (plot.format, plot.size) == ("PNG", (960, 720))
        colours = {colour for _, colour in plot.convert("RGB").getcolors(1 << 20) or []}
    assert (31, 119, 180) in colours  # matplotlib's first line colour


def test_a_plot_that_cannot_be_written_is_an_output_error(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        save_precision_plot(tmp_path / "nowhere" / "p.png", evaluation)


def test_a_plot_without_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, evaluation: Evaluation, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[eval\]"'):
        save_precision_plot(tmp_path / "p.png", evaluation)
