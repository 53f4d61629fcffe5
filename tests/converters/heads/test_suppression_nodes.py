"""Heads of more scores than candidates: the best are picked as numpy picks them, whole or by groups."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.heads.base import BatchDetections, join_outputs
from converters.heads.decoded import YoloV8
from converters.heads.nms import MAX_CANDIDATES, detect_from_head
from converters.heads.nms_nodes import add_head
from converters.heads.suppression_nodes import GROUP, MANY
from converters.opset import stamp_opset
from converters.spec import DetectorSpec, ImageInput, Rescaling, Suppression, Thresholds, contract_io
from tests.converters.heads.decoding import feeds_of, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ALL_CANDIDATES = Thresholds(0.25, 1.0, MAX_CANDIDATES)  # nothing falls: the rows are the candidates
USUAL = Thresholds(0.25, 0.45, 100)
SIZES = {
    "one class": (5000, 1),
    "whole": (700, 7),
    "groups of 16": (1700, 80),
    "groups of 3": (47599, 3),
    "no groups": (131101, 1),  # a prime number of scores
}
RULES = {
    "class by class": Suppression(),
    "across classes": Suppression(across_classes=True),
    "class first": Suppression(class_first=True, per_class=90),
}
Draw = tuple[int, int, int]  # images, classes, boxes
SCORES: dict[str, Callable[[np.random.Generator, Draw], NDArray[np.float64]]] = {
    "zeros": lambda _, shape: np.zeros(shape),
    "ones": lambda _, shape: np.ones(shape),
    "codes": lambda rng, shape: rng.integers(0, 256, shape) / 256,
    "three values": lambda rng, shape: rng.integers(0, 3, shape) / 4,
    "probabilities": lambda rng, shape: rng.random(shape),
    "few": lambda rng, shape: np.where(rng.random(shape) < 0.001, rng.integers(0, 256, shape), 9) / 256,
    "as many as the limit or so": lambda rng, shape: np.where(
        rng.random(shape) < MAX_CANDIDATES / np.prod(shape[1:]), 0.5, 0.25
    ),
    "neighbouring numbers": lambda rng, shape: rng.choice(0.5 + np.arange(-2, 3) / 2**24, shape),
    "the last ones": lambda _, shape: np.broadcast_to(np.arange(shape[2]) / shape[2], shape),
}


@functools.cache
def model(size: tuple[int, int], thresholds: Thresholds, rule: Suppression) -> tuple[DetectorSpec, bytes]:
    """A YOLO v8 head of so many boxes and classes."""
    head, writer = YoloV8(*size), GraphWriter("detector")
    spec = DetectorSpec(
        image=ImageInput(64, 64, Rescaling(1.0, 0.0)),
        head=head,
        class_names=tuple(f"class {index}" for index in range(head.num_classes)),
        thresholds=thresholds,
        suppression=rule,
    )
    values = [writer.input("raw_0", ir.DataType.FLOAT, ["N", *head.raw_outputs()[0].shape])]
    add_head(writer, values, spec, contract_io(spec, "N", freeze_thresholds=True)[1], freeze_thresholds=True)
    made = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(made)
    stamp_opset(made, None)
    return spec, bytes(ir.to_proto(made).SerializeToString(deterministic=True))


def draw(size: tuple[int, int], kind: str, batch: int, seed: int) -> NDArray[np.float32]:
    """Raw outputs of small boxes and of such scores."""
    rng = np.random.default_rng(seed)
    places = rng.random((batch, 4, size[0])) * np.array([1, 1, 0.1, 0.1])[:, None]
    return np.concatenate([places, SCORES[kind](rng, (batch, size[1], size[0]))], axis=1).astype(np.float32)


def assert_rows_of_numpy(
    size: tuple[int, int], kind: str, *, rule: Suppression, thresholds: Thresholds, batch: int, seed: int = 0
) -> None:
    spec, data = model(size, thresholds, rule)
    raw = draw(size, kind, batch, seed)
    found = BatchDetections(*session(data).run(None, feeds_of([raw])))
    expected = detect_from_head(join_outputs([raw]), spec, thresholds)
    for name in ("num_detections", "anchors", "classes", "scores", "boxes_xyxy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_candidates_are_those_of_numpy(size: tuple[int, int], kind: str) -> None:
    assert_rows_of_numpy(size, kind, rule=Suppression(), thresholds=ALL_CANDIDATES, batch=1)


@pytest.mark.parametrize("number", [2.0**-149, 2.0**-126], ids=["least", "least normal"])
def test_the_least_numbers_are_told_apart(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any score above 0 counts, and more than the limit do."""
    monkeypatch.setitem(SCORES, "least", lambda rng, shape: rng.integers(0, 5, shape) * number)
    every = Thresholds(0.0, 1.0, MAX_CANDIDATES)
    assert_rows_of_numpy(SIZES["groups of 16"], "least", rule=Suppression(), thresholds=every, batch=2)


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(list(SCORES)),
    size=st.sampled_from([SIZES["whole"], SIZES["groups of 16"]]),
    rule=st.sampled_from(list(RULES)),
    seed=st.integers(0, 99),
)
def test_rows_are_those_of_numpy(kind: str, size: tuple[int, int], rule: str, seed: int) -> None:
    assert_rows_of_numpy(size, kind, rule=RULES[rule], thresholds=USUAL, batch=3, seed=seed)


def test_sizes_are_what_they_say() -> None:
    assert [np.prod(SIZES[name]) >= MANY for name in SIZES] == [False, False, True, True, True]
    for size in SIZES.values():
        assert np.prod(size) > MAX_CANDIDATES
    for name, grouped in (("whole", 0), ("groups of 16", 1), ("no groups", 0)):
        nodes = onnx.load_from_string(model(SIZES[name], USUAL, RULES["class by class"])[1]).graph.node
        assert [node.op_type for node in nodes].count("ReduceMax") == grouped
    assert 1700 * 80 % GROUP == 0


def test_nothing_but_gathers_reads_what_suppression_selects() -> None:
    """TVM cannot compute with it directly, of which this machine may have none."""
    nodes = onnx.load_from_string(model(SIZES["whole"], USUAL, RULES["class by class"])[1]).graph.node
    selected = next(node.output[0] for node in nodes if node.op_type == "NonMaxSuppression")
    assert {node.op_type for node in nodes if selected in node.input} == {"Gather"}
