"""Numbers of a LeakyReLU as a sum, or around an average, are proven; a wrong number is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.xdet.checking import faults
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.checking.result import PartVerdict, ProvenChange

    Judge = Callable[[faults.Edit], tuple[PartVerdict, tuple[ProvenChange, ...]]]

SUM = f"{faults.LEAKY7}/float"


@pytest.fixture(scope="module")
def model(embedded_tflite: Path) -> bytes:
    return convert_to_bytes(embedded_tflite, ConvertOptions(target="cpu")).model


@pytest.fixture
def judge(model: bytes, embedded_tflite: Path, tmp_path: Path) -> Judge:
    def run(edit: faults.Edit) -> tuple[PartVerdict, tuple[ProvenChange, ...]]:
        path = tmp_path / "model.onnx"
        path.write_bytes(faults.planted(model, edit))
        return check_static(open_pair(path, embedded_tflite))

    return run


def constant_edit(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> faults.Edit:
    """An edit of one constant, for all that read it."""

    def edit(proto: onnx.ModelProto) -> None:
        (tensor,) = [t for t in proto.graph.initializer if t.name == name]
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(array).astype(array.dtype), name))

    return edit


def half_the_slope(proto: onnx.ModelProto) -> None:
    scales = {t.name: t for t in proto.graph.initializer if t.name.startswith(SUM)}
    whole, excess = (scales[f"{SUM}/{part}/scale"] for part in ("whole", "excess"))
    moved = np.float32(onnx.numpy_helper.to_array(whole) / 2)
    excess.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(excess) + moved, excess.name))
    whole.CopyFrom(onnx.numpy_helper.from_array(np.array(moved), whole.name))


def maximum_with_zero(proto: onnx.ModelProto) -> None:
    (node,) = [n for n in proto.graph.node if n.name == f"{SUM}/rectified"]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    node.input[1] = "zero"


def test_all_sums_of_an_honest_model_are_proven(judge: Judge) -> None:
    part, proven = judge(lambda _: None)
    assert part.status == "passed"
    slopes = [change for change in proven if change.kind == "slope"]
    assert len(slopes) == 8
    assert {round(float(change.written or 0), 2) for change in slopes} == {0.2}
    assert {change.source for change in slopes} == {float(np.float32(0.2))}


@pytest.mark.parametrize(
    ("edit", "cause", "words"),
    [
        (constant_edit(f"{SUM}/whole/scale", lambda s: s * 1.01), "scale", f"'{SUM}/whole'"),
        (constant_edit(f"{SUM}/excess/scale", lambda s: s * 0.99), "scale", "(-1.00%)"),
        (half_the_slope, "slope", "the graph has slope 0.1"),
        (maximum_with_zero, "zero-point", "found uint8 [0]"),
    ],
    ids=["whole +1 %", "excess -1 %", "slope 0.1", "maximum with 0"],
)
def test_a_wrong_number_in_a_sum_is_named(judge: Judge, edit: faults.Edit, cause: str, words: str) -> None:
    part, _ = judge(edit)
    (finding,) = part.findings
    assert (finding.cause, finding.layer) == (cause, faults.LEAKY7)
    assert words in finding.message


def averaged(op: str, read: tuple[float, int], written: tuple[float, int], **options: Any) -> bytes:
    """An image of codes, and the average of its windows of 2 x 2 or over its height and width."""
    b = TfliteBuilder()
    x = b.input("image", (1, 4, 4, 3), "uint8", *read)
    axes = [] if options else [b.constant(np.array([1, 2], np.int32))]
    y = b.op(op, [x, *axes], (1, 2, 2, 3) if options else (1, 3), "uint8", *written, name="y", **options)
    return b.build([y])


WINDOW = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2, "padding": "VALID"}


@pytest.mark.parametrize(
    "data",
    [
        averaged("AVERAGE_POOL_2D", (0.05773367, 57), (0.05773367, 57), fused_activation="RELU", **WINDOW),
        averaged("MEAN", (0.5422227382659912, 255), (0.5422227382659912, 255)),
    ],
    ids=["between a clamp of codes", "behind a transposition"],
)
def test_numbers_around_an_average_are_proven(tmp_path: Path, data: bytes) -> None:
    source, model = tmp_path / "average.tflite", tmp_path / "average.onnx"
    source.write_bytes(data)
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"), target="cpu")).model)
    part, proven = check_static(open_pair(model, source))
    assert part.findings == ()
    assert any("commutes with the shift and scaling" in change.proof for change in proven)
