"""A new head is one file and one row: recognised, converted, inspected, checked and run alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import xdet
from converters.errors import OptionError
from converters.heads import HEADS
from converters.spec import ModelDocument
from tests.converters.heads.toy_head import ToyHead
from tests.converters.sources.tflite.look_alikes import PROBABILITIES, SIZE, LookAlike
from xdet.runtimes.table import RUNTIMES

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "toy", ToyHead)
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], subprocess=False))  # knows no toy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    net, shape = LookAlike(), (1, SIZE // 8, SIZE // 8, 1)
    scores = net.b.op("LOGISTIC", [net.grid(8, 1)], shape, "int8", *PROBABILITIES)
    path = tmp_path / "toy.tflite"
    path.write_bytes(net.b.build([net.real(scores, shape, "scores")]))
    return path


@pytest.mark.parametrize("head", ["auto", "toy"])
def test_it_is_recognised_converted_inspected_checked_and_detected(
    source: Path, tmp_path: Path, sample_pictures: list[Path], head: str
) -> None:
    model = tmp_path / "toy.onnx"
    document = xdet.convert(source, model, head=head, classes=["cell"]).document
    assert document.spec.head == ToyHead(8, 8)
    assert ModelDocument.from_json(document.to_json()).spec == document.spec
    assert xdet.inspect(model).spec == document.spec
    runtimes = "onnxruntime:cpu,litert:xnnpack,litert:builtin"
    assert xdet.check(model, source, sample_pictures, runtimes=runtimes).findings == ()
    with xdet.Detector(model) as finished, xdet.Detector(source) as original:
        found, expected = finished(sample_pictures[0]), original(sample_pictures[0])
    assert len(found) > 0
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1 / 256)
    assert np.allclose(found[0].box_xyxy_px, expected[0].box_xyxy_px)


def test_its_reason_stands_among_those_of_all_heads(tmp_path: Path) -> None:
    net = LookAlike()
    path = tmp_path / "net.tflite"
    path.write_bytes(net.b.build([net.real(net.grid(8, 3), (1, 8, 8, 3), "out")]))
    with pytest.raises(OptionError, match="toy: a toy is one grid of scores"):
        xdet.convert(path, tmp_path / "net.onnx")
