"""Letterbox, BGR and grey, against plain programs of their definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converters.spec import ImageInput, Rescaling
from xdet.pictures.images import network_pixels
from xdet.pictures.preparation import Preparation, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.spec import Color, ResizeRule

SIDES = st.integers(1, 300)


def target(height: int, width: int, resize: ResizeRule = "letterbox", color: Color = "rgb") -> ImageInput:
    return ImageInput(height, width, Rescaling(1.0, 0.0), resize, color)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def plain_letterbox(photo: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Pixel by pixel in double precision: the scaled photograph in the middle, 114 around it."""
    rows, columns = photo.shape[:2]
    gain = min(height / rows, width / columns)
    inner_w, inner_h = round(columns * gain), round(rows * gain)
    left, top = (width - inner_w) // 2, (height - inner_h) // 2
    result = np.full((height, width, 3), 114.0)
    for y in range(inner_h):
        for x in range(inner_w):
            v, u = (y + 0.5) * rows / inner_h - 0.5, (x + 0.5) * columns / inner_w - 0.5
            total = np.zeros(3)
            for row, weight_y in ((math.floor(v), 1 - v % 1), (math.floor(v) + 1, v % 1)):
                for column, weight_x in ((math.floor(u), 1 - u % 1), (math.floor(u) + 1, u % 1)):
                    pixel = photo[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
                    total += weight_y * weight_x * pixel.astype(np.float64)
            result[top + y, left + x] = total
    return result


@pytest.mark.parametrize("size_wh", [(40, 20), (21, 50), (13, 13), (48, 32), (7, 31), (90, 31)])
def test_a_letterbox_is_the_scaled_photograph_in_the_middle_of_grey_bars(size_wh: tuple[int, int]) -> None:
    photo = noise(*size_wh)
    found = network_pixels(photo, target(32, 48))
    assert found.shape == (32, 48, 3)
    assert np.abs(found - plain_letterbox(photo, 32, 48)).max() <= 0.51  # rounded to whole numbers


@given(SIDES, SIDES, SIDES, SIDES)
def test_the_bars_have_equal_width_but_for_a_pixel_and_a_photograph_has_one(
    width: int, height: int, columns: int, rows: int
) -> None:
    place = target(height, width).placement((columns, rows))
    right, bottom = width - place.left - place.width, height - place.top - place.height
    assert 0 <= right - place.left <= 1
    assert 0 <= bottom - place.top <= 1
    assert place.left == 0 == right or place.top == 0 == bottom
    assert min(place.width, place.height) >= 1


@given(SIDES, SIDES, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_a_point_of_the_photograph_comes_back_from_the_network_picture(
    columns: int, rows: int, box: list[float]
) -> None:
    place = target(96, 160).placement((columns, rows))
    inside = np.array(box) * [place.width, place.height, place.width, place.height]
    there = (inside + [place.left, place.top] * 2) / [160, 96, 160, 96]
    back = place.to_photograph(there.astype(np.float32))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, box, rtol=0, atol=160 * 2.0**-23 / min(place.width, place.height))


def test_what_lies_on_a_bar_ends_at_the_photographs_edge() -> None:
    place = target(100, 100).placement((100, 50))
    boxes = np.array([[0, 0, 1, 1], [0.25, 0.1, 0.5, 0.2]], np.float32)
    assert place.to_photograph(boxes).tolist() == [[0, 0, 1, 1], [0.25, 0, 0.5, 0]]


def test_boxes_in_a_stretched_photograph_are_left_alone() -> None:
    boxes = np.array([[0.1, 0.2, 1.0005, 0.7]], np.float32)
    assert target(8, 8, "nearest").placement((20, 3)).to_photograph(boxes) is boxes


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bilinear-antialias", "letterbox"])
def test_bgr_turns_the_channels_and_grey_is_the_luma_of_bt_601(resize: ResizeRule, tmp_path: Path) -> None:
    photo = noise(37, 21)
    rgb = network_pixels(photo, target(16, 24, resize))
    assert np.array_equal(network_pixels(photo, target(16, 24, resize, "bgr")), rgb[..., ::-1])
    grey = network_pixels(photo, target(16, 24, resize, "grey"))
    assert grey.shape == (16, 24, 1)
    luma = (rgb.astype(np.int64) @ np.array([19595, 38470, 7471]) + 32768) >> 16
    assert np.array_equal(grey[..., 0], luma)
    np.testing.assert_allclose(grey[..., 0], rgb @ [0.299, 0.587, 0.114], rtol=0, atol=0.51)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    from_file = prepare(tmp_path / "photo.png", Preparation(target(16, 24, resize, "grey")))
    assert np.array_equal(from_file.pixels, grey)


def test_a_grey_photograph_keeps_its_values() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    photo = np.repeat(levels[..., None], 3, axis=-1)
    assert np.array_equal(network_pixels(photo, target(16, 16, "nearest", "grey"))[..., 0], levels)
