"""``xdet check --layers`` and ``--report``: what they add to a verdict, and where they are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest

from tests.xdet.checking import faults
from tests.xdet.command import run_xdet
from xdet.checking import blame
from xdet.checking.check import check
from xdet.checking.report import check_text, check_to_json, placement_text
from xdet.checking.runtimes import place_here, place_in_subprocess, placement_of
from xdet.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"
MACS = 773_864_448  # of the embedded detector; docs/inspect.md


@pytest.fixture
def model(person_model: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "person.onnx"
    path.write_bytes(person_model)
    return path


def with_layers(model: Path, source: Path, pictures: list[Path]) -> CheckResult:
    return check(model, source, pictures[:1], runtimes=RUNTIMES, layers=True)


def test_an_honest_model_has_equal_layers_and_runs_on_integers_alone(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    result = with_layers(model, embedded_tflite, sample_pictures)
    assert result.passed
    assert result.complete
    assert result.layers is not None
    assert result.layers.first_fault is None
    assert {layer.accumulated.worst for layer in result.layers.layers} == {0}
    (coverage,) = result.coverage
    assert (coverage.provider, coverage.macs_total, coverage.macs_integer) == ("cpu", MACS, MACS)
    nodes = len(onnx.load_model_from_string(model.read_bytes()).graph.node)
    (placement,) = result.placement
    assert placement.nodes is not None
    assert set(placement.nodes) == {"cpu"}
    assert abs(placement.nodes["cpu"] - nodes) <= 0.1 * nodes  # some are folded or doubled before they are placed
    text = check_text(result)
    assert f"onnxruntime:cpu: nodes on cpu: {placement.nodes['cpu']}" in text
    assert f"{len(result.layers.layers)} layers compared, none at fault; the fused run has the same head" in text
    assert "onnxruntime:cpu runs 100.0 % of 774 M MACs on integers" in text
    assert json.loads(check_to_json(result))["layers"]["first_fault"] is None


def test_the_first_layer_at_fault_is_a_finding_of_the_static_part(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    model.write_bytes(faults.planted(model.read_bytes(), faults.zero_point_off_by_one))
    result = with_layers(model, embedded_tflite, sample_pictures)
    found = [f for f in result.parts[0].findings if f.cause == "layer"]
    assert [(f.part, f.layer) for f in found] == [("static", faults.CONV3)]
    assert found[0].message.startswith(f"CONV_2D '{faults.CONV3}' is the first layer at fault: from the source's own")
    assert found[0].message.endswith("allowed are 0")
    assert json.loads(check_to_json(result))["layers"]["first_fault"] == faults.CONV3
    assert f"the first at fault is '{faults.CONV3}'" in check_text(result)


def test_a_float_convolution_is_missing_from_the_integer_coverage_with_its_reason(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    model.write_bytes(faults.planted(model.read_bytes(), faults.float_convolution))
    result = with_layers(model, embedded_tflite, sample_pictures)
    (coverage,) = result.coverage
    assert [miss.node for miss in coverage.misses] == [f"{faults.CONV3}/float"]
    assert coverage.macs_integer is not None
    assert 0 < coverage.macs_integer < MACS
    assert f"in float: {faults.CONV3}/float: its weights 'folded' are float" in check_text(result)


def test_layers_that_cannot_be_compared_hide_nothing_else(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pair: OpenedPair, *_: object) -> None:
        raise ModelError(f"'{pair.source.file}' is no TFLite file")

    monkeypatch.setattr(blame, "compare_layers", refuse)
    result = with_layers(model, embedded_tflite, sample_pictures)
    assert result.passed
    assert not result.complete
    assert result.layers is None
    assert [run.name for run in result.runs] == ["onnxruntime:cpu"]
    text = check_text(result)
    assert f"layers were not compared: '{embedded_tflite.name}' is no TFLite file" in text
    assert text.endswith("INCOMPLETE, nothing failed (not compared: spread; layers were not compared)")


def test_a_process_of_its_own_places_nodes_as_this_one_does(person_model: bytes) -> None:
    placed = place_here(person_model, "cpu")
    assert placed is not None
    assert set(placed) == {"cpu"}
    assert place_in_subprocess(person_model, "cpu") == placed


def test_the_operators_that_a_provider_leaves_to_the_cpu_are_named() -> None:
    placed = {"warp": {"Conv": 9, "Add": 1}, "cpu": {"TopK": 2, "NonMaxSuppression": 1}}
    found = placement_of(placed, "warp")
    assert (found.runtime, found.nodes) == ("onnxruntime:warp", {"warp": 10, "cpu": 3})
    assert placement_text(found) == ("nodes on warp: 10, cpu: 3; fell back to the CPU: 1 NonMaxSuppression, 2 TopK")


def test_the_command_tells_where_a_models_nodes_run(model: Path, embedded_tflite: Path) -> None:
    done = run_xdet("providers", model.name, folder=model.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cpu: nodes on cpu: 1")
    refused = run_xdet("providers", embedded_tflite, folder=model.parent)
    assert refused.returncode == 3
    assert "is no ONNX file; convert it with xdet convert" in refused.stderr


def test_a_model_that_cannot_be_loaded_has_no_placement(person_model: bytes) -> None:
    assert place_here(person_model[:-100], "cpu") is None
    assert place_in_subprocess(person_model, "no-such-provider") is None


def test_the_command_writes_a_page_with_the_command_that_repeats_it(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    arguments = ("check", model.name, "--source", embedded_tflite, "--images", sample_pictures[0])
    options = ("--runtimes", RUNTIMES, "--layers", "--report", "a page.html")
    done = run_xdet(*arguments, *options, folder=model.parent)
    assert done.returncode == 0, done.stderr
    assert "layers compared, none at fault" in done.stdout
    page = (model.parent / "a page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert f"--runtimes {RUNTIMES} --layers --report &#x27;a page.html&#x27;</pre>" in page


def test_a_page_that_cannot_be_written_is_refused_before_any_work(model: Path, embedded_tflite: Path) -> None:
    done = run_xdet(
        *("check", model, "--source", embedded_tflite, "--images", "no-such-folder", "--report", "none/page.html"),
        folder=model.parent,
    )
    assert done.returncode == 3
    assert "cannot write 'none/page.html'" in done.stderr


@pytest.mark.parametrize("option", ["--report", "--repro"])
def test_what_is_checked_is_never_replaced(
    option: str, model: Path, embedded_tflite: Path, person_model: bytes
) -> None:
    done = run_xdet(
        *("check", model.name, "--source", embedded_tflite, "--images", "no-such-folder", option, "./person.onnx"),
        folder=model.parent,
    )
    assert done.returncode == 2
    assert "'person.onnx' is a file that this command reads" in done.stderr
    assert model.read_bytes() == person_model
