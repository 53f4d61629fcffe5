"""Heads of more scores than candidates: the best are picked as numpy picks them, whole or by groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.heads.lists import YoloV8
from converters.heads.nms import MAX_CANDIDATES, detect_from_head
from converters.heads.suppression_nodes import GROUP, MANY
from converters.spec import DetectorSpec, Suppression, Thresholds
from tests.converters.heads.decoding import as_batch, assert_equal_rows, detector, run_onnxruntime, spec_of

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


def spec_of_size(size: tuple[int, int], thresholds: Thresholds, rule: Suppression) -> DetectorSpec:
    """A YOLO v8 head of so many boxes and classes."""
    return spec_of(YoloV8(*size), thresholds, suppression=rule)


def nodes_of(size: tuple[int, int]) -> list[onnx.NodeProto]:
    return list(onnx.load_from_string(detector(spec_of_size(size, USUAL, Suppression()))).graph.node)


def draw(size: tuple[int, int], kind: str, batch: int, seed: int) -> NDArray[np.float32]:
    """Raw outputs of small boxes and of such scores."""
    rng = np.random.default_rng(seed)
    places = rng.random((batch, 4, size[0])) * np.array([1, 1, 0.1, 0.1])[:, None]
    return np.concatenate([places, SCORES[kind](rng, (batch, size[1], size[0]))], axis=1).astype(np.float32)


def assert_rows_of_numpy(
    size: tuple[int, int], kind: str, *, rule: Suppression, thresholds: Thresholds, batch: int, seed: int = 0
) -> None:
    spec, raw = spec_of_size(size, thresholds, rule), draw(size, kind, batch, seed)
    rows = as_batch(run_onnxruntime(detector(spec, "N"), {"head": raw}))
    assert_equal_rows(rows, detect_from_head(raw, spec, thresholds))


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
        nodes = nodes_of(SIZES[name])
        assert [node.op_type for node in nodes].count("ReduceMax") == grouped
    assert 1700 * 80 % GROUP == 0


def test_nothing_but_gathers_reads_what_suppression_selects() -> None:
    """TVM cannot compute with it directly, of which this machine may have none."""
    nodes = nodes_of(SIZES["whole"])
    selected = next(node.output[0] for node in nodes if node.op_type == "NonMaxSuppression")
    assert {node.op_type for node in nodes if selected in node.input} == {"Gather"}
