"""Symmetric quantisation: every zero-point 0, int8 everywhere, biases in float32; the same integers on ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from converters.calibration import Calibration
from converters.convert import Conversion, convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.options import ConvertOptions
from converters.spec import HEAD, Rescaling
from tests.converters.sessions import session_of
from tests.converters.sources.onnx.networks import tiny_yolo_v2
from tests.converters.sources.tflite.networks import two_raw_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.spec import ImageInput

RESCALINGS = {"from 0 to 1": Rescaling(1 / 255, 0.0), "from -1 to 1": Rescaling(1 / 127.5, -1.0)}


def photographs(image: ImageInput) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, image.shape, np.uint8) for _ in range(8))


def symmetric(source: Path, rescaling: Rescaling) -> Conversion:
    source_options = SourceOptions(head="none", rescaling=rescaling)
    options = ConvertOptions(
        source=source_options, quantize="per-channel", symmetric=True, calibration=Calibration(photographs, 8)
    )
    return convert_to_bytes(source, options)


@pytest.mark.parametrize("rescaling", RESCALINGS.values(), ids=RESCALINGS)
def test_all_zero_points_are_0_and_nothing_but_a_cast_reads_the_bytes(rescaling: Rescaling, tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(tiny_yolo_v2())
    result = symmetric(source, rescaling)
    document = result.document
    assert (document.activations, document.symmetric, document.quantization) == (
        "int8",
        True,
        "int8 per-channel symmetric",
    )
    assert document.golden is not None
    assert document.from_json(document.to_json()) == document
    graph = onnx.load_model_from_string(result.model).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    points = [held[node.input[2]] for node in pairs if len(node.input) > 2]
    assert len(points) > 10
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    assert {held[node.input[0]].dtype.name for node in pairs if node.input[0] in held} == {"int8"}
    assert [node.op_type for node in graph.node if "image" in node.input] == ["Cast"]
    biases = [held[node.input[2]] for node in graph.node if node.op_type == "Conv" and len(node.input) > 2]
    assert {bias.dtype.name for bias in biases} == {"float32"}


def test_a_quantised_file_that_ends_in_boxes_states_its_raw_head(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(tiny_yolo_v2())
    source_options = SourceOptions(
        anchors=((1.0, 1.0), (2.0, 2.0)),
        anchor_unit="cell",
        class_names=("person",),
        rescaling=RESCALINGS["from 0 to 1"],
    )
    options = ConvertOptions(source=source_options, quantize="per-channel", calibration=Calibration(photographs, 8))
    graph = onnx.load_model_from_string(convert_to_bytes(source, options).model).graph
    assert "detection_boxes" in {value.name for value in graph.output}
    assert HEAD in {value.name for value in graph.value_info}


def test_onnxruntime_runs_every_convolution_in_integers(tmp_path: Path) -> None:
    source, optimised = tmp_path / "net.onnx", tmp_path / "optimised.onnx"
    source.write_bytes(tiny_yolo_v2())
    session_of(symmetric(source, RESCALINGS["from 0 to 1"]).model, optimised=optimised)
    if tuple(map(int, ort.__version__.split(".")[:2])) < (1, 21):
        pytest.skip(
            "needs ONNX Runtime 1.21 or newer, pip install -U onnxruntime: "
            "older ones make no integers of float32 biases"
        )
    found = {node.op_type for node in onnx.load(optimised).graph.node}
    assert "QLinearConv" in found
    assert found.isdisjoint({"Conv", "FusedConv"})


def test_it_is_a_choice_of_quantising_alone(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"add `quantize` per-channel .*the integers of a quantised file are fixed"):
        ConvertOptions(symmetric=True)
    source = tmp_path / "net.tflite"
    source.write_bytes(two_raw_outputs())
    with pytest.raises(OptionError, match=r"the source is quantised already .*give the float Keras or ONNX file"):
        symmetric(source, RESCALINGS["from 0 to 1"])
