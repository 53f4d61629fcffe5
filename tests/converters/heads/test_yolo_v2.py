"""The head as ONNX nodes: equal to the numpy oracle on every runtime at hand, and true to the contract's table.

Two claims are kept apart, because ``exp`` rounds differently everywhere. Decoded boxes and scores agree with the oracle
within ``ROUNDING``. From decoded values on there is no tolerance: the rows are exactly those that the oracle's
``suppress`` and ``select_best`` make of the runtime's *own* boxes and scores, ties and all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from converters.graph import IR_VERSION, OPSET, GraphWriter, infer_shapes, keep_static_shapes
from converters.heads.base import BatchDetections
from converters.heads.nms import detect_from_head, limit_candidates, select_best, suppress
from converters.heads.nms_nodes import add_head
from converters.heads.yolo_v2 import YoloV2
from converters.opset import stamp_opset
from converters.spec import Anchors, DetectorSpec, ImageInput, Rescaling, Thresholds, contract_io

Float32 = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
Run = Callable[[bytes, Mapping[str, NDArray[Any]]], Arrays]

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes", "detection_anchors")
ROUNDING = 4e-7  # values up to 1 after exp (at most 2 units in the last place off) and up to six float32 operations
ANCHORS_CELLS = ((0.9, 3.3), (2.1, 1.3), (0.5, 0.5), (5.5, 9.3), (9.7, 11.1))
IOU_OFF_THE_LATTICE = 0.4567  # int8 heads make round IoUs; at exactly the threshold OpenVINO suppresses, ONNX does not


def make_spec(
    grid: tuple[int, int], *, anchors: int = 5, classes: int = 1, rows: int = 100, score: float = 0.3
) -> DetectorSpec:
    return DetectorSpec(
        image=ImageInput(grid[0] * 32, grid[1] * 32, Rescaling(1 / 255, 0.0)),
        head=YoloV2(grid[0], grid[1], Anchors(ANCHORS_CELLS[:anchors], "cell"), classes),
        class_names=tuple(f"class {i}" for i in range(classes)),
        thresholds=Thresholds(score=score, iou=IOU_OFF_THE_LATTICE, max_detections=rows),
    )


@functools.cache
def head_model(spec: DetectorSpec, *, batch: int | str = 1, frozen: bool = False, decoded: bool = False) -> bytes:
    """A model whose input is the raw head; ``decoded`` makes its boxes and scores outputs, too."""
    writer = GraphWriter("head")
    head = writer.input("head", ir.DataType.FLOAT, [batch, *spec.network_outputs[0].shape])
    _, promised = contract_io(spec, batch, freeze_thresholds=frozen)
    add_head(writer, [head], spec, promised, freeze_thresholds=frozen)
    written = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(written)
    stamp_opset(written, None)
    keep_static_shapes(written, batch)
    model = ir.to_proto(written)
    if decoded:
        names = ("head/boxes", "head/scores" if len(spec.class_names) > 1 else "head/objectness")
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, spec.num_boxes, size])
            for name, size in zip(names, (4, len(spec.class_names)), strict=True)
        )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


@functools.cache
def onnxruntime_session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # overridable initialisers draw a warning each
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnxruntime(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    session = onnxruntime_session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def run_reference(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    with np.errstate(over="ignore"):  # exp of huge logits is infinity by design
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))


def run_openvino(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    openvino = pytest.importorskip("openvino", reason='needs pip install "xdet[openvino]"')
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(dict(feeds))
    return {output.get_any_name(): results[output] for output in compiled.outputs}


RUNTIMES: dict[str, Run] = {"onnxruntime": run_onnxruntime, "reference": run_reference, "openvino": run_openvino}


def lattice_head(spec: DetectorSpec, *, batch: int, step: float, limit: int, seed: int = 0) -> Float32:
    """A head of few distinct values, as int8 makes it: ties everywhere."""
    codes = np.random.default_rng(seed).integers(-limit, limit + 1, (batch, *spec.network_outputs[0].shape))
    return (codes * step).astype(np.float32)


def as_batch(outputs: Arrays) -> BatchDetections:
    return BatchDetections(*(outputs[name] for name in OUTPUTS))


def assert_equal(actual: BatchDetections, expected: BatchDetections, *, atol: float) -> None:
    np.testing.assert_array_equal(actual.num_detections, expected.num_detections)
    np.testing.assert_array_equal(actual.anchors, expected.anchors)
    np.testing.assert_array_equal(actual.classes, expected.classes)
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=0, atol=atol)
    np.testing.assert_allclose(actual.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=atol)


def rows_of_decoded(outputs: Arrays, thresholds: Thresholds) -> BatchDetections:
    """What the oracle's second half makes of a runtime's own boxes and scores."""
    boxes = outputs["head/boxes"]
    scores = outputs["head/scores"] if "head/scores" in outputs else outputs["head/objectness"]
    selected = [
        suppress(b, limit_candidates(s, score_threshold=thresholds.score), s.shape[1], thresholds)
        for b, s in zip(boxes, scores, strict=True)
    ]
    return select_best(boxes, scores, selected, thresholds.max_detections)


SHAPES = [
    pytest.param(make_spec((6, 6)), 1, id="6x6, one class"),
    pytest.param(make_spec((3, 4), classes=3, rows=7), 3, id="3x4, three classes, batch 3, more found than rows"),
    pytest.param(make_spec((3, 2), anchors=2), 2, id="3x2, fewer boxes than rows"),
    pytest.param(make_spec((2, 2), anchors=2, classes=80, rows=50), 2, id="2x2, 80 classes"),
    pytest.param(make_spec((1, 1), anchors=1), 1, id="one box"),
    pytest.param(make_spec((1, 1), anchors=1, rows=1), 1, id="one box, one row"),
    pytest.param(make_spec((1, 1), anchors=1, classes=3, rows=4), 1, id="one box, three classes, four rows"),
    pytest.param(make_spec((4, 4), classes=80), 1, id="6400 candidates, above the limit of 4096"),
]

KEY_DTYPES = [  # 2^24 = 16,777,216 is the last number of ranks times places that float32 keys hold
    pytest.param(make_spec((6, 6)), onnx.TensorProto.FLOAT, id="6x6"),
    pytest.param(make_spec((13, 13), classes=80), onnx.TensorProto.FLOAT, id="13x13, 80 classes, 101 ranks"),
    pytest.param(make_spec((57, 57), rows=1032), onnx.TensorProto.FLOAT, id="1,032 x 16,245 = 16,764,840"),
    pytest.param(make_spec((57, 57), rows=1033), onnx.TensorProto.INT64, id="1,033 x 16,245 = 16,781,085"),
    pytest.param(make_spec((13, 13), classes=80, rows=247), onnx.TensorProto.FLOAT, id="248 x 67,600 = 16,764,800"),
    pytest.param(make_spec((13, 13), classes=80, rows=248), onnx.TensorProto.INT64, id="249 x 67,600 = 16,832,400"),
]


SCORES = {"at 0.3": 0.3, "all above 0": 0.0, "none above 1": 1.0}


def promised(runtime: str, spec: Any, score: float) -> bool:
    """Whether a runtime promises rows: OpenVINO's TopK breaks ties at the limit of candidates in any order."""
    full = spec.num_candidates < spec.num_boxes * len(spec.class_names) and score == 0.0
    return not (full and runtime == "openvino")


