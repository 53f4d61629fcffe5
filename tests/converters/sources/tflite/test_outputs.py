"""``--head none`` on networks with several outputs and other ranks, and heads behind a reshape that moves no number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.heads.nms import detect_from_head
from converters.options import ConvertOptions
from converters.spec import RawOutput
from tests.converters.sources.tflite.look_alikes import PROBABILITIES, LookAlike
from xdet.model.file import ModelFile
from xdet.runtimes.litert import LiteRtRuntime
from xdet.runtimes.onnxruntime import open_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.spec import DetectorSpec

SIZE = 8
ANCHORS = ((0.5, 1.5), (2.0, 3.0))


def network(last: str = "", *, quantised: bool = False) -> bytes:
    """A convolution to 12 channels at stride 2, and what ``last`` names behind it."""
    net, half = LookAlike(SIZE), (1, SIZE // 2, SIZE // 2, 12)
    grid = net.grid(2, 12)

    def real(tensor: int, shape: tuple[int, ...], name: str) -> int:
        return tensor if quantised else net.real(tensor, shape, name)

    if last == "grids":
        coarse = (1, SIZE // 4, SIZE // 4, 12)
        return net.b.build([real(net.grid(4, 12, 0.04), coarse, "coarse:0"), real(grid, half, "fine:0")])
    if last == "values by boxes":
        rows = net.reshaped(net.activated("LOGISTIC", grid, half), (1, 6, 32), *PROBABILITIES)
        return net.b.build([real(rows, (1, 6, 32), "out")])
    if last in ("several", "number and several"):
        flat, name = net.reshaped(grid, (1, 192)), "flat:0"
        if last == "number and several":
            axes = net.b.constant(np.array([1, 2, 3], np.int32))
            flat, name = net.b.op("MEAN", [grid, axes], (1,), "int8", 0.02, 3, name="mean"), "number:0"
        return net.b.build([real(flat, (1, 192) if name == "flat:0" else (1,), name), real(grid, half, "grid:0")])
    shape = (1, SIZE // 2, SIZE // 2, 2, 6)
    if last == "anchor axis":
        return net.b.build([real(net.reshaped(grid, shape), shape, "out")])
    if last == "reshape of floats":
        sizes = net.b.constant(np.array(shape, np.int32))
        return net.b.build([net.b.op("RESHAPE", [real(grid, half, "floats"), sizes], shape, "float32", name="out")])
    if last == "logistic":
        grid = net.activated("LOGISTIC", grid, half)
    return net.b.build([real(grid, half, "out")])


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def litert_head(data: bytes, spec: DetectorSpec) -> NDArray[np.float32]:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    with LiteRtRuntime(ModelFile(Path("net.tflite"), data, "tflite"), spec) as runtime:
        return runtime.head(pixels())


@pytest.mark.parametrize("quantised", [False, True], ids=["float outputs", "int8 outputs"])
def test_an_output_may_be_one_number(tmp_path: Path, *, quantised: bool) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(network("number and several", quantised=quantised))
    done = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none")))
    assert [output.shape for output in done.document.spec.raw_outputs] == [(), (4, 4, 12)]
    assert done.document.golden is not None
    with open_onnxruntime(done.model, file="net.onnx") as runtime:
        head = runtime.head(pixels())
    assert head.shape == (3, 193)
    assert np.array_equal(head, litert_head(source.read_bytes(), done.document.spec))


@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
@pytest.mark.parametrize("quantised", [False, True], ids=["float outputs", "int8 outputs"])
def test_several_outputs_of_any_rank_are_litert_s(tmp_path: Path, batch: Any, *, quantised: bool) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(network("several", quantised=quantised))
    options = ConvertOptions(source=SourceOptions(head="none"), batch=batch)
    done = convert_to_bytes(source, options)
    model, document = done.model, done.document
    shapes = [output.shape for output in document.spec.raw_outputs]
    assert (document.spec.head, shapes) == (None, [(192,), (4, 4, 12)])
    if not quantised:
        assert document.spec.raw_outputs == (RawOutput("flat_0", (192,)), RawOutput("grid_0", (4, 4, 12)))
    with open_onnxruntime(model, file="net.onnx") as runtime:
        head = runtime.head(pixels())
        assert head.shape == (3, 384)
        assert np.array_equal(head, litert_head(source.read_bytes(), document.spec))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [
        output.value_name for output in document.spec.raw_outputs
    ]


@pytest.mark.parametrize("last", ["anchor axis", "reshape of floats"])
def test_a_reshape_that_moves_no_number_is_seen_through(tmp_path: Path, last: str) -> None:
    plain, behind = tmp_path / "plain.tflite", tmp_path / "behind.tflite"
    plain.write_bytes(network())
    behind.write_bytes(network(last))
    options = ConvertOptions(source=SourceOptions(anchors=ANCHORS, anchor_unit="cell", score_threshold=0.3))
    one, other = (convert_to_bytes(source, options) for source in (plain, behind))
    assert one.document.spec == other.document.spec
    with (
        open_onnxruntime(one.model, file="plain.onnx") as first,
        open_onnxruntime(other.model, file="behind.onnx") as second,
    ):
        thresholds = one.document.spec.thresholds
        assert np.array_equal(first.head(pixels()), second.head(pixels()))
        assert np.array_equal(second.head(pixels()), litert_head(behind.read_bytes(), other.document.spec))
        ours, theirs = first.detect(pixels(), thresholds), second.detect(pixels(), thresholds)
        assert ours.num_detections.min() > 0
        assert np.array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)


@pytest.mark.parametrize("batch", [1, "dynamic"])
@pytest.mark.parametrize(
    ("last", "stated"),
    [
        ("grids", SourceOptions(anchors=((1, 1.5), (2, 2), (3, 4), (5, 6)), score_threshold=0.3)),
        ("values by boxes", SourceOptions(head="yolo_v8", score_threshold=0.3)),
    ],
    ids=["yolo_v3 of two grids", "yolo_v8"],
)
def test_other_heads_are_fused_and_equal_numpy_on_litert_s_outputs(
    tmp_path: Path, last: str, stated: SourceOptions, batch: Any
) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(network(last))
    done = convert_to_bytes(source, ConvertOptions(source=stated, batch=batch))
    spec = done.document.spec
    raw = litert_head(source.read_bytes(), spec)
    expected = detect_from_head(raw, spec, spec.thresholds)
    with open_onnxruntime(done.model, file="net.onnx") as runtime:
        assert np.array_equal(runtime.head(pixels()), raw)
        found = runtime.detect(pixels(), spec.thresholds)
    assert found.num_detections.min() > 0
    assert np.array_equal(found.anchors, expected.anchors)
    assert np.array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=4e-7)  # the rounding of exp
    raw_only = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"), batch=batch))
    assert raw_only.document.spec.head is None


def test_a_logistic_in_front_of_the_output_contradicts_the_head(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(network("logistic"))
    stated = SourceOptions(anchors=ANCHORS, anchor_unit="cell")
    with pytest.raises(OptionError, match="yolo_v2: LOGISTIC in front of its output"):
        convert_to_bytes(source, ConvertOptions(source=stated))
    asked = SourceOptions(anchors=ANCHORS, anchor_unit="cell", head="yolo_v2")
    notes = convert_to_bytes(source, ConvertOptions(source=asked)).document.notes
    assert any("LOGISTIC in front of its output" in note for note in notes)
