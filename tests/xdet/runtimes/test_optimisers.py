"""Graph optimisers over a finished file: bits, document and session entries stay, thresholds where they can.

The packages want an environment of their own; ``.ci/run`` makes one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, THRESHOLD_INPUTS, ResizeRule
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, SAID, NetworkBuilder
from xdet.errors import ModelError
from xdet.model.wire import read_metadata
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import EXACT_KERNELS, OrtSession, SessionChoices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

OPTIMISERS: Mapping[str, tuple[str, Callable[[Any, onnx.ModelProto], Any]]] = {
    "onnxsim": ("onnxsim", lambda package, model: package.simplify(model)[0]),
    "onnxsim, told to keep inputs": (
        "onnxsim",
        lambda package, model: package.simplify(model, mutable_initializer=True, initializers_as_constants=False)[0],
    ),
    "onnxslim": ("onnxslim", lambda package, model: package.slim(model)),
    "onnxoptimizer": ("onnxoptimizer", lambda package, model: package.optimize(model)),
}
FOLDS_INPUTS = {"onnxsim", "onnxslim"}


def optimised(name: str, model: bytes) -> bytes:
    package, run = OPTIMISERS[name]
    imported = pytest.importorskip(package, reason=f"needs pip install {package}")
    done: onnx.ModelProto = run(imported, onnx.load_model_from_string(model))
    data: bytes = done.SerializeToString()
    return data


@pytest.fixture(scope="module")
def models(embedded_tflite: Path) -> dict[str, bytes]:
    """The embedded detector, whose layers have equal numbers of channels; thresholds as inputs, and as constants."""
    return {
        "fed": convert_to_bytes(embedded_tflite, ConvertOptions()).model,
        "frozen": convert_to_bytes(embedded_tflite, ConvertOptions(freeze_thresholds=True)).model,
        "int8": convert_to_bytes(embedded_tflite, ConvertOptions(freeze_thresholds=True, activations="int8")).model,
    }


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("kind", ["frozen", "int8"])
def test_bits_document_and_session_entries_stay(
    name: str, kind: str, models: dict[str, bytes], noise: NDArray[np.uint8]
) -> None:
    after = optimised(name, models[kind])
    assert read_metadata(after)[METADATA_KEY] == read_metadata(models[kind])[METADATA_KEY]
    entries: tuple[str | None, ...] = (None, "uint8") if kind == "frozen" else (None, "int8")
    assert set(entries) <= {None, *EXACT_KERNELS}
    with open_onnxruntime(models[kind], file="m.onnx") as known, open_onnxruntime(after, file="o.onnx") as runtime:
        np.testing.assert_array_equal(runtime.head(noise), known.head(noise))
        found, expected = (r.detect(noise, known.spec.thresholds) for r in (runtime, known))
        np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    for entry in entries:  # as CPUs need it whose fast kernels saturate
        session = OrtSession(after, file="o.onnx", choices=SessionChoices(threads=1, exact_for=entry))
        (boxes,) = session.run(["detection_boxes"], {"image": noise})
        np.testing.assert_array_equal(boxes, expected.boxes_xyxy)


@pytest.mark.parametrize("rule", get_args(ResizeRule))
@pytest.mark.parametrize("name", OPTIMISERS)
def test_bits_of_photographs_of_any_size_stay(name: str, rule: ResizeRule, tmp_path: Path) -> None:
    source = tmp_path / "small.tflite"
    network = NetworkBuilder(64, seed=3, gain=8.0).conv(16, stride=2, activation="RELU").max_pool()
    source.write_bytes(network.max_pool().conv(HEAD_CHANNELS, 1).build())
    options = ConvertOptions(source=replace(SAID, resize=rule), any_size=True, freeze_thresholds=True)
    before = convert_to_bytes(source, options).model
    with (
        open_onnxruntime(before, file="m.onnx") as known,
        open_onnxruntime(optimised(name, before), file="o.onnx") as runtime,
    ):
        for height, width in ((64, 64), (40, 90), (201, 77), (1, 1)):
            photograph = np.random.default_rng(width).integers(0, 256, (1, height, width, 3), np.uint8)
            np.testing.assert_array_equal(runtime.head(photograph), known.head(photograph))
            found, expected = (r.detect(photograph, known.spec.thresholds) for r in (runtime, known))
            np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_thresholds_stay_inputs_or_the_cause_is_named(name: str, models: dict[str, bytes]) -> None:
    after = optimised(name, models["fed"])
    if name in FOLDS_INPUTS:
        with pytest.raises(ModelError, match=r"simplifiers \(onnxsim, onnxslim\) fold .* --freeze-thresholds"):
            open_onnxruntime(after, file="o.onnx")
        return
    with open_onnxruntime(after, file="o.onnx") as runtime:
        assert runtime.capabilities.thresholds


def test_a_file_without_its_threshold_inputs_is_told_to_be_simplified(models: dict[str, bytes]) -> None:
    model = onnx.load_model_from_string(models["fed"])
    kept = [value for value in model.graph.input if value.name not in THRESHOLD_INPUTS]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    with pytest.raises(ModelError, match=r"found \[\]; simplifiers .* --freeze-thresholds before one"):
        open_onnxruntime(model.SerializeToString(), file="o.onnx")


def test_no_constant_of_weights_equals_another(models: dict[str, bytes]) -> None:
    """Optimisers merge equal ones, and the entry for CPUs without VNNI fails on zero-points that two weights share."""
    graph = onnx.load_model_from_string(models["fed"]).graph
    codes = {tensor.name for tensor in graph.initializer}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in codes]
    assert len(weights) >= 18
    assert {len(node.input) for node in weights} == {2}
