"""HARD_SWISH gives LiteRT's codes, all of them, at any scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.integer.hard_swish import hard_swish_table
from converters.leaky import LeakyCase
from tests.converters.sources.tflite.single_operator import Quant, assert_exact, run_single

SHAPE = (1, 16, 16, 1)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(1e-3, 0.3),
    st.floats(0.3, 20.0),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from(["int8", "uint8"]),
)
def test_every_hard_swish_is_exact(scale: float, ratio: float, zero_in: int, zero_out: int, dtype: str) -> None:
    lowest = int(np.iinfo(dtype).min)
    quants = Quant(scale, zero_in + lowest), Quant(scale * ratio, zero_out + lowest)
    assert_exact(run_single("HARD_SWISH", (SHAPE, SHAPE), quants, dtype=dtype))


def test_the_table_is_the_function_where_steps_are_small() -> None:
    table = hard_swish_table(LeakyCase(np.float32(1 / 16), 0, np.float32(1 / 16), 0, np.float32(1)))
    x = np.arange(-128, 128) / 16
    assert np.abs(table / 16 - x * np.clip(x / 6 + 0.5, 0, 1)).max() <= 1 / 16


def test_a_scale_that_litert_refuses_is_told() -> None:
    with pytest.raises(ValueError, match="below a 128th of the input's"):
        hard_swish_table(LeakyCase(np.float32(1), 0, np.float32(1 / 256), 0, np.float32(1)))