@pytest.mark.parametrize(
    ("runtime", "spec", "batch", "score"),
    [
        pytest.param(runtime, *shape.values, score, id=f"{runtime}-{shape.id}-{name}")
        for runtime in RUNTIMES
        for shape in SHAPES
        for name, score in SCORES.items()
        if promised(runtime, shape.values[0], score)
    ],
)
@pytest.mark.parametrize(
    ("step", "limit"),
    [
        pytest.param(0.25, 16, id="lattice"),
        pytest.param(10.0, 8, id="saturating lattice"),
        pytest.param(5000.0, 2, id="logits of 1e4"),
        pytest.param(1.0, 0, id="all equal"),
    ],
)
def test_rows_are_exactly_the_oracles_on_the_decoded_values(
    *, runtime: str, spec: DetectorSpec, batch: int, step: float, limit: int, score: float
) -> None:
    spec = replace(spec, thresholds=replace(spec.thresholds, score=score))
    head = lattice_head(spec, batch=batch, step=step, limit=limit)
    outputs = RUNTIMES[runtime](head_model(spec, batch=batch, frozen=True, decoded=True), {"head": head})
    assert_equal(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds), atol=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("spec", "step"),
    [
        pytest.param(make_spec((6, 6)), 0.25, id="6x6, one class"),
        pytest.param(make_spec((6, 6), score=0.001), 0.25, id="6x6, one class, at 0.001"),
        pytest.param(make_spec((3, 4), classes=3, rows=7), 0.3, id="3x4, three classes"),
        pytest.param(make_spec((3, 2), anchors=2), 5000.0, id="3x2, logits of 1e4"),
    ],
)
def test_detections_are_the_oracles_from_head_to_rows(runtime: str, spec: DetectorSpec, step: float) -> None:
    head = lattice_head(spec, batch=2, step=step, limit=16 if step < 1 else 2, seed=3)
    outputs = RUNTIMES[runtime](head_model(spec, batch="N", frozen=True), {"head": head})
    expected = detect_from_head(head, spec, spec.thresholds)
    assert expected.num_detections.min() > 0
    assert_equal(as_batch(outputs), expected, atol=ROUNDING)


