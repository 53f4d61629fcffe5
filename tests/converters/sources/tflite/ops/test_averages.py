"""Pools, means and resizes against LiteRT.

AVERAGE_POOL_2D runs on LiteRT's built-in kernel, the others on XNNPACK; ``converters.sources.tflite.ops.averages``
tells how ties are matched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Quant, Runs, assert_exact, codes, run_everywhere, run_single

RIMS = [-128, -3, 0, 127]


def pool(op: str, window: int, stride: int, padding: str, quant: Quant, *, dtype: str = "int8", **options: str) -> Runs:
    """Pool an odd 15 x 13 picture of 8 channels."""
    sizes = [-(-n // stride) if padding == "SAME" else (n - window) // stride + 1 for n in (15, 13)]
    return run_single(
        op,
        ((1, 15, 13, 8), (1, *sizes, 8)),
        (quant, quant),
        dtype=dtype,
        padding=padding,
        filter_h=window,
        filter_w=window,
        stride_h=stride,
        stride_w=stride,
        **options,
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (2, 1), (3, 2), (3, 1), (5, 3)])
def test_a_maximum_is_exact(window: int, stride: int, padding: str) -> None:
    runs = pool("MAX_POOL_2D", window, stride, padding, Quant(0.05, -3))
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("zero_point", RIMS)
@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("op", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
def test_a_pool_with_a_fused_activation_is_exact(op: str, activation: str, zero_point: int) -> None:
    assert_exact(pool(op, 2, 2, "SAME", Quant(0.05, zero_point), fused_activation=activation))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (2, 1), (3, 2), (4, 4), (5, 3), (10, 1)])
@pytest.mark.parametrize("zero_point", RIMS)
def test_an_average_pool_is_exact(window: int, stride: int, padding: str, zero_point: int) -> None:
    runs = pool("AVERAGE_POOL_2D", window, stride, padding, Quant(0.07, zero_point))
    assert not runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("zero_point", [0, 3, 128, 255])
@pytest.mark.parametrize("op", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
def test_a_pool_of_uint8_is_exact(op: str, zero_point: int) -> None:
    assert_exact(pool(op, 2, 2, "SAME", Quant(0.07, zero_point), dtype="uint8"))


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (7, 7), (2, 3), (6, 6)], ids=str)
@pytest.mark.parametrize("zero_points", [(-3, -3), (-128, -127), (127, 5)], ids=str)
def test_a_mean_of_equal_scales_is_exact(size: tuple[int, int], zero_points: tuple[int, int]) -> None:
    quants = Quant(0.07, zero_points[0]), Quant(0.07, zero_points[1])
    runs = run_single("MEAN", ((1, *size, 256), (1, 256)), quants, np.array([1, 2], np.int32))
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize(
    ("axes", "out", "keep"),
    [((1, 2), (1, 1, 1, 16), True), ((-3, -2), (1, 16), False), ((1,), (1, 9, 16), False), ((3,), (1, 7, 9), False)],
    ids=["kept", "negative axes", "rows", "channels"],
)
def test_a_mean_that_rescales_stays_within_one_code(axes: tuple[int, ...], out: tuple[int, ...], *, keep: bool) -> None:
    """XNNPACK rounds ``s_in / (s_out * n)`` to float32: near-ties (here 2.5 / 7 and 2.5 / 63) fall either way."""
    quants = Quant(0.05, -3), Quant(0.02, 5)
    runs = run_single("MEAN", ((1, 7, 9, 16), out), quants, np.array(axes, np.int32), keep_dims=keep)
    assert runs.worst <= 1
    assert runs.differing <= 0.05 * runs.litert[0].size + 1
    assert runs.dialects_agree


CORNERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "half pixels": {"half_pixel_centers": True},
    "aligned corners": {"align_corners": True},
}


def resize(op: str, size: tuple[int, int], **options: Any) -> Runs:
    """Resize 7 x 6 pixels."""
    quant = Quant(0.05, -3)
    return run_single(op, ((1, 7, 6, 16), (1, *size, 16)), (quant, quant), np.array(size, np.int32), **options)


@pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
@pytest.mark.parametrize("size", [(14, 12), (28, 18), (10, 9), (5, 3), (1, 1), (7, 6), (49, 41)], ids=str)
def test_nearest_neighbour_is_exact(size: tuple[int, int], corners: dict[str, Any]) -> None:
    runs = resize("RESIZE_NEAREST_NEIGHBOR", size, **corners)
    assert not runs.delegated  # LiteRT's built-in kernel: values are only moved
    assert_exact(runs)


@pytest.mark.parametrize("size", [(14, 12), (28, 24), (7, 12)], ids=str)
@pytest.mark.parametrize("corners", ["plain", "half pixels"])
def test_bilinear_by_powers_of_two_is_exact(size: tuple[int, int], corners: str) -> None:
    runs = resize("RESIZE_BILINEAR", size, **CORNERS[corners])
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
@pytest.mark.parametrize("size", [(21, 18), (10, 9), (5, 3), (13, 11), (56, 48), (1, 1)], ids=str)
def test_bilinear_by_other_factors_is_exact(size: tuple[int, int], corners: dict[str, Any]) -> None:
    """XNNPACK rounds its weights to 11 bits, as much as 0.06 codes."""
    assert_exact(resize("RESIZE_BILINEAR", size, **corners))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 2),
    st.tuples(*[st.integers(1, 25)] * 2),
    st.sampled_from(list(CORNERS)),
    st.sampled_from(["int8", "uint8"]),
    st.integers(0, 255),
)
def test_every_bilinear_resize_is_exact(
    size: tuple[int, int], new_size: tuple[int, int], corners: str, dtype: str, zero_point: int
) -> None:
    quant = Quant(0.05, zero_point + int(np.iinfo(dtype).min))
    shapes = (1, *size, 16), (1, *new_size, 16)
    assert_exact(
        run_single(
            "RESIZE_BILINEAR", shapes, (quant, quant), np.array(new_size, np.int32), dtype=dtype, **CORNERS[corners]
        )
    )


def test_the_real_bilinear_resize_stays_within_one_code() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 7, 6, 16), "int8", 0.05, -3)
    size = b.constant(np.array([10, 9], np.int32))
    y = b.op("RESIZE_BILINEAR", [x, size], (1, 10, 9, 16), "int8", 0.05, -3, name="y", half_pixel_centers=True)
    runs = run_everywhere(b.build([y]), [codes((1, 7, 6, 16))], leaky_relu="float")
    assert runs.worst <= 1
    assert 0 < runs.differing <= 0.05 * runs.litert[0].size


@pytest.mark.parametrize("op", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
@pytest.mark.parametrize("window", [1, 2])
def test_a_pool_whose_stride_is_longer_than_its_window_is_exact(op: str, window: int) -> None:
    """Runtimes pad by a negative number there, if SAME_UPPER says so."""
    runs = run_single(
        op, ((1, 7, 6, 5), (1, 3, 2, 5)), (Quant(0.05, 127),) * 2, padding="SAME", stride_h=3, stride_w=3,
        filter_h=window, filter_w=window,
    )  # fmt: skip
    assert_exact(runs)


def test_a_mean_between_zero_points_at_both_rims_stays_within_one_code() -> None:
    axes, quants = np.array([1, 2], np.int32), (Quant(0.05, -128), Quant(0.05, 127))
    assert run_single("MEAN", ((1, 4, 5, 6), (1, 1, 1, 6)), quants, axes, keep_dims=True).worst <= 1
