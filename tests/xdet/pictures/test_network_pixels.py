"""Letterbox, BGR, grey and reduced JPEG files, against plain programs of their definitions."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import xdet
from converters.spec import ImageInput, Rescaling
from tests.xdet.command import assert_one_line
from tests.xdet.command import run_xdet as run
from xdet.errors import UsageError
from xdet.pictures.images import Encoded, network_pixels
from xdet.pictures.preparation import Preparation, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.spec import Color, ResizeRule
    from xdet.pictures.preparation import Prepared

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


SIDEWAYS = 6  # of EXIF's orientations


def photograph(path: Path, size_wh: tuple[int, int], orientation: int = 1) -> Path:
    """A smooth picture whose places differ in colour."""
    columns, rows = np.meshgrid(np.linspace(0, 255, size_wh[0]), np.linspace(0, 255, size_wh[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.stack([columns, rows, 255 - columns], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


def both(path: Path, rule: ResizeRule, height: int, width: int) -> tuple[Prepared, Prepared]:
    """Decoded in full, and reduced."""
    image = ImageInput(height, width, Rescaling(1.0, 0.0), rule)
    full, reduced = (prepare(path, Preparation(image, reduced=reduced)) for reduced in (False, True))
    return full, reduced


@pytest.mark.parametrize("rule", ["nearest", "bilinear", "bilinear-antialias", "letterbox"])
@pytest.mark.parametrize("orientation", [1, SIDEWAYS])
def test_pixels_move_little_and_places_not(rule: ResizeRule, orientation: int, tmp_path: Path) -> None:
    full, reduced = both(photograph(tmp_path / "a.jpg", (640, 240), orientation), rule, 64, 96)
    assert full.size_wh == reduced.size_wh == ((640, 240) if orientation == 1 else (240, 640))
    assert full.placement == reduced.placement
    difference = np.abs(full.pixels.astype(int) - reduced.pixels)
    assert 0 < difference.max() <= 12
    assert difference.mean() < 3


def test_a_photograph_that_is_not_twice_as_large_stays_as_it_is(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", (127, 300))
    full, reduced = both(path, "bilinear", 64, 64)
    assert np.array_equal(full.pixels, reduced.pixels)


def test_an_odd_size_is_placed_as_it_was_decoded(tmp_path: Path) -> None:
    full, reduced = both(photograph(tmp_path / "a.jpg", (641, 481)), "letterbox", 96, 96)
    assert reduced.size_wh == (641, 481)
    assert abs(full.placement.height - reduced.placement.height) <= 1
    border = reduced.pixels[: reduced.placement.top]
    assert border.size
    assert (border == border[0, 0]).all()


def test_other_formats_are_decoded_in_full(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", (640, 480))
    with Image.open(path) as picture:
        picture.save(tmp_path / "a.png")
    full, reduced = both(tmp_path / "a.png", "bilinear", 64, 64)
    assert np.array_equal(full.pixels, reduced.pixels)


def test_drawing_moves_no_pixel(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", (640, 480))
    image = ImageInput(64, 64, Rescaling(1.0, 0.0), "bilinear")
    plain = prepare(path, Preparation(image, reduced=True))
    drawn = prepare(path, Preparation(image, reduced=True, keep_original=True))
    assert drawn.original is not None
    assert drawn.original.shape == (480, 640, 3)
    assert np.array_equal(plain.pixels, drawn.pixels)


@pytest.mark.parametrize("reduced", [False, True])
def test_a_file_in_memory_is_decoded_as_on_disk(tmp_path: Path, *, reduced: bool) -> None:
    path = photograph(tmp_path / "a.jpg", (640, 480), SIDEWAYS)
    how = Preparation(ImageInput(64, 64, Rescaling(1.0, 0.0), "letterbox"), reduced=reduced)
    on_disk, in_memory = prepare(path, how), prepare(Encoded("http://host/a.jpg", path.read_bytes()), how)
    assert in_memory.name == "http://host/a.jpg"
    assert (in_memory.size_wh, in_memory.placement) == (on_disk.size_wh, on_disk.placement)
    assert np.array_equal(in_memory.pixels, on_disk.pixels)


def test_results_record_it_and_do_not_go_on_with_other_ones(sample_pictures: list[Path], tmp_path: Path) -> None:
    lines, document = tmp_path / "found.jsonl", tmp_path / "found.json"
    command: list[str | Path] = ["detect", *sample_pictures, "--decode", "reduced"]
    assert run(*command, "--json", lines).returncode == 0
    assert run(*command, "--json", document).returncode == 0
    assert json.loads(lines.read_text("utf-8").splitlines()[0])["decode"] == "reduced"
    assert json.loads(document.read_text("utf-8"))["decode"] == "reduced"
    told = run("detect", *sample_pictures, "--json", lines, "--resume")
    assert_one_line(told, 2, "found.jsonl")
    assert run("detect", *sample_pictures, "--json", tmp_path / "full.json").returncode == 0
    assert "decode" not in json.loads((tmp_path / "full.json").read_text("utf-8"))


def test_what_is_no_way_of_decoding_is_refused() -> None:
    with pytest.raises(UsageError, match="`decode` must be full or reduced, got 'half'"):
        xdet.Detector(decode="half")  # type: ignore[arg-type]  # that is the point
