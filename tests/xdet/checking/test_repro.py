"""One layer cut out of a model: it computes what it computed there, and shows the fault for which it was cut out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from converters.spec import IMAGE
from tests.xdet.checking import faults
from tests.xdet.command import run_xdet
from xdet.checking.layers import LayerRepro, source_codes, values_path, write_layer_repro
from xdet.checking.pair import open_pair
from xdet.checking.result import Distance, LayerResult
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import UsageError

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
ROOT = Path(__file__).resolve().parents[3]
VALUES = 64 * 56 * 56  # of the third convolution, at 224 x 224


def conv3() -> LayerResult:
    none = Distance()
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
