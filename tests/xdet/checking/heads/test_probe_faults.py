"""Faults of a decoder that no photograph shows: a black picture is enough, because crafted heads ask for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import st_yolo_lc
from tests.xdet.checking import faults
from xdet.checking.check import check
from xdet.runtimes.table import has_rule

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.checking.result import CheckResult, Finding

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
BLACK = np.zeros((1, 32, 32, 3), np.uint8)
RUNTIMES = "onnxruntime:cpu,litert:xnnpack"
PAIR, TIES, CLASSES, ROWS, SCORES = (
    *("overlapping pair", "equal scores", "classes in one place"),
    *("more boxes than rows", "scores at the threshold"),
)


@pytest.fixture(scope="module")
def one_class(person_model: bytes, embedded_tflite: Path) -> tuple[Path, bytes]:
    return embedded_tflite, person_model


@pytest.fixture(scope="module")
def five_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """30 channels are 3 anchors with 5 classes each."""
    source = tmp_path_factory.mktemp("five") / "lc.tflite"
    source.write_bytes(st_yolo_lc(96))
    options = SourceOptions(anchors=((0.5, 0.7), (1.5, 1.7), (3, 4)), anchor_unit="cell", class_names=tuple("abcde"))
    return source, convert_to_bytes(source, ConvertOptions(source=options)).model


def checked(pair: tuple[Path, bytes], edit: faults.Edit, folder: Path, runtimes: str = RUNTIMES) -> CheckResult:
    model = folder / "planted.onnx"
    model.write_bytes(faults.planted(pair[1], edit))
    return check(model, pair[0], list(BLACK), runtimes=runtimes)


def probes_of(finding: Finding) -> list[str]:
    """The probes that a finding names as not followed."""
    named = re.search(r"\d+ of \d+ probes \(([^)]*)\)", finding.message)
    return [] if named is None else re.findall(r"'([^']+)'", named[1])


@pytest.mark.parametrize(
    ("edit", "cause", "probes"),
    [
        pytest.param(
            faults.suppression_at_equality, "iou-rule", [PAIR, "picture edges", "highest values"], id="IoU >= for >"
        ),
        pytest.param(faults.scores_at_equality, "rows", [SCORES], id="score >= for >"),
        pytest.param(
            faults.ties_in_reverse, "rows", [TIES, ROWS, SCORES, "smallest boxes", "highest values"], id="ties reversed"
        ),
        pytest.param(faults.worse_box_suppresses, "rows", [TIES, "highest values"], id="NMS ties reversed"),
        pytest.param(faults.one_row_less, "rows", [TIES, ROWS, "highest values"], id="limit off by one"),
    ],
)
def test_a_fault_of_the_decoder_is_found_on_a_black_picture(
    edit: faults.Edit, cause: str, probes: list[str], one_class: tuple[Path, bytes], tmp_path: Path
) -> None:
    result = checked(one_class, edit, tmp_path)
    (finding,) = result.findings
    assert (finding.part, finding.cause, finding.runtime) == ("head", cause, "onnxruntime:cpu")
    assert set(probes_of(finding)) == set(probes)
    assert [(run.probes, run.probes_followed) for run in result.runs] == [(9, 9 - len(probes))]


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        pytest.param(faults.anchors_of_the_graph_in_another_unit, "anchor-unit", id="anchors"),
        pytest.param(faults.wires_exchanged, "thresholds-swapped", id="thresholds"),
    ],
)
def test_a_mistake_in_the_numbers_is_named_by_probes_and_photograph_together(
    edit: faults.Edit, cause: str, one_class: tuple[Path, bytes], tmp_path: Path
) -> None:
    (finding,) = checked(one_class, edit, tmp_path).findings
    assert finding.cause == cause
    assert PAIR in probes_of(finding) or TIES in probes_of(finding)
    assert "; 1 of 1 heads, first: image 1, score > 0.001" in finding.message


def test_boxes_that_leave_the_picture_are_a_fault_of_the_head_though_no_run_may_use_them(
    one_class: tuple[Path, bytes], tmp_path: Path
) -> None:
    result = checked(one_class, faults.boxes_unclipped, tmp_path)
    (finding,) = result.findings
    assert (finding.part, finding.cause, finding.runtime) == ("head", "rows", "onnxruntime:cpu")
    assert "output 'detection_boxes' holds" in finding.message
    assert not result.passed


@pytest.mark.parametrize(
    ("edit", "probe"),
    [
        pytest.param(faults.only_the_best_class, CLASSES, id="only the best class"),
        pytest.param(faults.classes_reversed, CLASSES, id="classes reversed"),
        pytest.param(faults.one_row_less, ROWS, id="limit off by one"),
        pytest.param(faults.worse_box_suppresses, TIES, id="NMS ties reversed"),
    ],
)
def test_a_fault_among_several_classes_is_found(
    edit: faults.Edit, probe: str, five_classes: tuple[Path, bytes], tmp_path: Path
) -> None:
    (finding,) = checked(five_classes, edit, tmp_path).findings
    assert (finding.part, finding.cause) == ("head", "rows")
    assert probe in probes_of(finding)


def nothing(_: object) -> None:
    """No fault."""


def test_an_honest_detector_of_five_classes_follows_every_probe(
    five_classes: tuple[Path, bytes], tmp_path: Path
) -> None:
    runtimes = f"{RUNTIMES},onnxruntime-unfused:cpu,onnx-reference"
    result = checked(five_classes, nothing, tmp_path, runtimes)
    assert result.findings == ()
    assert [(run.name, run.probes, run.probes_followed) for run in result.runs] == [
        ("onnxruntime:cpu", 10, 10),
        ("onnxruntime-unfused:cpu", 10, 10),
        ("onnx-reference:numpy", 10, 10),
    ]
    assert result.parts[3].summary.endswith("for their own heads; 10 probes put to 3 of them")


def test_openvino_shows_its_rule_at_equality_and_mistakes_beside_it_are_still_named(
    one_class: tuple[Path, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason='needs pip install "xdet[openvino]"')
    runtimes = "openvino:cpu,litert:xnnpack"
    honest = checked(one_class, nothing, tmp_path, runtimes)
    assert honest.findings == ()
    assert has_rule(honest.runs[0].name, "suppresses_at_equality")
    assert honest.runs[0].notes == ("suppresses at IoU equal to the threshold (docs/contract.md)",)
    assert honest.runs[0].probes_followed == 9
    for edit, cause in (
        (faults.anchors_of_the_graph_in_another_unit, "anchor-unit"),
        (faults.wires_exchanged, "thresholds-swapped"),
    ):
        assert [f.cause for f in checked(one_class, edit, tmp_path, runtimes).findings] == [cause]
