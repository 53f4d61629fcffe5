"""JPEG files decoded no larger than the network needs: other pixels, the same places, and it is recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import xdet
from converters.spec import ImageInput, Rescaling
from tests.xdet.command import assert_one_line
from tests.xdet.command import run_xdet as run
from xdet.errors import UsageError
from xdet.pictures.images import Encoded
from xdet.pictures.preparation import Preparation, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from converters.spec import ResizeRule
    from xdet.pictures.preparation import Prepared

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
