"""Graphs that break the standard, or that no converter writes: refused or judged in one sentence, never a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import HEAD
from tests.converters.sources.tflite.cases import build_case
from tests.xdet.checking.faults import planted
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair
from xdet.errors import ModelError
from xdet.model.graph import load_onnx, model_from_proto
from xdet.model.surgery import find_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.checking.result import PartVerdict


@pytest.fixture(scope="module")
def sound(embedded_tflite: Path) -> bytes:
    """For the CPU: with LeakyReLUs as sums."""
    return convert_to_bytes(embedded_tflite, ConvertOptions(target="cpu")).model


def first(proto: onnx.ModelProto, op: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in proto.graph.node if node.op_type == op)
    return found


def stored(proto: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Another array under the name of an initialiser."""
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def judged(data: bytes, source: Path, folder: Path) -> PartVerdict:
    model = folder / "unsound.onnx"
    model.write_bytes(data)
    return check_static(open_pair(model, source))[0]


def test_an_operator_without_its_inputs_is_refused(sound: bytes, embedded_tflite: Path, tmp_path: Path) -> None:
    def without_weights(proto: onnx.ModelProto) -> None:
        del first(proto, "Conv").input[1:]

    with pytest.raises(ModelError, match=r"unsound\.onnx' is no valid ONNX model: .*; convert its source"):
        judged(planted(sound, without_weights), embedded_tflite, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda scale: scale.reshape(-1)[:0],
        lambda scale: scale * np.float32(0),
        lambda scale: scale * np.float32(np.nan),
        lambda scale: np.concatenate([scale.reshape(-1)] * 2),
    ],
    ids=["none", "zero", "no number", "two"],
)
def test_codes_without_a_positive_scale_are_refused(
    change: Callable[[NDArray[Any]], NDArray[Any]], sound: bytes, embedded_tflite: Path, tmp_path: Path
) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        stored(proto, first(proto, "QuantizeLinear").input[1], change)

    with pytest.raises(ModelError, match="expected positive float32 scales and as many zero-points, found"):
        judged(planted(sound, edit), embedded_tflite, tmp_path)


def one_operand(proto: onnx.ModelProto) -> None:
    del first(proto, "Max").input[1:]


def no_zero_point(proto: onnx.ModelProto) -> None:
    writers = {node.output[0]: node for node in proto.graph.node}
    add = next(node for node in proto.graph.node if node.name.endswith("/sum"))
    del writers[add.input[0]].input[2:]


def test_codes_beyond_the_end_of_a_table_are_steps_that_are_not_understood(tmp_path: Path) -> None:
    source = tmp_path / "row.tflite"
    source.write_bytes(build_case("TANH", ""))
    options = ConvertOptions(source=SourceOptions(head="none"), activations="int8")
    data = convert_to_bytes(source, options).model

    def edit(proto: onnx.ModelProto) -> None:
        stored(proto, first(proto, "Gather").input[0], lambda table: table[:9])

    (finding,) = judged(planted(data, edit), source, tmp_path).findings
    assert finding.message == "TANH 'y' stands as steps that are not understood; convert again"


@pytest.mark.parametrize("edit", [one_operand, no_zero_point])
def test_a_sum_without_all_its_operands_is_no_leaky_relu(
    edit: Callable[[onnx.ModelProto], None], sound: bytes, embedded_tflite: Path, tmp_path: Path
) -> None:
    assert judged(planted(sound, edit), embedded_tflite, tmp_path).status == "failed"


def test_a_default_threshold_without_a_number_is_another_than_the_document_s(
    sound: bytes, embedded_tflite: Path, tmp_path: Path
) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        stored(proto, "score_threshold", lambda value: value.reshape(-1)[:0])

    verdict = judged(planted(sound, edit), embedded_tflite, tmp_path)
    assert "score_threshold is nan, expected 0.5" in verdict.findings[0].message


def test_a_transposition_that_names_no_axes_reverses_them(sound: bytes) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        (transpose,) = [node for node in proto.graph.node if HEAD in node.output]
        assert transpose.op_type == "Transpose"
        del transpose.attribute[:]

    graph = model_from_proto(load_onnx(planted(sound, edit), "m.onnx"), "m.onnx").graph
    assert find_entry(graph, "m.onnx").perm == (3, 2, 1, 0)
