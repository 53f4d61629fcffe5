"""A tolerance that is signed, and JUnit XML: what is tolerated is never called equal, and no gap is green."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.xdet.checking import faults
from tests.xdet.checking.reports import HOSTILE, RUNTIMES, WHERE
from xdet.checking.check import check
from xdet.checking.junit import JUNIT_MARK, check_to_junit
from xdet.checking.page import check_to_html
from xdet.checking.report import check_text, check_to_json
from xdet.checking.result import Finding, HeadDistance, KnownDeviation, MissingRuntime, PartVerdict, Tolerance
from xdet.checking.tolerance import judge_boxes, read_tolerance, tolerate_heads
from xdet.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


def exact_part(differing: int, most: float) -> tuple[PartVerdict, HeadDistance]:
    distance = HeadDistance("onnxruntime:cpu", "litert:xnnpack", differing, 100, most, most / 100)
    found = (Finding("exact", "layer", "differs", runtime="onnxruntime:cpu"),) if differing else ()
    return PartVerdict("exact", "failed" if found else "passed", "compared", found), distance


@pytest.fixture(scope="module")
def faulty(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> CheckResult:
    """A model with a planted slope, checked with a tolerance that covers its heads but not its file."""
    model = tmp_path_factory.mktemp("tolerance") / "person.onnx"
    model.write_bytes(faults.planted(person_onnx.read_bytes(), faults.slope_of_darknet))
    wide = Tolerance(head=1000, box=1000, score=1)
    return check(model, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES, tolerance=wide)


def test_words_become_limits() -> None:
    assert read_tolerance("head=2") == Tolerance(head=2)
    assert read_tolerance(" box=0.5, score = 0.01 ,head=0") == Tolerance(head=0, box=0.5, score=0.01)


@pytest.mark.parametrize("text", ["", "2", "head", "head=-1", "head=nan", "head=inf", "head=1,head=2", "boxes=1"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"names head, box, score, each once .* such as head=1,box=0\.5,score=0\.01; got"
    ):
        read_tolerance(text)


@pytest.mark.parametrize(
    ("most", "limit", "status"),
    [(2.0, 2.0, "tolerated"), (2.1, 2.0, "failed"), (2.0, None, "failed"), (0.0, 2.0, "passed")],
)
def test_a_head_within_the_limit_is_tolerated_and_never_passed(most: float, limit: float | None, status: str) -> None:
    part, distance = exact_part(int(most > 0), most)
    judged = tolerate_heads(part, [distance], Tolerance(head=limit, box=1))
    assert judged.status == status
    assert ("TOLERATED, not equal: onnxruntime:cpu by up to 2 (limit 2)" in judged.summary) == (status == "tolerated")
    assert bool(judged.findings) == (status == "failed")
    assert tolerate_heads(part, [distance], None) == part


@pytest.mark.parametrize(
    ("deviation", "status"),
    [((0.0, 0.0), "passed"), ((0.5, 0.01), "tolerated"), ((0.6, 0.0), "failed"), ((0.0, np.nan), "failed")],
)
def test_detections_beyond_the_limit_fail_part_head(deviation: tuple[float, float], status: str) -> None:
    found = [KnownDeviation("openvino:cpu", *deviation, image="a.jpg")]
    judged = judge_boxes(PartVerdict("head", "passed", "compared"), found, Tolerance(box=0.5, score=0.01))
    assert judged.status == status
    if status == "failed":
        assert judged.findings[0].cause == "tolerance"
        assert judged.findings[0].message.endswith("from the source's, furthest in 'a.jpg'")


def test_a_tolerance_excuses_heads_and_boxes_and_no_number_in_the_file(faulty: CheckResult) -> None:
    status = {part.part: part.status for part in faulty.parts}
    assert status == {"static": "failed", "exact": "tolerated", "spread": "tolerated", "head": "tolerated"}
    (deviation,) = (found for found in faulty.deviations if found.runtime == "onnxruntime:cpu")
    assert deviation.box > 0
    document = json.loads(check_to_json(faulty))
    assert document["tolerance"] == {"head": 1000, "box": 1000, "score": 1}
    assert document["deviations"][0]["box"] == deviation.box


def test_text_and_page_say_tolerated_and_not_passed(faulty: CheckResult, sample_pictures: list[Path]) -> None:
    static = replace(faulty.parts[0], status="passed", findings=())
    sound = replace(faulty, parts=(static, *faulty.parts[1:]))
    assert sound.passed
    text = check_text(sound)
    assert text.splitlines()[1] == (
        "TOLERANCE: 1000 LSB in each value of the head, 1000 px of the network's picture at each corner of a box, "
        "1 in each score"
    )
    assert text.splitlines()[-1].startswith("TOLERATED (within the tolerance, not equal: exact, spread, head")
    page = check_to_html(sound, sample_pictures[:1], WHERE)
    assert "<p class='verdict skipped'>TOLERATED" in page
    assert "stays within the tolerance below" in page


def test_without_a_tolerance_nothing_is_measured_or_excused(checked: CheckResult) -> None:
    assert (checked.tolerance, checked.deviations) == (None, ())
    assert "TOLERANCE" not in check_text(checked)


def test_junit_has_a_case_per_part_and_runtime_with_every_failure(faulty: CheckResult) -> None:
    text = check_to_junit(faulty)
    assert JUNIT_MARK.match(text.encode())
    assert check_to_junit(faulty) == text
    suites = ET.fromstring(text)  # noqa: S314 - written here
    (suite,) = suites
    cases = suite.findall("testcase")
    assert [case.get("name", "").split(":")[0] for case in cases[:4]] == ["static", "exact", "spread", "head"]
    assert (suite.get("tests"), suite.get("failures")) == (str(len(cases)), "1")
    failure = cases[0].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("slope: ")
    assert "-> a LeakyReLU was changed" in str(failure.text)
    assert "TOLERATED, not equal" in str(cases[1].findtext("system-out"))
    assert {case.get("name") for case in cases} >= {"onnxruntime:cpu"}


def test_in_junit_what_was_asked_for_without_a_result_is_an_error_and_what_cannot_be_compared_is_skipped(
    checked: CheckResult,
) -> None:
    gaps = (
        MissingRuntime("openvino:cpu", HOSTILE, asked=True),
        MissingRuntime("onnx-reference:numpy", "slow", asked=False),
    )
    spread = PartVerdict("spread", "skipped", "no yardstick")
    parts = tuple(spread if part.part == "spread" else part for part in checked.parts)
    result = replace(checked, parts=parts, missing=gaps, uncompared=("anchors",), layers_problem="\x00no")
    (suite,) = ET.fromstring(check_to_junit(result))  # noqa: S314 - written here
    told = {
        str(case.get("name")): (child.tag, child.get("message", ""))
        for case in suite.findall("testcase")
        for child in case
        if child.tag != "system-out"
    }
    assert told["openvino:cpu"][0] == told["layers"][0] == "error"
    assert "\\x1b" in told["openvino:cpu"][1]
    assert told["spread: no further than the source's kernels from each other"] == ("skipped", "no yardstick")
    assert told["anchors"][0] == "skipped"
    assert "onnx-reference:numpy" not in told
    assert (suite.get("errors"), suite.get("skipped")) == ("2", "2")
