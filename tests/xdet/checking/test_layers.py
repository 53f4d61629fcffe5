"""Layer by layer: a planted fault is named with its layer, not by its drift, and shown by the layer alone, cut out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import IMAGE
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.networks import st_yolo_lc
from tests.xdet.checking import faults
from tests.xdet.checking.layer_runs import layers_of, opened
from tests.xdet.checking.numbers.test_rewrites import POINTWISE, code_at, convert_for_cpu, filled_network
from tests.xdet.command import run_xdet
from tests.xdet.finished_models import finished_model
from tests.xdet.planted_faults import (
    another_slope,
    edited,
    one_scale,
    one_weight,
    one_zero_point,
    padding_on_the_other_side,
    red_and_blue_swapped,
)
from xdet.checking.check import check
from xdet.checking.layers import LayerRepro, first_divergence, source_codes, values_path, write_layer_repro
from xdet.checking.pair import open_pair
from xdet.checking.report import check_to_json
from xdet.checking.result import LayerComparison, LayerDistance, LayerResult
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import ModelError, UsageError
from xdet.model.surgery import exact_codes
from xdet.pictures.images import read_image, resize_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


@pytest.fixture(scope="module")
def photograph(sample_pictures: list[Path]) -> NDArray[np.uint8]:
    return resize_image(read_image(sample_pictures[0], honour_exif=True), 224, 224, "bilinear-antialias")[None]


@pytest.mark.parametrize(
    ("options", "layers", "local"),
    [
        (ConvertOptions(), 19, 0),
        (ConvertOptions(activations="int8"), 19, 0),
        (ConvertOptions(target="cpu"), 18, 0),
        (ConvertOptions(leaky_relu="float"), 19, 1),
    ],
    ids=["uint8", "int8", "cpu", "float leaky relu"],
)
def test_honest_conversions_have_no_fault(
    options: ConvertOptions, layers: int, local: int, embedded_tflite: Path, photograph: NDArray[np.uint8]
) -> None:
    model = convert_to_bytes(embedded_tflite, options).model
    found = layers_of(model, embedded_tflite, photograph)
    assert found.first_fault is None
    assert len(found.layers) == layers
    # int8 codes that are shown are computed in float: a few values of that run's head are another code
    assert found.fused_differs <= (20 if options.activations == "int8" else 0)
    assert max(layer.local.worst for layer in found.layers) == local
    assert max(layer.kernel.worst for layer in found.layers if layer.kernel is not None) <= int(
        options.activations == "int8"
    )


def test_the_uint8_graph_holds_litert_s_integers_in_every_layer(
    person_model: bytes, embedded_tflite: Path, photograph: NDArray[np.uint8]
) -> None:
    found = layers_of(person_model, embedded_tflite, np.concatenate([photograph, photograph[:, ::-1]]))
    assert {layer.accumulated.differing for layer in found.layers} == {0}
    assert [layer.operator for layer in found.layers][:3] == ["input", "QUANTIZE", "CONV_2D"]
    assert found.layers[-1].accumulated.values == 2 * 7 * 7 * 30
    assert set(found.absent.values()) == {"pool before activation"}
    assert len(found.absent) == 6


@pytest.mark.parametrize(
    ("fault", "tensor"),
    [
        (one_weight, "conv5/Conv2D1"),
        (one_scale, "conv3/Conv2D1"),
        (one_zero_point, "conv3/Conv2D1"),
        (padding_on_the_other_side, "conv1/Conv2D1"),
        (red_and_blue_swapped, "conv1/Conv2D1"),
        (another_slope, "pool1/MaxPool"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_named_with_its_layer(
    fault: Callable[[onnx.GraphProto], None],
    tensor: str,
    person_model: bytes,
    embedded_tflite: Path,
    photograph: NDArray[np.uint8],
) -> None:
    found = layers_of(edited(person_model, fault), embedded_tflite, photograph)
    assert found.first_fault is not None
    assert found.first_fault.tensor.endswith(tensor)
    assert found.first_fault.is_mistranslated
    assert not any(layer.is_misrun for layer in found.layers)
    behind = found.layers[found.layers.index(found.first_fault) + 1 :]
    assert any(layer.accumulated.differing for layer in behind)  # the fault drifts on, and is not blamed on others


def test_a_source_of_another_format_is_refused(person_model: bytes, tmp_path: Path) -> None:
    source = tmp_path / "person.onnx"
    source.write_bytes(person_model)
    with pytest.raises(UsageError, match="is onnx, expected the source that"):
        layers_of(person_model, source, np.zeros((1, 224, 224, 3), np.uint8))


def test_a_source_of_another_model_is_told(embedded_tflite: Path, tmp_path: Path) -> None:
    source = tmp_path / "no-sidecar.tflite"
    source.write_bytes(embedded_tflite.read_bytes())
    with pytest.raises(ModelError, match=r"shares no layer with the model; is it the model's source\?"):
        layers_of(finished_model(), source, np.zeros((1, 2, 2, 3), np.uint8))


def test_distances_add_up_over_images() -> None:
    first = LayerDistance.of_codes(np.array([1, 2, 3], np.uint8), np.array([1, 4, 0], np.uint8))
    assert first == LayerDistance(differing=2, values=3, worst=3, total=5)
    assert first.joined(LayerDistance(1, 1, 7, 7)) == LayerDistance(3, 4, 7, 12)
    assert first.joined(LayerDistance(1, 1, 7, 7)).mean == 3.0
    assert LayerDistance().mean == 0.0


def test_no_layers_have_no_fault() -> None:
    assert LayerComparison(()).first_fault is None


def test_a_requantisation_that_changes_no_code_is_not_blamed_for_the_rounding_in_front_of_it(tmp_path: Path) -> None:
    source = tmp_path / "softmax.tflite"
    source.write_bytes(softmax_within_one_code())
    model = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"), arithmetic="fused")).model
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    found = layers_of(model, source, image)
    rounded = [layer for layer in found.layers if layer.onnx == "share"]
    bounds = {layer.tensor: layer.local_bound for layer in rounded}
    assert bounds == {"share": 1, "share_u8": 1, "share_i8": 1}
    assert found.first_fault is None


def softmax_within_one_code() -> bytes:
    """A network that ends in a SOFTMAX (within 1 LSB), then a QUANTIZE to uint8 and one back."""
    b, rng, shape = TfliteBuilder(), np.random.default_rng(0), (1, 8, 8, 6)
    pixels = b.input("image", (1, 8, 8, 3), "uint8", 1 / 255, 0)
    codes = b.op("QUANTIZE", [pixels], (1, 8, 8, 3), "int8", 1 / 255, -128, name="quantized")
    weights = rng.integers(-127, 128, (6, 1, 1, 3)).astype(np.int8)
    scales = np.full(6, 0.03125, np.float32)
    bias = b.constant(np.zeros(6, np.int32), np.float32(1 / 255) * scales)
    constants = [b.constant(weights, scales, axis=0), bias]
    options: dict[str, Any] = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
    sums = b.op("CONV_2D", [codes, *constants], shape, "int8", 0.03125, 0, version=3, **options)
    share = b.op("SOFTMAX", [sums], shape, "int8", 1 / 256, -128, name="share", beta=1.0)
    unsigned = b.op("QUANTIZE", [share], shape, "uint8", 1 / 256, 0, name="share_u8")
    signed = b.op("QUANTIZE", [unsigned], shape, "int8", 1 / 256, -128, name="share_i8")
    return b.build([b.op("DEQUANTIZE", [signed], shape, "float32", name="head_real")])


def test_equal_values_on_both_sides_are_computed_once(
    person_model: bytes, embedded_tflite: Path, photograph: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def counting(graph: object, twin: str, *rest: Any) -> Any:
        computed.append(twin)
        return exact_codes(graph, twin, *rest)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr("xdet.checking.layers.exact_codes", counting)
    found = layers_of(person_model, embedded_tflite, photograph)
    assert all(layer.accumulated.differing == 0 for layer in found.layers)
    assert len(computed) == len(found.layers)


def test_a_layer_of_another_shape_is_infinitely_far(tmp_path: Path) -> None:
    """One more row of padding, which the strides behind it swallow: every runtime runs the file."""
    model = convert_for_cpu(st_yolo_lc(64), tmp_path)
    proto = onnx.load_model_from_string(model.read_bytes())
    (conv,) = (node for node in proto.graph.node if node.name == "conv_2d_9/float")
    (pads,) = (attribute.ints for attribute in conv.attribute if attribute.name == "pads")
    pads[0] += 1
    model.write_bytes(proto.SerializeToString())
    picture = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    result = check(model, model.with_suffix(".tflite"), [picture], runtimes="onnxruntime,litert:xnnpack", layers=True)
    static, exact, *_ = result.parts
    assert [(finding.cause, finding.layer) for finding in static.findings] == [
        ("padding", "conv_2d_9"),
        ("layer", "conv_2d_9"),
    ]
    assert exact.findings[-1].layer == "conv_2d_9"
    assert "8,192 of 8,192 differ, by up to inf LSB" in exact.findings[-1].message
    assert '"worst_lsb": null' in check_to_json(result)
    assert result.layers is not None
    assert result.layers.first_fault is not None
    files = {"model": model, "source": model.with_suffix(".tflite")}
    repro = write_layer_repro(tmp_path / "layer.onnx", result.layers.first_fault, **files, photographs=[picture])
    assert (repro.differing, repro.compared) == (8192, 8192)


def test_layers_with_channels_of_zeros_beside_the_source_s_are_compared(tmp_path: Path) -> None:
    sound = convert_for_cpu(filled_network(), tmp_path)
    source, images = (sound.with_suffix(".tflite"), np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), np.uint8))
    found = layers_of(sound.read_bytes(), source, images)
    assert (len(found.layers), found.absent, found.first_fault) == (10, {}, None)
    assert {layer.accumulated.differing for layer in found.layers} == {0}
    wrong = faults.planted(sound.read_bytes(), code_at(POINTWISE, 23, 7, 0, 0))
    found = layers_of(wrong, source, images)
    assert [layer.tensor for layer in found.layers if layer.local.worst > 0] == ["conv_2d_3"]
    pair = opened(wrong, source)
    with OpenRuntimes(pair) as runtimes:
        divergence = first_divergence(pair, images, runtimes)
    assert divergence is not None
    assert (divergence[0], divergence[1].values) == ("conv_2d_3", 24 * 16 * 16)


ROOT = Path(__file__).resolve().parents[3]
VALUES = 64 * 56 * 56  # of the third convolution, at 224 x 224


def conv3() -> LayerResult:
    none = LayerDistance()
    return LayerResult(
        faults.CONV3, "CONV_2D", faults.CONV3, none, none, none, local_bound=0, kernel_bound=0, in_codes=True
    )


def cut(model: bytes, source: Path, pictures: list[Path], folder: Path) -> LayerRepro:
    path = folder / "person.onnx"
    path.write_bytes(model)
    return write_layer_repro(folder / "layer.onnx", conv3(), model=path, source=source, photographs=pictures[:1])


def run_repro(written: LayerRepro) -> tuple[np.ndarray, np.ndarray]:
    """What ONNX Runtime makes of the stored input, and the stored result."""
    session = onnxruntime.InferenceSession(written.model.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (computed,) = session.get_inputs(), session.get_outputs()
    with np.load(written.values) as values:
        assert set(values.files) == {given.name, computed.name}
        (result,) = session.run(None, {given.name: values[given.name]})
        return result, values[computed.name]


def test_a_sound_layer_gives_the_sources_codes(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    written = cut(person_model, embedded_tflite, sample_pictures, tmp_path)
    assert (written.differing, written.compared) == (0, VALUES)
    result, stored = run_repro(written)
    np.testing.assert_array_equal(result, stored)
    assert len(np.unique(stored)) > 50


def test_a_layer_at_fault_shows_its_fault_alone(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    broken = faults.planted(person_model, faults.zero_point_off_by_one)
    written = cut(broken, embedded_tflite, sample_pictures, tmp_path)
    result, stored = run_repro(written)
    assert result.dtype == np.uint8
    steps = result.astype(int) - stored
    assert int((steps != 0).sum()) == written.differing
    assert written.differing > 0.9 * VALUES
    assert int(steps.max()) == 1


def test_the_model_holds_the_layers_operators_and_constants_alone(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    written = cut(person_model, embedded_tflite, sample_pictures, tmp_path)
    model = onnx.load(written.model)
    assert [node.op_type for node in model.graph.node] == [*["DequantizeLinear"] * 3, "Conv", "QuantizeLinear"]
    assert [value.name for value in model.graph.output] == [faults.CONV3]
    assert [value.name for value in model.graph.input] == ["tiny_yolo_v2/pool2/MaxPool"]
    assert model.opset_import[0].version == 13
    assert len(written.model.read_bytes()) < 30_000


def test_equal_requests_give_equal_bytes(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    bytes_of = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        written = cut(person_model, embedded_tflite, sample_pictures, folder)
        bytes_of.append((written.model.read_bytes(), written.values.read_bytes()))
    assert bytes_of[0] == bytes_of[1]


def test_the_values_lie_beside_the_model_and_another_suffix_is_refused() -> None:
    assert values_path(Path("a/layer.onnx")) == Path("a/layer.npz")
    with pytest.raises(UsageError, match=r"`repro` writes an ONNX file, got 'layer.txt'"):
        values_path(Path("layer.txt"))


@pytest.mark.parametrize("is_broken", [True, False], ids=["at fault", "person_model"])
def test_the_command_writes_a_layer_where_one_is_at_fault(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path, *, is_broken: bool
) -> None:
    model = faults.planted(person_model, faults.zero_point_off_by_one) if is_broken else person_model
    (tmp_path / "person.onnx").write_bytes(model)
    done = run_xdet(
        *("check", "person.onnx", "--source", embedded_tflite, "--images", sample_pictures[0]),
        *("--repro", "layer.onnx", "--runtimes", "onnxruntime:cpu,litert:xnnpack"),
        folder=tmp_path,
    )
    assert done.returncode == int(is_broken), done.stderr
    assert (tmp_path / "layer.onnx").exists() is is_broken
    assert (tmp_path / "layer.npz").exists() is is_broken
    told = f"'layer.onnx' and 'layer.npz' hold '{faults.CONV3}'" if is_broken else "no layer is at fault"
    assert told in done.stderr


def test_codes_keep_the_graph_s_dtype_where_none_is_negative(embedded_tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "person.onnx"
    path.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions(activations="int8")).model)
    black = np.zeros((1, 224, 224, 3), np.uint8)
    pair = open_pair(path, embedded_tflite)
    with OpenRuntimes(pair) as runtimes:
        (codes,) = source_codes(pair, black, runtimes)
    name = next(name for name, held in codes.items() if name != IMAGE and held.min() >= 0)
    assert {held.dtype for held in codes.values()} == {np.dtype(np.int8)}
    layer = replace(conv3(), tensor=name, onnx=name)
    written = write_layer_repro(
        tmp_path / "layer.onnx", layer, model=path, source=embedded_tflite, photographs=[black[0]]
    )
    assert written.differing == 0
