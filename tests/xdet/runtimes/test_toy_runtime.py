"""A new runtime is one module and one row: all that lists, opens, checks and times runtimes takes it from there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import xdet
from tests.xdet.finished_models import finished_model, red_image
from xdet.bench.run import plan_cases
from xdet.checking import runtimes
from xdet.detection.embedded import target_for
from xdet.errors import RuntimeUnavailableError, UsageError
from xdet.model.file import ModelFile
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, RuntimeRow, has_rule, open_model, runtimes_for

if TYPE_CHECKING:
    from pathlib import Path

ROW = RuntimeRow(
    module="tests.xdet.runtimes.toy_runtime",
    package="numpy",
    only=("wood",),
    trusted=("wood",),
    feeds_thresholds=False,
    suppresses_at_equality=("wood",),
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "toy", ROW)


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    path = tmp_path / "m.onnx"
    path.write_bytes(finished_model())
    return ModelFile(path, path.read_bytes(), "onnx")


def test_it_is_listed_opened_and_refuses_what_its_row_excludes(model: ModelFile) -> None:
    assert "toy:wood" in runtimes_for("onnx")
    with open_model(model, RuntimeChoices("toy")) as runtime:
        assert (runtime.name, runtime.capabilities.thresholds) == ("toy:wood", False)
        assert runtime.detect(red_image(200, 0, 0, 0), runtime.spec.thresholds).num_detections.tolist() == [1]
        with pytest.raises(UsageError, match="IoU threshold frozen"):
            runtime.detect(red_image(200, 0, 0, 0), replace(runtime.spec.thresholds, iou=0.123))
    with pytest.raises(RuntimeUnavailableError, match=r"'stone' is not available for .* runs on toy: it has wood;"):
        open_model(model, RuntimeChoices("toy", "stone"))
    with pytest.raises(UsageError, match="runs on toy: options and devices"):
        open_model(model, RuntimeChoices("toy", device="gpu"))


def test_it_is_timed_and_its_documented_rule_is_known(embedded_tflite: Path, tmp_path: Path) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    (case,) = plan_cases([tmp_path / "m.onnx"], "toy", [1])
    assert (case.choices.runtime, case.choices.provider) == ("toy", "wood")
    assert has_rule("toy:wood (device=left)", "suppresses_at_equality")
    assert not has_rule("toy:stone", "suppresses_at_equality")


def test_its_row_says_whose_graphs_it_runs_fastest(
    embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert target_for(RuntimeChoices("toy")) == "portable"
    monkeypatch.setitem(RUNTIMES, "toy", replace(ROW, target="cpu"))
    assert target_for(RuntimeChoices("toy")) == target_for(RuntimeChoices("onnxruntime"))
    cases = plan_cases([embedded_tflite], None, [1], targets=["cpu"], folder=tmp_path)
    assert [case.choices.runtime for case in cases if case.graph == "cpu"] == ["onnxruntime", "toy"]


def test_a_check_runs_it_with_its_limit_of_images_and_copies_for_its_thresholds(
    embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    monkeypatch.setitem(RUNTIMES, "toy", replace(ROW, most_images=1))
    images = list(np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8))
    result = xdet.check(
        tmp_path / "m.onnx", embedded_tflite, images, runtimes="toy,onnxruntime,litert:xnnpack,litert:builtin"
    )
    lines = {line.name: line for line in result.runs}
    assert {name: line.images for name, line in lines.items()} == {"toy:wood": 1, "onnxruntime:cpu": 2}
    assert lines["toy:wood"].head_equal


def test_a_check_names_it_where_it_could_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "toy", replace(ROW, most_images=3))
    told = {one.name: one.reason for one in runtimes.suggest_runtimes([])}
    assert told["toy:wood"] == "name it in --runtimes (slow: 3 images)"
    monkeypatch.setitem(RUNTIMES, "toy", replace(ROW, package="no_such_package", extra="toy", checked=("wood",)))
    told = {one.name: one.reason for one in runtimes.suggest_runtimes([])}
    assert told["toy:wood"] == 'pip install "xdet[toy]"'
    asked, _ = runtimes.split_runtimes(None, "tflite", None)
    assert "toy:wood" not in [one.name for one in asked]
