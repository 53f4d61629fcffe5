"""A few bytes behind an ONNX file show its inner values, and its wire format tells metadata and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.spec import METADATA_KEY
from tests.xdet.finished_models import document, finished_model, red_image
from xdet.model.wire import FLOAT, UNTOLD, field, fixed_batch, read_metadata, value_names, varint, with_outputs
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.table import open_runtime

if TYPE_CHECKING:
    from pathlib import Path


def test_added_outputs_stand_behind_the_models_own_and_nothing_else_changes() -> None:
    before = onnx.load_from_string(finished_model())
    after = onnx.load_from_string(with_outputs(finished_model(), [("scores", FLOAT), ("order", UNTOLD)]))
    assert [value.name for value in after.graph.output] == [
        *(value.name for value in before.graph.output),
        "scores",
        "order",
    ]
    assert after.graph.output[-2].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert not after.graph.output[-1].HasField("type")
    del after.graph.output[-2:]
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def test_no_added_output_leaves_the_bytes_alone() -> None:
    assert with_outputs(finished_model(), []) == finished_model()


def test_onnxruntime_computes_the_added_values() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(with_outputs(finished_model(), [("scores", FLOAT), ("order", UNTOLD)]), options)
    scores, order = session.run(["scores", "order"], {"image": red_image(0, 51, 255, 102)})
    assert scores.tolist() == [[0, np.float32(0.2), 1, np.float32(0.4)]]
    assert order.tolist() == [[2, 3, 1, 0]]


def test_the_head_of_a_finished_model_is_that_of_its_source(embedded_tflite: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    from converters.convert import convert_to_bytes
    from converters.options import ConvertOptions

    image = np.random.default_rng(5).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with open_runtime(embedded_tflite, RuntimeChoices(threads=1)) as source:
        expected = source.head(image)
        codes = source.tensors(image, ["tiny_yolo_v2/pool1/MaxPool"])["tiny_yolo_v2/pool1/MaxPool"]
    model = convert_to_bytes(embedded_tflite, ConvertOptions()).model
    with open_onnxruntime(model, file="m.onnx", choices=RuntimeChoices(threads=1)) as runtime:
        assert np.array_equal(runtime.head(image), expected)
        twin = runtime.document.tensors["tiny_yolo_v2/pool1/MaxPool"]
        assert (twin.layout, twin.zero_point_shift) == ("NHWC->NCHW", 128)
        shown = runtime.tensors(image, [str(twin.onnx)])[str(twin.onnx)]
    assert np.array_equal(shown.transpose(0, 2, 3, 1).astype(np.int16) - 128, codes)


def test_metadata_and_names_are_those_that_onnx_reads() -> None:
    model = onnx.load_from_string(finished_model())
    assert read_metadata(finished_model()) == {METADATA_KEY: document().to_json()}
    assert value_names(finished_model()) == {name for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("length", [1, 5, 100, -1])
def test_a_file_that_was_cut_off_is_told_from_one_without_metadata(length: int) -> None:
    with pytest.raises(ValueError, match=r"ends at byte|does not end"):
        read_metadata(finished_model()[:length])


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for read in (read_metadata, value_names):
        told = "every byte was read"
        try:
            read(noise)
        except ValueError as error:
            told = str(error)
        assert "byte" in told


@given(st.integers(0, 2**63 - 1), st.integers(1, 500))
def test_a_number_that_is_written_is_read_by_protobuf(value: int, number: int) -> None:
    model = onnx.ModelProto.FromString(field(5, value))
    assert model.model_version == value
    assert len(varint(number)) == (1 if number < 128 else 2)


@pytest.mark.parametrize(("written", "told"), [(1, 1), (3, 3), (300, 300), ("N", None)])
def test_the_batch_is_the_input_s_first_size(written: int | str, told: int | None) -> None:
    assert fixed_batch(finished_model(batch=written)) == told