@settings(deadline=None, max_examples=80)
@given(
    spec=st.sampled_from(
        [make_spec((2, 3), anchors=3, rows=5), make_spec((2, 3), anchors=3), make_spec((3, 2), classes=3, rows=9)]
    ),
    step=st.sampled_from([0.125, 1.0, 6.0, 1e4]),
    score=st.sampled_from([0.0, 0.001, 0.5, 0.9, 1.0]),
    iou=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    data=st.data(),
)
def test_any_head_gives_exactly_the_oracles_rows(
    spec: DetectorSpec, step: float, score: float, iou: float, data: st.DataObject
) -> None:
    shape = (2, *spec.network_outputs[0].shape)
    head = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-4, 4))).astype(np.float32) * np.float32(step)
    thresholds = Thresholds(score=score, iou=iou, max_detections=spec.thresholds.max_detections)
    feeds = {"head": head, "score_threshold": np.array(score, np.float32), "iou_threshold": np.array(iou, np.float32)}
    outputs = run_onnxruntime(head_model(spec, batch="N", decoded=True), feeds)
    assert_equal(as_batch(outputs), rows_of_decoded(outputs, thresholds), atol=0)


@settings(deadline=None, max_examples=80)
@given(
    corners=hnp.arrays(np.float32, (20, 2, 2), elements=st.integers(0, 10).map(lambda n: np.float32(n / 10))),
    iou=st.sampled_from([0.0, 0.2, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_a_box_at_exactly_the_iou_threshold_stays_as_onnxruntime_has_it(corners: Float32, iou: float) -> None:
    boxes = np.sort(corners, axis=1).reshape(-1, 4)
    scores = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32)
    feeds = {"boxes": boxes[None], "scores": scores[None, None], "iou": np.array([iou], np.float32)}
    expected = run_onnxruntime(suppression_model(), feeds)["selected"][:, 2]
    candidates = limit_candidates(scores[:, None], score_threshold=0.1)
    np.testing.assert_array_equal(suppress(boxes, candidates, 1, Thresholds(score=0.1, iou=iou)), expected)


@functools.cache
def suppression_model() -> bytes:
    text = f"""<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
        nms (float[1, 20, 4] boxes, float[1, 1, 20] scores, float[1] iou) => (int64[n, 3] selected)
        <int64[1] cap = {{100}}, float[1] score = {{0.1}}>
        {{ selected = NonMaxSuppression(boxes, scores, cap, iou, score) }}"""
    return bytes(onnx.parser.parse_model(text).SerializeToString())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_scores_never_contradict_the_order_of_the_logits(runtime: str) -> None:
    # ONNX Runtime's own Sigmoid fails this: it is not monotone beyond logits of 7.
    spec = make_spec((20, 20))
    head = np.zeros((1, spec.num_boxes, 6), np.float32)
    head[0, :, 4] = np.linspace(-18, 18, spec.num_boxes)
    feeds = {"head": head.reshape(1, 20, 20, 30)}
    if runtime == "reference":
        spec = replace(spec, thresholds=replace(spec.thresholds, score=1.0))  # its suppression is slow
    scores = RUNTIMES[runtime](head_model(spec, frozen=True, decoded=True), feeds)["head/objectness"]
    assert (np.diff(scores[0, :, 0]) >= 0).all()


def test_decoded_values_agree_with_the_oracle_within_float32_rounding() -> None:
    spec = make_spec((5, 7), classes=3)
    head = np.random.default_rng(0).normal(0, 2, (2, 5, 7, spec.network_outputs[0].shape[-1])).astype(np.float32)
    everything = Thresholds(score=0.0, iou=1.0, max_detections=525)
    expected = detect_from_head(head, spec, everything)
    model = head_model(replace(spec, thresholds=everything), batch=2)
    actual = as_batch(run_onnxruntime(model, {"head": head}))
    # Scores a rounding apart may be ranked either way: put both into source order before comparing.
    for image in range(2):
        mine, oracle = (np.lexsort((found.classes[image], found.anchors[image])) for found in (actual, expected))
        np.testing.assert_array_equal(actual.anchors[image, mine], expected.anchors[image, oracle])
        np.testing.assert_array_equal(actual.classes[image, mine], expected.classes[image, oracle])
        for ours, theirs in ((actual.scores, expected.scores), (actual.boxes_xyxy, expected.boxes_xyxy)):
            np.testing.assert_allclose(ours[image, mine], theirs[image, oracle], rtol=0, atol=ROUNDING)


def test_the_candidate_limit_lets_the_best_4096_through() -> None:
    spec = replace(make_spec((8, 8), classes=16), thresholds=Thresholds(score=0.0, iou=1.0, max_detections=4096))
    head = np.random.default_rng(0).normal(0, 1, (1, 8, 8, spec.network_outputs[0].shape[-1])).astype(np.float32)
    outputs = run_onnxruntime(head_model(spec, frozen=True, decoded=True), {"head": head})
    assert spec.num_boxes * 16 == 5120
    assert outputs["num_detections"].tolist() == [4096]
    assert_equal(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds), atol=0)


@pytest.mark.parametrize(("spec", "dtype"), KEY_DTYPES)
def test_row_keys_are_float32_as_long_as_that_is_exact(spec: DetectorSpec, dtype: int) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(head_model(spec)), data_prop=True).graph
    dtypes = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert dtypes["head/row_keys"] == dtype


