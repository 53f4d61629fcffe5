"""Reading columns of other processors: strictly, with the place of what is wrong, and never another model's."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.xdet.checking.columns import put
from tests.xdet.checking.test_page import WHERE
from xdet.checking.other_cpus import read_other_cpus
from xdet.checking.page import check_to_html
from xdet.checking.report import check_text, check_to_json
from xdet.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


def test_a_column_holds_what_the_selftest_and_the_check_said_there(
    columns: dict[str, Any], checked: CheckResult, with_columns: Callable[[dict[str, Any]], CheckResult]
) -> None:
    haswell, nehalem = with_columns(columns).other_cpus
    assert (haswell.cpu, nehalem.cpu) == ("Haswell", "Nehalem")
    assert (haswell.emulated, haswell.simd, haswell.status) == (True, ("X86_V2",), "passed")
    assert haswell.selftest is not None
    assert haswell.selftest.verdict == "exact"
    assert (haswell.selftest.agreement.differing, haswell.selftest.agreement.compared) == (0, 1470)
    assert haswell.selftest.plain is not None
    assert (haswell.selftest.plain.differing, haswell.selftest.plain.worst_lsb) == (882, 11.0)
    assert haswell.check is not None
    assert haswell.check.parts == checked.parts
    assert [(run.name, run.nearest) for run in haswell.check.runs] == [
        (run.name, run.nearest) for run in checked.runs
    ]
    assert haswell.check.images == checked.images
    assert (haswell.check.allowed_max, haswell.check.allowed_mean) == (
        checked.allowed_max,
        checked.allowed_mean,
    )


@pytest.mark.parametrize(
    "member",
    ["model", "columns.0.selftest.result.model", "columns.1.check.result.model"],
    ids=["file", "self-test", "check"],
)
def test_columns_of_another_model_are_refused(
    member: str,
    columns: dict[str, Any],
    with_columns: Callable[[dict[str, Any]], CheckResult],
    checked: CheckResult,
) -> None:
    put(columns, f"{member}.sha256", "ab" * 32)
    with pytest.raises(DataError) as caught:
        with_columns(columns)
    message = str(caught.value)
    assert f"has SHA-256 {'ab' * 32}, but the model that is checked has {checked.model_sha256}" in message
    assert "python examples/check_other_cpus.py MODEL.onnx --source SRC" in message


@pytest.mark.parametrize("member", ["source", "columns.0.check.result.source"], ids=["file", "check"])
def test_columns_of_another_source_are_refused(
    member: str, columns: dict[str, Any], with_columns: Callable[[dict[str, Any]], CheckResult]
) -> None:
    put(columns, f"{member}.sha256", "ab" * 32)
    with pytest.raises(DataError, match="these columns are another source's"):
        with_columns(columns)


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("schema", "xdet.check", 'schema is "xdet.check", expected "xdet.other-cpus"'),
        ("version", 2, "version is 2, expected 1, the version that this xdet reads"),
        ("version", True, "version is true, expected 1"),
        ("columns", [], "columns is [], expected at least one processor, and each once"),
        ("columns", {}, "columns is {}, expected a list"),
        ("columns.1.cpu", "Haswell", "expected at least one processor, and each once"),
        ("columns.0.cpu", "", 'columns[0].cpu is "", expected a text'),
        ("columns.0.emulated", 1, "columns[0].emulated is 1, expected true or false"),
        ("columns.0.simd", [7], "columns[0].simd[0] is 7, expected a text"),
        (
            "columns.0.selftest",
            {"error": ""},
            'columns[0].selftest.error is "", expected a text',
        ),
        (
            "columns.0.selftest.result.verdict",
            "fine",
            'verdict is "fine", expected one of exact, bounded, broken',
        ),
        (
            "columns.0.selftest.result.verdict",
            "broken",
            'verdict is "broken", expected what follows from 0 differing values',
        ),
        (
            "columns.0.selftest.result.plain.differing",
            1471,
            "differing is 1471, expected a count of at most 1470",
        ),
        ("columns.0.selftest.result.plain.worst_lsb", -1, "worst_lsb is -1, expected a distance"),
        ("columns.0.check.result.runs.0.nearest.max_steps", 10**400, "max_steps is 1000"),
        ("model.sha256", "\x1b[2J", 'model.sha256 is "\\u001b[2J", expected a SHA-256 in hex digits'),
        ("columns.0.check.result.versions", {"\x1b": 1}, "versions.\\x1b is 1, expected a text"),
        (
            "columns.0.check.result.passed",
            False,
            "check.result.passed is false, expected what follows from the parts",
        ),
        ("columns.0.check.result.version", 2, "check.result.version is 2, expected 1"),
        (
            "columns.0.check.result.parts.2.part",
            "exact",
            "expected the parts static, exact, spread, head",
        ),
        (
            "columns.0.check.result.parts.0.status",
            "green",
            'parts[0].status is "green", expected one of passed, failed, skipped',
        ),
        ("columns.0.check.result.runs.0.images", 1.5, "runs[0].images is 1.5, expected a count"),
        ("columns.0.check.result.runs.0.head_equal", "yes", 'head_equal is "yes", expected true or false'),
    ],
)
def test_a_member_that_is_wrong_is_named_with_its_place(
    member: str,
    value: Any,
    message: str,
    columns: dict[str, Any],
    with_columns: Callable[[dict[str, Any]], CheckResult],
) -> None:
    put(columns, member, value)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        with_columns(columns)
    assert re.match(r"'.*columns\.json': (schema|version|columns|model)", str(caught.value))


def test_a_column_that_holds_nothing_is_refused(
    columns: dict[str, Any], with_columns: Callable[[dict[str, Any]], CheckResult]
) -> None:
    columns["columns"][0] |= {"selftest": None, "check": None}
    with pytest.raises(DataError, match="expected a self-test or a check"):
        with_columns(columns)


def test_a_column_without_a_golden_vector_holds_the_check_alone(
    columns: dict[str, Any], with_columns: Callable[[dict[str, Any]], CheckResult]
) -> None:
    put(columns, "columns.0.selftest", None)
    cpu = with_columns(columns).other_cpus[0]
    assert (cpu.selftest, cpu.selftest_problem, cpu.status) == (None, None, "passed")
    assert cpu.check is not None


def test_a_missing_member_is_named(
    columns: dict[str, Any], with_columns: Callable[[dict[str, Any]], CheckResult]
) -> None:
    del columns["columns"][1]["check"]["result"]["runs"]
    with pytest.raises(DataError, match=r"has no columns\[1\]\.check\.result\.runs; make it again"):
        with_columns(columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[" * 100_000, "is no JSON: maximum recursion depth"),
        ('{"schema": NaN}', "is no JSON: NaN is no number of JSON"),
        ('{"a": 1, "a": 2}', "is no JSON: repeated names: 'a'"),
        ("[]", "the document is [], expected an object"),
    ],
    ids=["half", "deep", "not a number", "repeated", "list"],
)
def test_a_file_that_is_no_such_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        read_other_cpus(path, model_sha256="", source_sha256="")
    assert message in str(caught.value)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*columns\.json': No such file"):
        read_other_cpus(tmp_path / "columns.json", model_sha256="", source_sha256="")


def members(document: Any, way: str = "") -> list[str]:
    """Every member's place."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for name, value in pairs:
        found.append(f"{way}{name}")
        if isinstance(value, dict | list):
            found += members(value, f"{way}{name}.")
    return found


ANYTHING = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    *(st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), max_size=2)),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_member_is_shown_or_refused_and_never_breaks_the_report(
    data: st.DataObject,
    sound: dict[str, Any],
    with_columns: Callable[[dict[str, Any]], CheckResult],
) -> None:
    document = copy.deepcopy(sound)
    del document["columns"][1]
    read_ones = [m for m in members(document) if ".proven" not in m and ".histogram" not in m]
    put(document, data.draw(st.sampled_from(read_ones)), data.draw(ANYTHING))
    try:
        result = with_columns(document)
    except DataError:
        return
    assert check_text(result)
    assert json.loads(check_to_json(result))["other_cpus"]
    assert "<h2>Other processors</h2>" in check_to_html(result, [], WHERE)
