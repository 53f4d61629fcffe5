"""SSD: checked against plain loops over the makers' formulas, and against the custom operator that LiteRT runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.heads.arithmetic import iou_xyxy
from converters.heads.nms import detect_decoded, limit_candidates, select_best, suppress
from converters.heads.ssd import Ssd
from converters.spec import Suppression, Thresholds
from tests.converters.heads.decoding import Float32, decode_twice, random_outputs
from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CENTERS = tuple((0.1 + 0.2 * (i % 5), 0.1 + 0.2 * (i // 5), 0.1 + i / 40, 0.6 - i / 50) for i in range(25))
CORNERS = tuple((x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in CENTERS)
ONES = (1.0, 1.0, 1.0, 1.0)


def decode_slowly(head: Ssd, offsets: Float32, priors: Float32) -> list[list[float]]:
    """Prior by prior, in float64."""
    boxes = []
    for row, prior in zip(offsets.tolist(), priors.tolist(), strict=True):
        if head.yx_first:
            row, prior = ([v[1], v[0], v[3], v[2]] for v in (row, prior))  # noqa: PLW2901  the same in another order
        sx, sy, sw, sh = (head.scales[i] for i in ((1, 0, 3, 2) if head.yx_first else range(4)))
        dx, dy, dw, dh = row[0] / sx, row[1] / sy, row[2] / sw, row[3] / sh
        if head.coding == "centers":
            cx, cy, pw, ph = prior
            cx, cy, w, h = cx + dx * pw, cy + dy * ph, pw * math.exp(dw), ph * math.exp(dh)
            corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        else:
            x1, y1, x2, y2 = prior
            pw, ph = x2 - x1, y2 - y1
            corners = [x1 + dx * pw, y1 + dy * ph, x2 + dw * pw, y2 + dh * ph]
            corners[2:] = max(corners[0], corners[2]), max(corners[1], corners[3])
        boxes.append([min(max(corner, 0.0), 1.0) for corner in corners])
    return boxes


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(Ssd(25, 2, "corners", ONES, CORNERS), id="corners"),
        pytest.param(Ssd(25, 2, "corners", ONES, None), id="corners from an output"),
        pytest.param(Ssd(25, 2, "corners", (10, 9, 8, 7), CORNERS, yx_first=True), id="corners, y first, scales"),
        pytest.param(Ssd(25, 2, "centers", (10, 9, 5, 4), CENTERS), id="centers"),
        pytest.param(Ssd(25, 2, "centers", (10, 9, 5, 4), CENTERS, yx_first=True), id="centers, y first"),
        pytest.param(Ssd(25, 2, "centers", (10, 9, 5, 4), None, yx_first=True), id="centers from an output"),
    ],
)
def test_boxes_are_those_of_a_plain_loop(head: Ssd) -> None:
    outputs = random_outputs(head, 2)
    for boxes, _ in decode_twice(head, *outputs):
        for image in range(2):
            priors = outputs[2][image] if head.priors is None else np.array(head.priors, np.float32)
            expected = decode_slowly(head, outputs[1][image], priors)
            np.testing.assert_allclose(boxes[image], expected, rtol=0, atol=1e-6)  # float32 against float64


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(Ssd(25, 2, "corners", ONES, CORNERS), [1.0, 2.0], id="background left out"),
        pytest.param(Ssd(25, 3, "corners", ONES, CORNERS, background=False), [0.0, 1.0, 2.0], id="no background"),
        pytest.param(
            Ssd(25, 2, "corners", ONES, CORNERS, activation="sigmoid"),
            [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))],
            id="sigmoid",
        ),
        pytest.param(
            Ssd(25, 2, "corners", ONES, CORNERS, activation="softmax"),
            [math.exp(k) / (1 + math.e + math.exp(2)) for k in (1, 2)],
            id="softmax over the background, too",
        ),
    ],
)
def test_scores_leave_the_background_out_after_what_activates_them(head: Ssd, expected: list[float]) -> None:
    outputs = [np.tile(np.arange(3, dtype=np.float32), (1, 25, 1)), np.zeros((1, 25, 4), np.float32)]
    for _, scores in decode_twice(head, *outputs):
        np.testing.assert_allclose(scores[0], np.tile(expected, (25, 1)), rtol=0, atol=4e-7)


def post_process_file(
    priors_yxhw: Float32, *, classes: int, background: bool, iou: float, rows: int, several: int = 0
) -> bytes:
    """A TFLite file that is nothing but the custom operator: class by class, or ``several`` classes of each box."""
    from flatbuffers import flexbuffers

    options = {
        "max_detections": rows,
        "max_classes_per_detection": several or 1,
        "detections_per_class": rows,
        "use_regular_nms": not several,
        "nms_score_threshold": 0.1,
        "nms_iou_threshold": iou,
        "num_classes": classes,
        "y_scale": 10.0,
        "x_scale": 9.0,
        "h_scale": 5.0,
        "w_scale": 4.0,
    }
    count = len(priors_yxhw)
    b = TfliteBuilder()
    offsets = b.input("offsets", (1, count, 4), "float32")
    scores = b.input("scores", (1, count, classes + background), "float32")
    found = rows * (several or 1)
    shapes = [(1, found, 4), (1, found), (1, found), (1,)]
    outputs = [b.tensor(f"found_{index}", shape, "float32") for index, shape in enumerate(shapes)]
    b.operator("CUSTOM:TFLite_Detection_PostProcess", [offsets, scores, b.constant(priors_yxhw)], outputs)
    b.subgraph.operators[-1].customOptions = list(flexbuffers.Dumps(options))
    return b.build(outputs)


def priors_and_offsets(
    rng: np.random.Generator, centers: tuple[float, float], sizes: tuple[float, float]
) -> tuple[Float32, Float32]:
    """60 priors y, x, h, w, and offsets of one image."""
    priors = np.concatenate([rng.uniform(*centers, (60, 2)), rng.uniform(*sizes, (60, 2))], axis=-1)
    return priors.astype(np.float32), rng.normal(0, 1.5, (1, 60, 4)).astype(np.float32)


def run_litert(model: bytes, feeds: dict[str, Float32]) -> list[NDArray[Any]]:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
    interpreter = litert.Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("iou", [0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_detections_are_those_of_the_custom_operator(*, seed: int, iou: float, background: bool) -> None:
    rng = np.random.default_rng(seed)
    priors, offsets = priors_and_offsets(rng, (0.3, 0.7), (0.05, 0.2))
    scores = rng.permutation(np.linspace(0.01, 0.99, 60 * (3 + background))).reshape(1, 60, -1).astype(np.float32)
    model = post_process_file(priors, classes=3, background=background, iou=iou, rows=200)
    found_boxes, found_classes, found_scores, count = run_litert(model, {"offsets": offsets, "scores": scores})

    kept = tuple(map(tuple, priors.tolist()))
    head = Ssd(60, 3, "centers", (10, 9, 5, 4), kept, yx_first=True, background=background)
    for boxes, class_scores in decode_twice(head, scores, offsets):
        assert ((boxes > 0) & (boxes < 1)).all()  # the operator does not clip before it compares boxes
        thresholds = Thresholds(0.1, iou, 200)
        selected = suppress(
            boxes[0], limit_candidates(class_scores[0], score_threshold=0.1), 3, thresholds, Suppression()
        )
        rows = select_best(boxes, class_scores, [selected], 200)
        total = int(rows.num_detections[0])
        assert total == int(count[0]) > 20
        np.testing.assert_array_equal(rows.classes[0, :total], found_classes[0, :total].astype(np.int32))
        np.testing.assert_array_equal(rows.scores[0, :total], found_scores[0, :total])
        expected = found_boxes[0, :total][:, [1, 0, 3, 2]]
        np.testing.assert_allclose(rows.boxes_xyxy[0, :total], expected, rtol=0, atol=2e-7)  # exp rounds differently


BELOW = np.nextafter(np.float32(0.1), np.float32(0))
SCORES: dict[str, Callable[[np.random.Generator], NDArray[Any]]] = {
    "all differ": lambda rng: rng.permutation(np.linspace(0.01, 0.99, 60 * 5)),
    "codes": lambda rng: rng.integers(0, 256, 60 * 5) / 256,
    "two values": lambda rng: rng.choice([0.3, 0.7], 60 * 5),
    "on and below the threshold": lambda rng: rng.choice([0.1, float(BELOW), 0.5], 60 * 5),
    "none counts": lambda _: np.full(60 * 5, 0.05),
}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("several", [2, 3, 4])
@pytest.mark.parametrize("kind", SCORES)
def test_several_classes_of_a_box_are_those_of_the_custom_operator(
    *, kind: str, several: int, background: bool
) -> None:
    """Box by box; of equal scores of a box the operator takes any class, and gives classes that do not count, too."""
    rng = np.random.default_rng(several)
    priors, offsets = priors_and_offsets(rng, (0.2, 0.8), (0.05, 0.3))
    scores = SCORES[kind](rng).reshape(1, 60, 5).astype(np.float32)[..., : 4 + background]
    model = post_process_file(priors, classes=4, background=background, iou=0.5, rows=20, several=several)
    boxes_yx, classes, values, count = run_litert(model, {"offsets": offsets, "scores": scores})

    kept = tuple(map(tuple, priors.tolist()))
    head = Ssd(60, 4, "centers", (10, 9, 5, 4), kept, yx_first=True, background=background, clipped=False)
    rule = Suppression(across_classes=True, unclipped=True, classes_per_box=several)
    thresholds = Thresholds(float(BELOW), 0.5, 20 * several)
    decoded = head.decode([scores, offsets])
    rows = detect_decoded(*decoded, thresholds, rule)
    by_box: dict[int, list[int]] = {}  # best box first
    for row in range(int(rows.num_detections[0])):
        by_box.setdefault(int(rows.anchors[0, row]), []).append(row)
    assert len(by_box) == int(count[0]) == (0 if kind == "none counts" else len(by_box))
    for place, (anchor, own) in enumerate(by_box.items()):
        theirs = range(place * several, (place + 1) * several)
        counting = [index for index in theirs if values[0, index] >= np.float32(0.1)]
        assert [float(rows.scores[0, row]) for row in own] == [float(values[0, i]) for i in counting]
        for row, index in zip(own, counting, strict=True):
            expected = np.clip(boxes_yx[0, index][[1, 0, 3, 2]], 0, 1)
            np.testing.assert_allclose(rows.boxes_xyxy[0, row], expected, rtol=0, atol=1e-6)  # exp
            if (decoded[1][0, anchor] == rows.scores[0, row]).sum() == 1:
                assert rows.classes[0, row] == int(classes[0, index])


@settings(deadline=None, max_examples=50)
@given(
    coding=st.sampled_from(["centers", "corners"]),
    yx_first=st.booleans(),
    scale=st.sampled_from([1.0, 5.0, 10.0]),
    lattice=st.lists(st.integers(0, 8), min_size=8, max_size=8),
)
def test_encoding_is_the_way_back_for_any_box_and_prior(
    *, coding: Any, yx_first: bool, scale: float, lattice: list[int]
) -> None:
    quarters = np.array(lattice, np.float32).reshape(2, 2, 2)
    corners = np.asarray(np.sort(quarters / 16, axis=1).reshape(2, 4), np.float32)
    corners[:, 2:] += np.float32(1 / 16)  # no empty boxes
    prior, box = corners[0], np.asarray(corners[1], np.float32)
    priors = prior if coding == "corners" else np.concatenate([(prior[:2] + prior[2:]) / 2, prior[2:] - prior[:2]])
    priors = priors[[1, 0, 3, 2]] if yx_first else priors
    four = tuple(float(v) for v in priors)
    head = Ssd(1, 1, coding, (scale, scale, scale, scale), (four,), yx_first=yx_first)  # type: ignore[arg-type]
    boxes, scores = head.decode(head.encode(box.reshape(1, 1, 4), np.full((1, 1, 1), 0.5, np.float32)))
    np.testing.assert_allclose(boxes[0, 0], box, rtol=0, atol=1e-6)
    assert scores.item() == 0.5
    assert iou_xyxy(boxes[0, 0], box) > 0.99


def test_priors_of_a_document_are_base64_of_whole_boxes() -> None:
    data = Ssd(25, 2, "centers", (10, 10, 5, 5), CENTERS).to_dict()
    assert len(data["priors"]) < 25 * 16 * 1.4
    for text, message in (("AAAA", "four float32 numbers per box, got 3 bytes"), ("%%%", "must be base64")):
        with pytest.raises(ValueError, match=message):
            Ssd.from_dict({**data, "priors": text})
