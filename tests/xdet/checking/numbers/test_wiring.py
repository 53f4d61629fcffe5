"""A value that is computed of other tensors than the source's is found, where every number is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.xdet.checking import faults
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from xdet.checking.result import PartVerdict

SQUARE = (1, 8, 8, 4)
CODES = ("int8", 1 / 255, -128)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions whose results have the same numbers, moved, subtracted and put together."""
    b, rng = TfliteBuilder(), np.random.default_rng(3)
    pixels = b.input("image", (1, 8, 8, 3), "uint8", 1 / 255, 0)
    x = b.op("QUANTIZE", [pixels], (1, 8, 8, 3), *CODES, name="codes")

    def convolved(source: int, channels: int, name: str) -> int:
        weights = b.constant(rng.integers(-127, 128, (4, 3, 3, channels)).astype(np.int8), 0.004)
        bias = b.constant(rng.integers(-99, 99, 4).astype(np.int32), 0.004 / 255)
        options: dict[str, Any] = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation": "NONE"}
        return b.op("CONV_2D", [source, weights, bias], SQUARE, *CODES, name=name, **options)

    first, second = convolved(x, 3, "first"), convolved(x, 3, "second")
    third = convolved(first, 4, "third")
    constant = b.constant(np.array([-100, 3, 90, 7], np.int8), *CODES[1:])
    moved = b.op("SUB", [third, constant], SQUARE, *CODES, name="moved", fused_activation="NONE")
    difference = b.op("SUB", [moved, second], SQUARE, *CODES, name="difference", fused_activation="NONE")
    joined = b.op("CONCATENATION", [difference, second], (1, 8, 8, 8), *CODES, name="joined", axis=3)
    folder = tmp_path_factory.mktemp("wiring")
    (folder / "m.tflite").write_bytes(b.build([b.op("DEQUANTIZE", [joined], (1, 8, 8, 8), "float32", name="real")]))
    options = ConvertOptions(source=SourceOptions(head="none"), arithmetic="fused")
    (folder / "m.onnx").write_bytes(convert_to_bytes(folder / "m.tflite", options).model)
    return folder


def judged(folder: Path) -> PartVerdict:
    return check_static(open_pair(folder / "m.onnx", folder / "m.tflite"))[0]


def read_another_tensor(proto: onnx.ModelProto) -> None:
    """The third convolution reads what the second gives."""
    (read,) = (node for node in proto.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == "first")
    read.input[0] = "second"


def exchange_operands(op: str, place: int = 0) -> faults.Edit:
    def exchange(proto: onnx.ModelProto) -> None:
        node = [node for node in proto.graph.node if node.op_type == op][place]
        node.input[:] = list(reversed(node.input))

    return exchange


def test_an_honest_conversion_passes(converted: Path) -> None:
    assert judged(converted).findings == ()


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        (read_another_tensor, "third"),
        (exchange_operands("Sub"), "moved"),
        (exchange_operands("Sub", 1), "difference"),
        (exchange_operands("Concat"), "joined"),
    ],
)
def test_a_fault_is_found_and_named(converted: Path, tmp_path: Path, fault: faults.Edit, layer: str) -> None:
    (tmp_path / "m.tflite").write_bytes((converted / "m.tflite").read_bytes())
    (tmp_path / "m.onnx").write_bytes(faults.planted((converted / "m.onnx").read_bytes(), fault))
    verdict = judged(tmp_path)
    assert verdict.status == "failed"
    assert {(finding.cause, finding.layer) for finding in verdict.findings} == {("wiring", layer)}
