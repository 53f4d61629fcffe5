"""Products of two tensors that are both computed at run time, as in attention, against LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Runs, assert_exact, codes, run_everywhere

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES = [((1, 4, 6), (1, 6, 5)), ((1, 2, 4, 6), (1, 2, 6, 5)), ((1, 2, 4, 6), (1, 6, 5))]


def multiply(shapes: tuple[tuple[int, ...], tuple[int, ...]], *, adj_x: bool, adj_y: bool, dtype: str = "int8") -> Runs:
    """``(.., 4, 6)`` times ``(.., 6, 5)``; an operand that LiteRT exchanges is stored exchanged."""
    b, operands = TfliteBuilder(), list[int]()
    feeds: list[NDArray[Any]] = []
    for name, shape, exchanged, quant in zip("xy", shapes, (adj_x, adj_y), ((0.05, -3), (0.04, 7)), strict=True):
        stored = (*shape[:-2], shape[-1], shape[-2]) if exchanged else shape
        scale, zero_point = (None, 0) if dtype == "float32" else quant
        operands.append(b.input(name, stored, dtype, scale, zero_point))
        feeds.append(codes(stored, seed=len(feeds)))
        if dtype == "float32":
            feeds[-1] = feeds[-1].astype(np.float32) / 100
    shape = (*shapes[0][:-2], 4, 5)
    scale, zero_point = (None, 0) if dtype == "float32" else (0.9, 5)
    y = b.op("BATCH_MATMUL", operands, shape, dtype, scale, zero_point, name="z", version=3, adj_x=adj_x, adj_y=adj_y)
    return run_everywhere(b.build([y]), feeds)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize(("adj_x", "adj_y"), [(False, False), (True, False), (False, True)])
def test_a_product_of_matrices_is_exact(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], *, adj_x: bool, adj_y: bool
) -> None:
    runs = multiply(shapes, adj_x=adj_x, adj_y=adj_y)
    assert not runs.delegated
    assert_exact(runs)


def test_a_product_of_float_matrices_is_litert_s_but_for_rounding() -> None:
    assert multiply(SHAPES[1], adj_x=True, adj_y=True, dtype="float32").worst < 1e-5


@pytest.mark.parametrize("bias", [False, True])
def test_weights_that_are_computed_are_exact(*, bias: bool) -> None:
    b = TfliteBuilder()
    x, matrix = b.input("x", (1, 40), "int8", 0.05, -3), b.input("w", (1, 9, 40), "int8", 0.04, 7)
    shape = b.constant(np.array([9, 40], np.int32))
    w = b.op("RESHAPE", [matrix, shape], (9, 40), "int8", 0.04, 7, name="rows", new_shape=(9, 40))
    operands = [x, w, *([b.constant(np.arange(9, dtype=np.int32) * 500, 0.05 * 0.04)] if bias else [])]
    y = b.op("FULLY_CONNECTED", operands, (1, 9), "int8", 0.9, 5, name="y", version=4)
    runs = run_everywhere(b.build([y]), [codes((1, 40)), codes((1, 9, 40), seed=1)])
    assert_exact(runs)
