"""A new source format is its functions and one row, and a row for what runs it: every command takes it from there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

import xdet
from converters.sources import SOURCES, Importer, Later, Source
from tests.xdet import toy_source
from tests.xdet.checking import keras_faults
from xdet.bench.run import case_coverage, plan_cases
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair
from xdet.runtimes.table import RUNTIMES, RuntimeRow

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HERE = "tests.xdet.toy_source"
IMPORTER = Importer(Later(HERE, "read"), Later(HERE, "facts"), Later(HERE, "build"))
ROW = Source(
    "toy",
    sniff=toy_source.is_toy,
    importers={"native": IMPORTER},
    inspect=Later(HERE, "inspect"),
    compare=Later(HERE, "compare"),
)
RUNTIME = RuntimeRow(HERE, "numpy", formats=("toy",), only=("wood",), checked=("wood",), trusted=("wood",))
SIDECAR = {
    "head": "yolo_v2",
    "class_names": ["brick"],
    "anchors": [[0.5, 0.5], [1.5, 1.0]],
    "anchor_unit": "cell",
    "rescaling": {"scale": 1 / 255, "offset": 0.0},
    "resize": "nearest",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SOURCES, "toy", ROW)
    monkeypatch.setitem(RUNTIMES, "toy", RUNTIME)
    path = tmp_path / "wall.toy"
    weights = np.random.default_rng(5).normal(0, 0.3, (12, 3, 4, 4)).astype(np.float32)
    path.write_bytes(toy_source.write(16, weights))
    path.with_suffix(".xdet.json").write_text(json.dumps(SIDECAR))
    return path


@pytest.fixture
def photographs() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8))


def test_it_converts_and_the_result_says_what_it_was(source: Path, tmp_path: Path) -> None:
    document = xdet.convert(source, tmp_path / "m.onnx").document
    assert (document.source.format, document.spec.class_names) == ("toy", ("brick",))
    assert xdet.inspect(tmp_path / "m.onnx").document == document


def test_it_is_inspected_timed_and_run_as_it_is(source: Path, photographs: list[NDArray[np.uint8]]) -> None:
    assert xdet.inspect(source).format == "toy"
    (case,) = plan_cases([source], None, [1])
    assert (case.choices.runtime, case_coverage(case)) == ("toy", None)
    assert len(xdet.Detector(source)(photographs[0])) >= 0


@pytest.mark.parametrize("bent", [False, True])
def test_a_check_runs_it_beside_the_result(
    source: Path, photographs: list[NDArray[np.uint8]], tmp_path: Path, *, bent: bool
) -> None:
    xdet.convert(source, tmp_path / "m.onnx")
    if bent:
        other = toy_source.read(source.read_bytes(), "").weights * np.float32(1.01)
        source.write_bytes(toy_source.write(16, other))
    result = xdet.check(tmp_path / "m.onnx", source, photographs, runtimes="onnxruntime")
    verdicts = {part.part: part.status for part in result.parts}
    assert result.source_runs == ("toy:wood",)
    assert verdicts["spread"] == ("failed" if bent else "passed")


def test_its_layers_are_compared_with_the_graph(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    xdet.convert(source, model)
    verdict, _ = check_static(open_pair(model, source))
    assert (verdict.status, verdict.summary) == ("passed", "585 numbers compared")
    proto = onnx.load(model)
    keras_faults.edit(proto, "weights", lambda weights: weights * np.float32(1.01))
    onnx.save(proto, model)
    verdict, _ = check_static(open_pair(model, source))
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [("weight", "wall")]
