"""The head as ONNX nodes: equal to the numpy oracle on every runtime at hand, and true to the contract's table.

Two claims are kept apart, because ``exp`` rounds differently everywhere. Decoded boxes and scores agree with the oracle
within ``ROUNDING``. From decoded values on there is no tolerance: the rows are exactly those that the oracle's
``suppress`` and ``select_best`` make of the runtime's *own* boxes and scores, ties and all.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx.reference import ReferenceEvaluator

from converters.errors import ContractError
from converters.graph import IR_VERSION, OPSET, GraphWriter
from converters.heads import HEADS
from converters.heads.blazeface import BlazeFace
from converters.heads.nms import detect_decoded, detect_from_head, limit_candidates, suppress
from converters.heads.nms_nodes import add_head
from converters.heads.yolo_v2 import YoloV2
from converters.spec import (
    Anchors,
    DetectorSpec,
    ImageInput,
    RawOutput,
    Rescaling,
    Suppression,
    Thresholds,
    contract_io,
)
from tests.converters.heads.decoding import (
    OUTPUTS,
    RAW_OUTPUTS,
    ROUNDING,
    RUNTIMES,
    Arrays,
    Float32,
    as_batch,
    assert_equal_rows,
    detector,
    feeds_of,
    lattice_outputs,
    run_onnxruntime,
    spec_of,
)
from tests.converters.heads.test_heads import EXAMPLES, every_head
from tests.slow import mostly_slow

if TYPE_CHECKING:
    from converters.heads.base import BatchDetections, Head

ANCHORS_CELLS = ((0.9, 3.3), (2.1, 1.3), (0.5, 0.5), (5.5, 9.3), (9.7, 11.1))
IOU_OFF_THE_LATTICE = 0.4567  # int8 heads make round IoUs; at exactly the threshold OpenVINO suppresses, ONNX does not


def make_spec(
    grid: tuple[int, int], *, anchors: int = 5, classes: int = 1, rows: int = 100, score: float = 0.3
) -> DetectorSpec:
    head = YoloV2(*grid, Anchors(ANCHORS_CELLS[:anchors], "cell"), classes)
    return spec_of(head, Thresholds(score=score, iou=IOU_OFF_THE_LATTICE, max_detections=rows))


def lattice_head(spec: DetectorSpec, *, batch: int, step: float, limit: int, seed: int = 0) -> Float32:
    assert spec.head is not None
    return lattice_outputs(spec.head, batch, step=step, limit=limit, seed=seed)[0]


def rows_of_decoded(outputs: Arrays, thresholds: Thresholds, rule: Suppression | None = None) -> BatchDetections:
    """What the oracle's second half makes of a runtime's own boxes and scores, its last two outputs."""
    *_, boxes, scores = outputs.values()
    return detect_decoded(boxes, scores, thresholds, rule or Suppression())


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
    outputs = RUNTIMES[runtime](detector(spec, batch=batch, decoded=True), {"head": head})
    assert_equal_rows(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds))


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
    outputs = RUNTIMES[runtime](detector(spec, batch="N"), {"head": head})
    expected = detect_from_head(head, spec, spec.thresholds)
    assert expected.num_detections.min() > 0
    assert_equal_rows(as_batch(outputs), expected, atol=ROUNDING)


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
    outputs = run_onnxruntime(detector(spec, batch="N", frozen=False, decoded=True), feeds)
    assert_equal_rows(as_batch(outputs), rows_of_decoded(outputs, thresholds))


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
    np.testing.assert_array_equal(
        suppress(boxes, candidates, 1, Thresholds(score=0.1, iou=iou), Suppression()), expected
    )


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
    scores = RUNTIMES[runtime](detector(spec, decoded=True), feeds)["head/objectness"]
    assert (np.diff(scores[0, :, 0]) >= 0).all()


def test_decoded_values_agree_with_the_oracle_within_float32_rounding() -> None:
    spec = make_spec((5, 7), classes=3)
    head = np.random.default_rng(0).normal(0, 2, (2, 5, 7, spec.network_outputs[0].shape[-1])).astype(np.float32)
    everything = Thresholds(score=0.0, iou=1.0, max_detections=525)
    expected = detect_from_head(head, spec, everything)
    model = detector(replace(spec, thresholds=everything), batch=2)
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
    outputs = run_onnxruntime(detector(spec, decoded=True), {"head": head})
    assert spec.num_boxes * 16 == 5120
    assert outputs["num_detections"].tolist() == [4096]
    assert_equal_rows(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds))


@pytest.mark.parametrize(("spec", "dtype"), KEY_DTYPES)
def test_row_keys_are_float32_as_long_as_that_is_exact(spec: DetectorSpec, dtype: int) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(detector(spec)), data_prop=True).graph
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
    outputs = run_onnxruntime(detector(spec, decoded=True), {"head": head})
    assert outputs["num_detections"].tolist() == [spec.thresholds.max_detections]
    assert_equal_rows(as_batch(outputs), rows_of_decoded(outputs, spec.thresholds))


@pytest.mark.parametrize("frozen", [False, True])
def test_suppression_gets_the_score_threshold_0_that_every_runtime_takes(*, frozen: bool) -> None:
    graph = onnx.load_from_string(detector(make_spec((6, 6), classes=3), frozen=frozen)).graph
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
    outputs = RUNTIMES[runtime](detector(spec), {"head": head})
    assert outputs["num_detections"].tolist() == [2]
    assert outputs["detection_anchors"].tolist() == [[1, 2]]
    assert outputs["detection_classes"].tolist() == [[0, 1]]


def test_thresholds_can_be_given_at_run_time() -> None:
    spec = make_spec((6, 6), score=0.5)
    model, head = detector(spec, frozen=False), lattice_head(spec, batch=1, step=0.25, limit=16)
    for score, iou in ((0.001, 0.9), (0.9, 0.1)):
        feeds = {
            "head": head,
            "score_threshold": np.array(score, np.float32),
            "iou_threshold": np.array(iou, np.float32),
        }
        expected = detect_from_head(head, spec, Thresholds(score=score, iou=iou))
        assert_equal_rows(as_batch(run_onnxruntime(model, feeds)), expected, atol=ROUNDING)
    defaults = detect_from_head(head, spec, spec.thresholds)
    assert_equal_rows(as_batch(run_onnxruntime(model, {"head": head})), defaults, atol=ROUNDING)


def test_a_score_at_the_threshold_does_not_count() -> None:
    spec = make_spec((1, 1), anchors=1, score=0.5)
    outputs = run_onnxruntime(detector(spec), {"head": np.zeros((1, 1, 1, 6), np.float32)})
    assert outputs["num_detections"].tolist() == [0]  # sigmoid(0) is exactly 0.5
    assert not outputs["detection_boxes"].any()
    assert (outputs["detection_anchors"] == -1).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_a_batch_gives_what_its_images_give_alone(classes: int) -> None:
    spec = make_spec((4, 3), classes=classes)
    head = lattice_head(spec, batch=3, step=0.5, limit=8)
    together = run_onnxruntime(detector(spec, batch="N", frozen=False), {"head": head})
    fixed = run_onnxruntime(detector(spec, batch=3), {"head": head})
    for name in OUTPUTS:
        alone = [run_onnxruntime(detector(spec), {"head": head[i : i + 1]})[name] for i in range(3)]
        np.testing.assert_array_equal(together[name], np.concatenate(alone))
        np.testing.assert_array_equal(fixed[name], together[name])


def test_no_tensor_of_a_run_is_empty_even_without_detections() -> None:
    model = onnx.load_from_string(detector(make_spec((2, 2), rows=1, score=1.0)))
    evaluator = ReferenceEvaluator(model)
    feeds = {"head": np.full((1, 2, 2, 30), -9, np.float32)}
    values: Any = evaluator.run(None, feeds, intermediate=True)
    empty = [name for name, value in values.items() if value is not None and value.size == 0]
    assert empty == []


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("classes", [1, 3])
def test_outputs_have_the_contracts_names_dtypes_and_shapes_in_its_order(batch: int | str, classes: int) -> None:
    graph = onnx.load_from_string(detector(make_spec((6, 6), classes=classes, rows=50), batch)).graph
    types = {output.name: output.type.tensor_type for output in graph.output}
    found = [
        (name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]) for name, kind in types.items()
    ]
    assert found == [
        ("num_detections", onnx.TensorProto.INT32, [batch]),
        ("detection_boxes", onnx.TensorProto.FLOAT, [batch, 50, 4]),
        ("detection_scores", onnx.TensorProto.FLOAT, [batch, 50]),
        ("detection_classes", onnx.TensorProto.INT32, [batch, 50]),
        ("detection_anchors", onnx.TensorProto.INT32, [batch, 50]),
    ]


def test_thresholds_are_inputs_with_defaults_unless_they_are_frozen() -> None:
    spec = make_spec((6, 6), score=0.25)
    graph = onnx.load_from_string(detector(spec, frozen=False)).graph
    assert [value.name for value in graph.input] == ["head", "score_threshold", "iou_threshold"]
    assert all(len(value.type.tensor_type.shape.dim) == 0 for value in graph.input[1:])
    defaults = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, value in (("score_threshold", 0.25), ("iou_threshold", IOU_OFF_THE_LATTICE)):
        assert (defaults[name].dtype.name, defaults[name].shape) == ("float32", ())
        assert defaults[name] == np.float32(value)
    assert [value.name for value in onnx.load_from_string(detector(spec)).graph.input] == ["head"]


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(make_spec((13, 13)), id="one class"),
        pytest.param(make_spec((1, 1)), id="fewer boxes than rows"),
        pytest.param(make_spec((13, 13), classes=80), id="more candidates than the limit"),
    ],
)
def test_the_graph_is_standard_small_and_the_same_every_time(spec: DetectorSpec, batch: int | str) -> None:
    model = detector(spec, batch)
    assert detector.__wrapped__(spec, batch) == model
    graph = onnx.load_from_string(model).graph
    assert {node.domain for node in graph.node} == {""}
    assert len(graph.node) <= 86
    assert len(model) < 17_000 + 40 * spec.num_boxes


UNKNOWN = DetectorSpec(ImageInput(32, 32, Rescaling(1.0, 0.0)), None, raw_outputs=(RawOutput("", (1, 1, 6)),))


@pytest.mark.parametrize(
    ("spec", "name", "shape", "message"),
    [
        (UNKNOWN, "head", [1, 1, 1, 6], r"head is not known .* cannot be written as nodes"),
        (make_spec((6, 6)), "conv_9", [1, 30, 6, 6], r"head 'conv_9' is \[1,30,6,6\], expected \[N, 6, 6, 30\]"),
        *(
            (
                make_spec((6, 6)),
                name,
                [1, 6, 6, 30],
                f"a tensor of the network is named '{name}', which the contract needs",
            )
            for name in ("score_threshold", "detection_boxes")
        ),
    ],
    ids=["no decodable head", "another value", "a name of an input", "a name of an output"],
)
def test_what_cannot_be_the_head_is_refused(spec: DetectorSpec, name: str, shape: list[int], message: str) -> None:
    writer = GraphWriter("head")
    head = writer.input(name, ir.DataType.FLOAT, shape)
    promised = contract_io(make_spec((6, 6)), 1, freeze_thresholds=False)[1]
    with pytest.raises(ContractError, match=message):
        add_head(writer, [head], spec, promised, freeze_thresholds=False)


RULES = {
    "class by class": Suppression(),
    "across classes": Suppression(across_classes=True),
    "class first, two of each": Suppression(class_first=True, per_class=2),
    "two classes of each": Suppression(across_classes=True, classes_per_box=2),
    "all classes of each": Suppression(across_classes=True, unclipped=True, classes_per_box=9),
}


@pytest.mark.parametrize("raw", mostly_slow(["normal numbers", "a lattice", "probabilities", "zeros", "ones"], fast=2))
@pytest.mark.parametrize("score", [pytest.param(0.3, id="at 0.3"), pytest.param(0.0, id="all above 0")])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@every_head
def test_rows_of_every_head_are_exactly_those_of_numpy(head: Head, rule: Suppression, raw: str, score: float) -> None:
    rule = replace(rule, classes_per_box=min(rule.classes_per_box, head.num_classes))
    spec = spec_of(head, Thresholds(score, IOU_OFF_THE_LATTICE, 50), suppression=rule)
    outputs = RAW_OUTPUTS[raw](head, 3)
    results = run_onnxruntime(detector(spec, "N", decoded=True), feeds_of(head, outputs))
    rows = as_batch(results)
    assert_equal_rows(rows, rows_of_decoded(results, spec.thresholds, rule))
    if isinstance(head, BlazeFace) and head.num_keypoints:  # rows of nothing have zeros
        points = head.decode_keypoints(outputs).reshape(3, head.num_boxes, head.num_keypoints, 2)
        of_rows = points[np.arange(3)[:, None], rows.anchors] * (rows.anchors >= 0)[..., None, None]
        np.testing.assert_array_equal(results["detection_keypoints"], of_rows)


def test_every_kind_of_head_is_an_example() -> None:
    assert {head.kind: type(head) for head in EXAMPLES.values()} == {k: h for k, h in HEADS.items() if k == h.kind}