@pytest.mark.parametrize(("spec", "dtype"), KEY_DTYPES)
@pytest.mark.parametrize("step", [pytest.param(1e-3, id="no ties"), pytest.param(2.0, id="ties")])
def test_rows_are_the_oracles_on_both_sides_of_the_largest_float32_key(
    spec: DetectorSpec, dtype: int, step: float
) -> None:
    del dtype  # what is written; the rows are the same
    spec = replace(spec, thresholds=replace(spec.thresholds, score=0.001, iou=1.0))
    head = lattice_head(spec, batch=1, step=step, limit=3000 if step < 1 else 3)
    outputs = run_onnxruntime(head_model(spec, frozen=True, decoded=True), {"head": head})
    assert outputs["num_detections"].tolist() == [spec.thresholds.max_detections]
    assert_equal(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds), atol=0)


@pytest.mark.parametrize("frozen", [False, True])
def test_suppression_gets_the_score_threshold_0_that_every_runtime_takes(*, frozen: bool) -> None:
    graph = onnx.load_from_string(head_model(make_spec((6, 6), classes=3), frozen=frozen)).graph
    (suppression,) = [node for node in graph.node if node.op_type == "NonMaxSuppression"]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    np.testing.assert_array_equal(constants[suppression.input[4]], np.array([0], np.float32))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_boxes_below_the_score_threshold_suppress_nothing_and_take_no_row(runtime: str) -> None:
    spec = make_spec((1, 4), anchors=1, classes=2, rows=2, score=0.5)
    head = np.zeros((1, 1, 4, 7), np.float32)
    head[..., 2:4] = 9  # every box is the whole picture
    head[..., 4] = [-1, 9, 3, -9]
    head[..., 5:7] = [[9, 0], [9, 0], [0, 9], [9, 0]]
    outputs = RUNTIMES[runtime](head_model(spec, frozen=True), {"head": head})
    assert outputs["num_detections"].tolist() == [2]
    assert outputs["detection_anchors"].tolist() == [[1, 2]]
    assert outputs["detection_classes"].tolist() == [[0, 1]]


