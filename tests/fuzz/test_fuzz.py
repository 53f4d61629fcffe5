"""2,000 mutants of every surface: nothing crashes, hangs, takes a gigabyte or is called internal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.pool import make_case, run_case, run_surface
from tests.fuzz.surfaces import SURFACES

if TYPE_CHECKING:
    from pathlib import Path

CASES = 2000
BUDGETS_S = {
    "tflite": 100,
    "onnx": 40,
    "onnx-source": 60,
    "keras": 25,
    "sizes": 60,
    "ssd": 40,
    "metadata": 40,
}  # on two slow cores; what is not reached then is run by hand
BUDGET_S = 12
NEEDS = {
    "keras": ("h5py", "keras"),
    **dict.fromkeys(("tflite", "sizes", "ssd", "metadata"), ("ai_edge_litert", "litert")),
    **dict.fromkeys(("results", "detected"), ("pyarrow", "parquet")),
    "video": ("av", "video"),
}


@pytest.mark.fuzz
@pytest.mark.parametrize("surface", SURFACES)
def test_no_mutant_is_more_than_refused(surface: str) -> None:
    report = run_surface(surface, CASES, 1, workers=2, budget_s=BUDGETS_S.get(surface, BUDGET_S))
    print(report.line())  # noqa: T201 - pytest shows it with -rP
    assert [f"{bad.kind} {surface}/1/{bad.number}: {bad.told}" for bad in report.bad] == []
    assert report.counts["ok"] > 0
    assert report.counts["refused"] > 0


def test_a_mutant_is_its_surface_seed_and_number() -> None:
    for surface in SURFACES:
        if surface in NEEDS:
            package, extra = NEEDS[surface]
            pytest.importorskip(package, reason=f'needs pip install "xdet[{extra}]"')
        assert make_case(surface, 1, 7) == make_case(surface, 1, 7)
        assert len({make_case(surface, 1, number) for number in range(20)}) > 10


@pytest.mark.parametrize(
    ("surface", "fix", "without", "first"),
    [
        ("keras", "converters.sources.keras.containers.DAMAGED_ZIP", (), 0),
        ("yaml", "converters.description.config.MAX_NUMBER", 1 << 60, 2400),
        ("metadata", "converters.facts._BROKEN_ZIP", (), 0),
        ("picture", "xdet.pictures.images._DAMAGED", (), 0),
    ],
)
def test_the_mutants_find_a_fault_whose_fix_is_taken_away(
    surface: str, fix: str, *, without: object, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if surface in NEEDS:
        pytest.importorskip(NEEDS[surface][0], reason=f'needs pip install "xdet[{NEEDS[surface][1]}]"')
    monkeypatch.setattr(fix, without)
    ends = []
    for number in range(first, first + 400):
        folder = tmp_path / str(number)
        folder.mkdir()
        ends.append(run_case(surface, 1, number, folder)[0])
        if ends[-1] == "internal":
            break
    assert ends[-1] == "internal"
    monkeypatch.undo()
    assert run_case(surface, 1, number, tmp_path)[0] in ("ok", "refused")


def test_every_bad_outcome_is_told_apart_and_the_next_cases_run() -> None:
    report = run_surface("outcomes", 8, 1, workers=1, limit_s=2)
    assert {bad.number: bad.kind for bad in report.bad} == {1: "crash", 3: "internal", 5: "hang", 6: "memory"}
    assert (report.counts["ok"], report.counts["refused"]) == (3, 1)
    assert "8 cases, seed 1: ok 3, refused 1, internal 1, crash 1, hang 1, memory 1" in report.line()
