"""The convolution that stands for a TRANSPOSE_CONV is derived tap by tap; whatever differs is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.cases import build_case
from tests.xdet.checking import faults
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("position", "part", "cause"), [(1, 0, "weight"), (1, 1, "scale"), (2, 0, "bias")])
def test_another_number_is_named(tmp_path: Path, position: int, part: int, cause: str) -> None:
    source, finished = tmp_path / "row.tflite", tmp_path / "row.onnx"
    source.write_bytes(build_case("TRANSPOSE_CONV", ""))
    model = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model

    def edit(proto: onnx.ModelProto) -> None:
        (conv,) = [node for node in proto.graph.node if node.op_type == "Conv"]
        (read,) = [node for node in proto.graph.node if node.output[0] == conv.input[position]]
        (tensor,) = [t for t in proto.graph.initializer if t.name == read.input[part]]
        array: Any = onnx.numpy_helper.to_array(tensor).copy()
        array.flat[-1] += array.dtype.type(1)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), tensor.name))

    finished.write_bytes(faults.planted(model, edit))
    found, _ = check_static(open_pair(finished, source))
    assert [(finding.cause, finding.layer) for finding in found.findings] == [(cause, "y")]


@pytest.mark.parametrize(("ends", "cause"), [("weights", "weight"), ("bias", "bias")])
def test_another_number_of_a_sparse_one_is_named(tmp_path: Path, ends: str, cause: str) -> None:
    source, finished = tmp_path / "row.tflite", tmp_path / "row.onnx"
    source.write_bytes(build_case("TRANSPOSE_CONV", "with SAME padding and strides longer than the kernel"))
    model = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model

    def edit(proto: onnx.ModelProto) -> None:
        (conv,) = [node for node in proto.graph.node if node.op_type == "ConvInteger"]
        (added,) = [node for node in proto.graph.node if node.name == "y/biased"]
        read = {"weights": conv.input[1], "bias": added.input[1]}[ends]
        (tensor,) = [t for t in proto.graph.initializer if t.name == read]
        array: Any = onnx.numpy_helper.to_array(tensor).copy()
        array.flat[0] ^= 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    finished.write_bytes(faults.planted(model, edit))
    found, _ = check_static(open_pair(finished, source))
    assert [(finding.cause, finding.layer) for finding in found.findings] == [(cause, "y")]