def test_thresholds_can_be_given_at_run_time() -> None:
    spec = make_spec((6, 6), score=0.5)
    model, head = head_model(spec), lattice_head(spec, batch=1, step=0.25, limit=16)
    for score, iou in ((0.001, 0.9), (0.9, 0.1)):
        feeds = {
            "head": head,
            "score_threshold": np.array(score, np.float32),
            "iou_threshold": np.array(iou, np.float32),
        }
        expected = detect_from_head(head, spec, Thresholds(score=score, iou=iou))
        assert_equal(as_batch(run_onnxruntime(model, feeds)), expected, atol=ROUNDING)
    defaults = detect_from_head(head, spec, spec.thresholds)
    assert_equal(as_batch(run_onnxruntime(model, {"head": head})), defaults, atol=ROUNDING)


def test_a_score_at_the_threshold_does_not_count() -> None:
    spec = make_spec((1, 1), anchors=1, score=0.5)
    outputs = run_onnxruntime(head_model(spec, frozen=True), {"head": np.zeros((1, 1, 1, 6), np.float32)})
    assert outputs["num_detections"].tolist() == [0]  # sigmoid(0) is exactly 0.5
    assert not outputs["detection_boxes"].any()
    assert (outputs["detection_anchors"] == -1).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_a_batch_gives_what_its_images_give_alone(classes: int) -> None:
    spec = make_spec((4, 3), classes=classes)
    head = lattice_head(spec, batch=3, step=0.5, limit=8)
    together = run_onnxruntime(head_model(spec, batch="N"), {"head": head})
    fixed = run_onnxruntime(head_model(spec, batch=3), {"head": head})
    for name in OUTPUTS:
        alone = [run_onnxruntime(head_model(spec), {"head": head[i : i + 1]})[name] for i in range(3)]
        np.testing.assert_array_equal(together[name], np.concatenate(alone))
        np.testing.assert_array_equal(fixed[name], together[name])


def test_no_tensor_of_a_run_is_empty_even_without_detections() -> None:
    model = onnx.load_from_string(head_model(make_spec((2, 2), rows=1, score=1.0), frozen=True))
    evaluator = ReferenceEvaluator(model)
    feeds = {"head": np.full((1, 2, 2, 30), -9, np.float32)}
    values: Any = evaluator.run(None, feeds, intermediate=True)
    empty = [name for name, value in values.items() if value is not None and value.size == 0]
    assert empty == []
