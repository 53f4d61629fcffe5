"""uint8 weights become int8, or sums of int8 weights, and no code changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes import run_pipeline
from converters.passes.weights import SignedWeights, constants_behind, split_columns, split_rows
from converters.spec import TensorTwin
from tests.converters.passes.networks import Convolution, assert_declined, assert_equal, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

NETWORK = Convolution(weight_dtype=np.uint8, weight_zero_point=120, per_channel=False)


def stored(model: ir.Model) -> tuple[NDArray[Any], NDArray[Any]]:
    """Codes and zero-point of the weights."""
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    codes, _, zero_point = constants_behind(conv.inputs[1])
    return codes, zero_point


@settings(max_examples=40)
@given(
    bounds=st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted),
    zero_point=st.integers(0, 255),
    group=st.sampled_from([1, 16]),
    pad=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_codes_are_equal_bit_for_bit(bounds: list[int], zero_point: int, group: int, pad: int, seed: int) -> None:
    low, high = bounds
    network = replace(
        NETWORK, weight_bounds=(low, high), weight_zero_point=zero_point, group=group, pads=(pad,) * 4, seed=seed
    )
    model, expected = network.build(), run(network.build())
    fits = low - zero_point >= -128 and high - zero_point <= 127
    assert SignedWeights()(model).modified == (fits or group == 1)
    assert_equal(run(model), expected)
    assert_equal(run(model, x64quantprecision="1"), expected)
    if fits or group == 1:
        codes, stored_zero_point = stored(model)
        assert codes.dtype == np.int8
        assert stored_zero_point == (0 if fits else zero_point - 128)
        assert not SignedWeights()(model).modified


def test_weights_are_followed_with_what_was_taken_off() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("conv/w/codes", "conv/b/codes")}
    network = replace(NETWORK, weight_bounds=(30, 200), weight_zero_point=100)
    rewritten = run_pipeline(network.build(), "cpu", twins)
    assert rewritten.passes == ("signed weights",)
    signed = TensorTwin("conv/f/signed/codes", "same", -100)
    assert rewritten.twins == {"conv/w/codes": signed, "conv/b/codes": twins["conv/b/codes"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"group": 16}, "its weights, less their zero-point 120, are no int8", id="depthwise"),
        pytest.param({"weight_zero_point": tuple(range(16))}, "more than one zero-point", id="per channel"),
    ],
)
def test_others_stay_with_the_reason(change: dict[str, Any], reason: str) -> None:
    assert_declined(SignedWeights(), replace(NETWORK, **change).build(), reason)


def test_a_weight_of_255_is_the_sum_of_three() -> None:
    kernel, columns = split_columns(np.array([[[[0, 255, -7]]]]))
    assert kernel.tolist() == [[[[0, 127, 127, 1, -7]]]]
    assert columns == (0, 1, 1, 1, 2)


@pytest.mark.parametrize(
    ("row", "rows", "stride"),
    [
        pytest.param(1, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7], 3, id="odd row"),
        pytest.param(0, [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7], 3, id="even row"),
        pytest.param(None, range(8), 2, id="none"),
    ],
)
def test_a_row_is_repeated_where_a_weight_is_no_int8(row: int | None, rows: Sequence[int], stride: int) -> None:
    numbers = np.ones((5, 3, 3, 3), np.int16)
    if row is not None:
        numbers[2, 1, row, 2] = -203
    split = split_rows(numbers, 2, 8, (0, 1))
    assert (list(range(8)) if split.picture is None else split.picture.tolist()) == list(rows)
    assert (split.stride, split.padding) == (stride, (0, 1))
    assert split.weights.shape[2] == (3 if row is None else 4)
