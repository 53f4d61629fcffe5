"""The demo, whole and real."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from xdet.detection.demo import PHOTOGRAPHS, DemoFiles, run_demo
from xdet.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoFiles, list[str]]:
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("demo with spaces") / "made by the demo"
    return run_demo(folder, lines.append), lines


def test_the_demo_writes_a_model_one_picture_per_photograph_and_the_detections(
    demo: tuple[DemoFiles, list[str]],
) -> None:
    files, _ = demo
    folder = files.model.parent
    assert {path.name for path in folder.iterdir()} == {
        "tiny_yolo_v2_person_224_int8.onnx",
        *(f"{photograph.stem}.png" for photograph in PHOTOGRAPHS),
        "detections.json",
    }
    assert set(folder.iterdir()) == {files.model, *files.pictures, files.detections}


def test_every_step_is_one_line_with_its_time(demo: tuple[DemoFiles, list[str]]) -> None:
    files, lines = demo
    assert len(lines) == 4 + len(PHOTOGRAPHS)
    assert not any("\n" in line for line in lines)
    steps = [line for line in lines if not line.startswith(tuple(photo.name for photo in PHOTOGRAPHS))]
    assert len(steps) == 4
    for line in steps:
        assert line.endswith((" s", " ms", " us"))
    for path in (files.model, *files.pictures, files.detections):
        (line,) = [line for line in lines if str(path) in line]
        assert re.search(r", [\d.]+ (B|kB|MB)(,|$)", line)


def test_a_person_is_found_on_every_embedded_photograph(demo: tuple[DemoFiles, list[str]]) -> None:
    document = json.loads(demo[0].detections.read_text("utf-8"))
    assert [image["image"] for image in document["images"]] == [photograph.name for photograph in PHOTOGRAPHS]
    for image in document["images"]:
        best = image["detections"][0]
        x1, y1, x2, y2 = best["box_xyxy_px"]
        assert best["class_name"] == "person"
        assert best["score"] > 0.8
        assert (x2 - x1) * (y2 - y1) > image["width"] * image["height"] / 3


def test_the_pictures_are_the_photographs_with_boxes_on_them(demo: tuple[DemoFiles, list[str]]) -> None:
    for photograph, drawn in zip(PHOTOGRAPHS, demo[0].pictures, strict=True):
        with Image.open(photograph) as before, Image.open(drawn) as after:
            old, new = np.asarray(before.convert("RGB")), np.asarray(after)
        assert old.shape == new.shape
        changed = (old != new).any(axis=2).mean()
        assert 0 < changed < 0.3


def test_a_second_run_replaces_the_files_with_equal_bytes(tmp_path: Path) -> None:
    first = run_demo(tmp_path, lambda _: None)
    bytes_before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    first.detections.write_bytes(first.detections.read_bytes()[:60])
    assert run_demo(tmp_path, lambda _: None) == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == bytes_before


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("", "utf-8")
    with pytest.raises(OutputError, match="taken"):
        run_demo(taken, lambda _: None)
