"""A LeakyReLU that stands as a sum is proven by its 256 codes, and a wrong number in it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
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
