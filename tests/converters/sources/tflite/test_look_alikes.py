"""Look-alikes of other makers' detectors: recognised or asked for by name, fused and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.heads.blazeface import BlazeFace
from converters.heads.grids import YoloV3, YoloV5Raw
from converters.heads.nms import detect_from_head
from converters.heads.one_grid import FastestDet
from converters.options import ConvertOptions
from converters.spec import contract_io
from tests.converters.sources.tflite.look_alikes import SIZE, blazeface, fastestdet, three_grids
from xdet.checking.check import check
from xdet.model.file import ModelFile
from xdet.runtimes.litert import LiteRtRuntime
from xdet.runtimes.onnxruntime import open_onnxruntime

if TYPE_CHECKING:
    from converters.heads.base import BatchDetections, Head

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
PIXELS = tuple((float(6 * i), float(5 * i)) for i in range(1, 7))
CELLS = tuple((0.5 + i / 4, 0.75 + i / 4) for i in range(6))
LEVELS = ((8, 8, 2), (4, 4, 6))

CASES: dict[str, tuple[bytes, SourceOptions, type[Head]]] = {
    "raw yolo_v5": (three_grids(14), SourceOptions(head="yolo_v5_raw", anchors=PIXELS), YoloV5Raw),
    "raw yolo_v5, anchors first": (three_grids(14, anchors_first=2), SourceOptions(anchors=PIXELS), YoloV5Raw),
    "st_yolo_x": (three_grids(14), SourceOptions(head="st_yolo_x", anchors=CELLS), YoloV3),
    "st_yolo_x, one list": (three_grids(14), SourceOptions(head="st_yolo_x", anchors=CELLS[:2]), YoloV3),
    "yolo_v3": (three_grids(14), SourceOptions(anchors=PIXELS), YoloV3),
    "blazeface": (blazeface(), SourceOptions(), BlazeFace),
    "blazeface, outputs of each level": (blazeface(keypoints=3, separate=True), SourceOptions(), BlazeFace),
    "fastestdet": (fastestdet(3), SourceOptions(class_agnostic=True), FastestDet),
    "fastestdet, one class": (fastestdet(1), SourceOptions(), FastestDet),
}
every_case = pytest.mark.parametrize(("data", "source_options", "kind"), CASES.values(), ids=CASES)


def save(folder: Path, data: bytes) -> Path:
    source = folder / "net.tflite"
    source.write_bytes(data)
    return source


@every_case
def test_boxes_are_those_of_numpy_on_litert_s_outputs(
    tmp_path: Path, data: bytes, source_options: SourceOptions, kind: type[Head]
) -> None:
    done = convert_to_bytes(save(tmp_path, data), ConvertOptions(source=source_options, batch=3))
    spec = done.document.spec
    assert type(spec.head) is kind
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    images[2] = 0
    with LiteRtRuntime(ModelFile(Path("net.tflite"), data, "tflite"), spec) as runtime:
        raw = runtime.head(images)
    with open_onnxruntime(done.model, file="net.onnx") as runtime:
        np.testing.assert_array_equal(runtime.head(images), raw)
        own = runtime.head(images)
        for score in (0.3, 0.0):
            thresholds = type(spec.thresholds)(score, 0.45, 100)
            found, expected = runtime.detect(images, thresholds), detect_from_head(own, spec, thresholds)
            assert found.num_detections[:2].min() > 0
            for ours, theirs in zip(by_box(found), by_box(expected), strict=True):
                assert ours.keys() == theirs.keys()
                for key, row in ours.items():
                    np.testing.assert_allclose(row, theirs[key], rtol=0, atol=4e-7)  # exp rounds differently


def by_box(found: BatchDetections) -> list[dict[tuple[int, int], list[float]]]:
    """Per image: (box, class) -> score and corners; scores that meet within rounding may stand in either order."""
    return [
        {
            (int(found.anchors[image, r]), int(found.classes[image, r])): [
                float(found.scores[image, r]),
                *found.boxes_xyxy[image, r].tolist(),
            ]
            for r in range(count)
        }
        for image, count in enumerate(found.num_detections)
    ]


@pytest.mark.parametrize("name", ["raw yolo_v5, anchors first", "blazeface, outputs of each level", "fastestdet"])
def test_check_passes(tmp_path: Path, sample_pictures: list[Path], name: str) -> None:
    data, source_options, _ = CASES[name]
    source, model = save(tmp_path, data), tmp_path / "net.onnx"
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=source_options)).model)
    result = check(model, source, sample_pictures, runtimes="onnxruntime:cpu,litert:xnnpack,litert:builtin")
    assert result.findings == ()
    lines = [line for line in result.runs if line.name == "onnxruntime:cpu"]
    assert [line.probes_followed for line in lines] == [line.probes for line in lines]
    assert (lines[0].probes or 0) >= 6


def test_keypoints_of_blazeface_are_an_output_of_the_contract(tmp_path: Path) -> None:
    done = convert_to_bytes(save(tmp_path, blazeface()), ConvertOptions(batch=2))
    _, promised = contract_io(done.document.spec, 2, freeze_thresholds=False)
    assert (promised[-1].name, promised[-1].shape) == ("detection_keypoints", (2, 100, 6, 2))
    session = onnxruntime.InferenceSession(done.model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    assert [output.name for output in session.get_outputs()] == [tensor.name for tensor in promised]
    points = session.run(["detection_keypoints"], {"image": images})[0]
    assert points.shape == (2, 100, 6, 2)
    assert np.abs(points).max() > 0


def test_anchors_of_st_yolo_x_are_cells_of_their_own_grid(tmp_path: Path) -> None:
    data, source_options, _ = CASES["st_yolo_x"]
    head: Any = convert_to_bytes(save(tmp_path, data), ConvertOptions(source=source_options)).document.spec.head
    assert (head.class_activation, head.num_classes) == ("softmax", 2)
    strides = {2: 32.0, 8: 8.0, 4: 16.0}
    for grid, first in zip(head.grids, (4, 0, 2), strict=True):
        for found, cells in zip(grid.anchors_px, CELLS[first : first + 2], strict=True):
            assert found == pytest.approx([side * strides[grid.rows] for side in cells])


@pytest.mark.parametrize(
    ("data", "source_options", "told"),
    [
        (three_grids(14), SourceOptions(head="yolo_v5_raw"), "its raw YOLO v5 head .* needs anchors of all grids"),
        (
            three_grids(14),
            SourceOptions(head="st_yolo_x", anchors=CELLS[:5]),
            "5 anchors .* over 3 grids cannot make 14",
        ),
        (three_grids(14, anchors_first=2), SourceOptions(anchors=PIXELS[:3]), "3 anchors .* cannot make 14"),
        (blazeface(), SourceOptions(class_names=("face", "hand")), "scores 1 class, 2 are named"),
        (blazeface(), SourceOptions(head="fastestdet"), "fastestdet: a FastestDet head is one output"),
        (fastestdet(2), SourceOptions(head="blazeface"), "blazeface: a BlazeFace head is boxes"),
        (fastestdet(2), SourceOptions(class_names=("a",)), "scores 2 classes, 1 are named"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, data: bytes, source_options: SourceOptions, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        convert_to_bytes(save(tmp_path, data), ConvertOptions(source=source_options))


def test_a_softmax_is_kept_from_integer_kernels(tmp_path: Path) -> None:
    """ONNX Runtime's gave 0 for the 1 of one class, tract's gives wrong codes."""
    for classes in (1, 3):
        model = convert_to_bytes(save(tmp_path, fastestdet(classes)), ConvertOptions(arithmetic="fused")).model
        nodes = onnx.load_model_from_string(model).graph.node
        (softmax,) = [node for node in nodes if node.op_type == "Softmax"]
        assert [node.op_type for node in nodes if softmax.output[0] in node.input] == ["Min"]
