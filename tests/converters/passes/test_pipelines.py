"""The name map follows every tensor through the rewrites."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.passes import follow_twins, permuted_layout
from converters.passes.base import Moved, remove_unread
from converters.spec import TensorTwin
from tests.converters.passes.networks import kinds, parse

GRAPH = "g (float[1] x) => (float[1] y) { k = Neg(x)  y = Neg(k) }"


def follow(twin: TensorTwin, *moves: Moved) -> TensorTwin:
    return follow_twins({"t": twin}, "some pass", moves, parse(GRAPH).graph)["t"]


def test_a_tensor_whose_value_is_still_there_is_kept() -> None:
    twin = TensorTwin("k", "same", 128)
    assert follow(twin) == twin
    assert follow(twin, Moved("k", "y")) == twin, "a value that was copied is still there"


def test_a_tensor_that_no_value_carries_is_removed_by_the_pass() -> None:
    removed = follow(TensorTwin("gone", "NHWC->NCHW", 128))
    assert removed == TensorTwin(None, "NHWC->NCHW", 128, "removed", "some pass")
    assert follow(removed) == removed, "and later passes do not claim it"


def test_a_tensor_that_moved_keeps_its_layout_in_mind() -> None:
    moved = follow(TensorTwin("old", "NHWC->NCHW", 128), Moved("old", "k", (0, 2, 3, 1)))
    assert moved == TensorTwin("k", "same", 128)


def test_copies_are_told_as_such() -> None:
    replicated = follow(TensorTwin("w", "OHWI->OIHW", 0), Moved("w", "k", replicated=True))
    assert replicated == TensorTwin("k", "OHWI->OIHW", 0, "replicated", "some pass")


def test_moves_of_one_pass_follow_each_other() -> None:
    moves = (Moved("a", "b", (0, 2, 3, 1)), Moved("b", "k", (0, 3, 1, 2)))
    assert follow(TensorTwin("a", "same", 0), *moves) == TensorTwin("k", "same", 0)


@pytest.mark.parametrize(
    ("layout", "perm", "expected"),
    [
        ("NHWC->NCHW", (0, 2, 3, 1), "same"),
        ("same", (0, 3, 1, 2), "NHWC->NCHW"),
        ("same", (0, 2, 1), "ABC->ACB"),
        ("NHWC->NCHW", (0, 1, 3, 2), "NHWC->NCWH"),
        ("NHWC->NCHW", None, "NHWC->NCHW"),
    ],
)
def test_layouts_compose(layout: str, perm: tuple[int, ...] | None, expected: str) -> None:
    assert permuted_layout(layout, perm) == expected


@given(st.permutations(range(4)))
def test_a_permutation_and_its_inverse_leave_the_layout(perm: list[int]) -> None:
    inverse = [perm.index(axis) for axis in range(4)]
    for layout in ("same", "NHWC->NCHW"):
        assert permuted_layout(permuted_layout(layout, perm), inverse) == layout


def test_what_nobody_reads_is_removed_once_though_it_was_read_twice() -> None:
    model = parse("g (float[1] x) => (float[1] y) { k = Neg(x)  s = Add(k, k)  y = Neg(x) }")
    remove_unread(model.graph, model.graph[1])
    assert kinds(model) == "Neg"
