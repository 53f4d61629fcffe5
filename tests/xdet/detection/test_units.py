"""``--try-units``: every reading of anchors on photographs, in numbers and in pictures."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from converters.description.statements import SourceOptions
from converters.errors import OptionError
from tests.xdet.command import run_xdet
from xdet.detection.units import GAP, TITLE_HEIGHT, trial_report, try_units
from xdet.errors import UsageError
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fractions(embedded_tflite: Path) -> tuple[tuple[float, float], ...]:
    """The embedded detector's anchors as fractions of the image, none above 1: the unit is open."""
    cells = json.loads(embedded_tflite.with_suffix(".xdet.json").read_text("utf-8"))["anchors"]
    return tuple((width / 7, height / 7) for width, height in cells)


def test_the_right_reading_finds_what_the_model_finds(
    embedded_tflite: Path, fractions: tuple[tuple[float, float], ...], sample_pictures: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "units"
    trial = try_units(embedded_tflite, sample_pictures, folder, source_options=SourceOptions(anchors=fractions))
    cell, image = trial.readings
    assert (cell.unit, image.unit, list(trial.refused), trial.photographs) == ("cell", "image", ["pixel"], 2)
    with Image.open(trial.pictures[0]) as picture, Image.open(sample_pictures[0]) as photo:
        scale = (picture.height - TITLE_HEIGHT) / photo.height
        assert picture.width == pytest.approx(2 * scale * photo.width + GAP, abs=2)
    as_it_is = try_units(embedded_tflite, sample_pictures, folder)
    assert [reading.unit for reading in as_it_is.readings] == ["cell"]
    for mine, right in zip(image.detections, as_it_is.readings[0].detections, strict=True):
        np.testing.assert_allclose(mine.boxes_xyxy, right.boxes_xyxy, rtol=0, atol=1e-6)
    assert sum(map(len, cell.detections)) > sum(map(len, image.detections))  # small boxes hardly suppress each other
    text = report_text(trial_report(trial))
    assert "then give --anchor-unit cell or --anchor-unit image" in text
    assert "not pixels: --anchors with unit 'pixel'" in text
    assert max(map(len, text.splitlines()[2:6])) <= 80
    table = report_text(trial_report(trial), 60).partition("not pixels")[0]
    assert max(map(len, table.splitlines())) <= 60
    assert "suppressed" in table


def test_a_list_that_fits_no_unit_and_photographs_as_target_are_refused(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    shutil.copy(sample_pictures[0], tmp_path)
    with pytest.raises(UsageError):
        try_units(embedded_tflite, tmp_path, tmp_path)
    with pytest.raises(OptionError, match=r"largest anchor is .* times the picture"):
        try_units(embedded_tflite, tmp_path, tmp_path / "out", source_options=SourceOptions(anchors=((5e3, 5e3),)))
    assert not (tmp_path / "out").exists()


def test_the_command_converts_nothing_and_names_the_folder(
    embedded_tflite: Path, fractions: tuple[tuple[float, float], ...], sample_pictures: list[Path], tmp_path: Path
) -> None:
    listed = " ".join(f"{w},{h}" for w, h in fractions)
    command = ("convert", embedded_tflite, "--anchors", listed, "--try-units", sample_pictures[0].parent)
    run = run_xdet(*command, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{embedded_tflite.stem}_units"]
    assert run.stdout.startswith("2 photographs, boxes that score above 0.3:")
