"""Whole detectors of both families, and every layer of the embedded one, against LiteRT XNNPACK.

Every operator of the two built networks is exact (docs/operators.md), so not one head value may differ.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources.tflite.operators import WEIGHTED
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.networks import st_yolo_lc, tiny_yolo_v2_relu
from tests.converters.sources.tflite.single_operator import translated
from xdet.pictures.images import read_image, resize_image

if TYPE_CHECKING:
    from pathlib import Path

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Image = NDArray[np.uint8]
NETWORKS = {"tiny_yolo_v2": tiny_yolo_v2_relu, "st_yolo_lc": st_yolo_lc}
RAW = SourceOptions(head="none")


def interpreter_of(data: bytes, *, preserve: bool = False) -> Any:
    """LiteRT with its default delegate on one thread, the same bits whether tensors are preserved or not."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # preserving tensors costs memory, it says
        found = litert.Interpreter(model_content=data, num_threads=1, experimental_preserve_all_tensors=preserve)
    found.allocate_tensors()
    return found


def run_litert(interpreter: Any, image: Image) -> Any:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def session_of(model: bytes, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def pictures(size: int) -> list[Image]:
    """Noise, a ramp and the extremes, uint8 ``(1, size, size, 3)``."""
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, size).astype(np.uint8)[:, None], (1, size, size, 3)).copy()
    return [noise, ramp, np.zeros_like(noise), np.full_like(noise, 255)]


@pytest.mark.parametrize("target", ["portable", "cpu"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("size", [192, 224])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_exact_operators_equals_litert_in_every_head_value(
    name: str, size: int, activations: str, target: str, tmp_path: Path
) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(NETWORKS[name](size))
    litert = interpreter_of(source.read_bytes())
    options = ConvertOptions(source=RAW, activations=activations, target=target)  # type: ignore[arg-type]  # parametrised
    session = session_of(convert_to_bytes(source, options).model)
    for image in pictures(size):
        expected = run_litert(litert, image)
        assert len(np.unique(expected)) > 20, "the built network has collapsed"
        np.testing.assert_array_equal(session.run(None, {"image": image})[0], expected)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_mac_of_the_source_runs_in_qlinearconv(name: str, activations: str, tmp_path: Path) -> None:
    source, optimised = tmp_path / "net.tflite", tmp_path / "optimised.onnx"
    source.write_bytes(NETWORKS[name](192))
    options = ConvertOptions(source=RAW, activations=activations)  # type: ignore[arg-type]  # parametrised
    session_of(convert_to_bytes(source, options).model, optimised)
    macs = source_macs(read_tflite(source.read_bytes(), source.name))
    assert sum(macs.values()) > 1e6
    assert macs_by_operator(onnx.load(optimised), macs) == {"QLinearConv": sum(macs.values())}


def source_macs(model: TfliteModel) -> dict[str, int]:
    """Multiplications by weight tensor: every weight once per output position."""
    macs: dict[str, int] = {}
    for op in model.operators:
        if op.op in WEIGHTED:
            _, height, width, _ = model.tensors[op.outputs[0]].shape
            weights = model.tensors[op.inputs[1]]
            macs[weights.name] = height * width * math.prod(weights.shape)
    return macs


def macs_by_operator(optimised: onnx.ModelProto, macs: dict[str, int]) -> dict[str, int]:
    """Multiplications of the source by the operator of the optimised graph that reads their weights, by name."""
    counts: dict[str, int] = {}
    for name, count in macs.items():
        readers = [node.op_type for node in optimised.graph.node if f"{name}/codes" in node.input]
        assert len(readers) == 1, f"{name} is read by {readers}"
        counts[readers[0]] = counts.get(readers[0], 0) + count
    return counts


@pytest.fixture(scope="module")
def layers(embedded_tflite: Path, sample_pictures: list[Path]) -> tuple[TfliteModel, dict[int, NDArray[Any]]]:
    """The embedded network, and every tensor that LiteRT XNNPACK computes of a photograph."""
    data = embedded_tflite.read_bytes()
    model = read_tflite(data, embedded_tflite.name)
    interpreter = interpreter_of(data, preserve=True)
    size = model.tensors[model.inputs[0]].shape[1]
    image = resize_image(read_image(sample_pictures[0], honour_exif=True), size, size, "bilinear-antialias")
    run_litert(interpreter, image[None])
    return model, {t.index: interpreter.get_tensor(t.index) for t in model.tensors if t.data is None}


def differences(
    model: TfliteModel, op: TfliteOperator, tensors: dict[int, NDArray[Any]], leaky_relu: str
) -> NDArray[np.int64]:
    """Codes by which one layer differs from LiteRT's, fed LiteRT's own input."""
    alone = replace(model, operators=(op,), inputs=(op.inputs[0],), outputs=op.outputs)
    written = ir.to_proto(translated(alone, leaky_relu=leaky_relu)).SerializeToString()  # type: ignore[arg-type]  # parametrised
    codes = (tensors[op.inputs[0]].astype(np.int16) + 128).astype(np.uint8)
    (real,) = session_of(written).run(None, {"in0": codes})
    quant = model.tensors[op.outputs[0]].quant
    assert quant is not None
    found = np.rint(real / quant.scalar_scale).astype(np.int64) + quant.scalar_zero_point
    apart: NDArray[np.int64] = np.abs(found - tensors[op.outputs[0]].astype(np.int64))
    return apart


@pytest.mark.parametrize("leaky_relu", ["litert", "float"])
def test_every_layer_that_is_fed_the_same_codes_stays_within_its_bound(
    layers: tuple[TfliteModel, dict[int, NDArray[Any]]], leaky_relu: str
) -> None:
    model, tensors = layers
    inner = [op for op in model.operators if op.op not in ("QUANTIZE", "DEQUANTIZE")]
    assert len(inner) == 9 + 8 + 6  # convolutions, LeakyReLUs, pools
    worst: dict[str, int] = {}
    for op in inner:
        worst[op.op] = max(worst.get(op.op, 0), int(differences(model, op, tensors, leaky_relu).max()))
    expected = {"CONV_2D": 0, "LEAKY_RELU": 0 if leaky_relu == "litert" else 1, "MAX_POOL_2D": 0}
    assert worst == expected
