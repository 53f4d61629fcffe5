"""Columns of other processors: judged with the check, shown in its text, JSON and page."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from tests.xdet.checking.columns import SEGFAULT, breaking_haswell, crashing_nehalem, put
from tests.xdet.checking.pages import HOSTILE, WHERE, read, section
from xdet.checking.page import check_to_html
from xdet.checking.report import check_text, check_to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


def test_without_columns_nothing_is_said_of_other_processors(checked: CheckResult, sample_pictures: list[Path]) -> None:
    assert checked.other_cpus == ()
    assert json.loads(check_to_json(checked))["other_cpus"] == []
    assert "processors" not in check_text(checked)
    page = check_to_html(checked, sample_pictures[:1], WHERE)
    assert "<h2>Other processors</h2>" not in page
    assert "golden vector" not in page


def test_the_page_shows_every_processor_with_the_numbers_of_the_json(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    result = with_columns(columns)
    page = check_to_html(result, sample_pictures[:1], WHERE)
    seen = read(section(page, "Other processors"))
    selftest = (
        "self-test exact: 0 of 1,470 head values differ; without session.x64quantprecision = 1: "
        "882 of 1,470 head values differ, by up to 11 LSB"
    )
    assert seen.text.count(selftest) == 2
    parts = "check of 1 photograph: static passed, exact passed, spread passed, head passed"
    assert seen.text.count(parts) == 2
    assert "passed Haswell (emulated)" in seen.text
    numbers = [json.loads(value) for value in seen.numbers]
    keys = ("differing", "max_steps", "mean_steps")
    found = json.loads(check_to_json(result))["other_cpus"]
    expected = [entry["check"]["changes"] for entry in found]
    for entry in found:
        for run in entry["check"]["runs"]:
            expected += [run["nearest"][key] for key in keys]
            expected += [] if run["must_be_exact"] else [entry["check"]["allowed_max"]]
    assert numbers == expected
    assert numbers[2:5] == [0, 0.0, 0.0]
    assert "which is the same on every processor" in read(section(page, "What the numbers mean")).text


def test_the_text_tells_each_processor_in_a_few_lines(
    columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    lines = check_text(with_columns(columns)).splitlines()
    start = lines.index("Other processors:")
    assert lines[start + 1] == "PASSED     Haswell (emulated)"
    assert lines[start + 2].startswith("           self-test exact: 0 of 1,470 head values differ; without ")
    assert lines[start + 4] == "           instruction sets: X86_V2"
    assert lines[start + 5] == "PASSED     Nehalem (emulated)"
    assert lines[start + 11].split() == [
        *("Haswell", "onnxruntime:cpu", "litert:xnnpack", "0", "0", "0", "exact", "follow", "(9/9)")
    ]
    assert lines[-1] == "PASSED"


def test_a_processor_that_failed_fails_the_check(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    result = with_columns(crashing_nehalem(breaking_haswell(columns)))
    assert [cpu.status for cpu in result.other_cpus] == ["failed", "incomplete"]
    assert not result.passed
    assert not result.complete
    text = check_text(result)
    assert "self-test broken: 882 of 1,470 head values differ, by up to 11 LSB" in text
    assert "exact: layer: 866 values differ" in text
    assert f"the check gave no result: {SEGFAULT}" in text
    assert text.endswith("FAILED: on Haswell (docs/check.md tells what to do)")
    document = json.loads(check_to_json(result))
    assert (document["passed"], document["complete"]) == (False, False)
    assert [cpu["status"] for cpu in document["other_cpus"]] == ["failed", "incomplete"]
    page = check_to_html(result, sample_pictures[:1], WHERE)
    assert "<p class='verdict failed'>FAILED: on Haswell" in page
    assert section(page, "Other processors").count("class='part failed'") == 1


@pytest.mark.parametrize(
    ("member", "value"),
    [
        pytest.param("1.check_problem", SEGFAULT, id="the check crashed"),
        pytest.param("1.selftest_problem", SEGFAULT, id="the self-test crashed"),
        pytest.param(
            "1.check.missing",
            [{"name": "openvino:cpu", "reason": "SIGILL", "asked": False, "crashed": True}],
            id="a runtime crashed",
        ),
    ],
)
def test_a_processor_without_a_result_leaves_the_check_incomplete(
    member: str, value: Any, columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    put(columns, member, value)
    result = with_columns(columns)
    assert [cpu.status for cpu in result.other_cpus] == ["passed", "incomplete"]
    assert result.passed
    assert not result.complete
    assert check_text(result).endswith("INCOMPLETE, nothing failed (not everything ran on Nehalem)")


def test_an_infinite_distance_of_another_processor_is_null_in_json(
    columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    put(columns, "0.selftest.plain.worst_lsb", math.inf)
    result = with_columns(columns)
    selftest = result.other_cpus[0].selftest
    assert selftest is not None
    assert selftest.plain is not None
    assert math.isinf(selftest.plain.worst_lsb)
    assert json.loads(check_to_json(result))["other_cpus"][0]["selftest"]["plain"]["worst_lsb"] is None


def test_texts_of_the_columns_are_never_markup_nor_terminal_codes(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    breaking_haswell(columns)
    for member in ("cpu", "simd.0", "selftest.exact_kernels", "check.parts.1.findings.0.message"):
        put(columns, f"0.{member}", HOSTILE)
    for member in ("runs.0.name", "runs.0.nearest.second", "versions.onnxruntime"):
        put(columns, f"0.check.{member}", HOSTILE)
    put(columns, "1.selftest", None)
    put(columns, "1.selftest_problem", HOSTILE)
    result = with_columns(columns)
    page = check_to_html(result, sample_pictures[:1], WHERE)
    assert not any(tag == "script" for tag, _ in read(page).tags)
    assert "<script" not in page
    assert "\x1b" not in page + check_text(result)
    assert section(page, "Other processors").count("alert(1)") >= 8


def test_another_version_of_a_package_is_told_beside_the_one_here(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    put(columns, "0.check.versions.onnxruntime", "1.20.0")
    result = with_columns(columns)
    content = section(check_to_html(result, sample_pictures[:1], WHERE), "Other processors")
    assert content.count(f"onnxruntime 1.20.0 (here {result.versions['onnxruntime']})") == 1
