"""Drawing detections and saving pictures, under names of their own that all systems take."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from xdet.detections import Detections
from xdet.errors import ImageError, OutputError
from xdet.pictures.images import read_image
from xdet.pictures.render import (
    PICTURE_FORMATS,
    _place_labels,
    _shared,
    _Style,
    class_colour,
    draw_detections,
    picture_paths,
    save_picture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def detections(
    width: int, height: int, boxes: list[tuple[float, float, float, float]], class_name: str = "person"
) -> Detections:
    count = len(boxes)
    return Detections(
        image="photo.jpg",
        width=width,
        height=height,
        boxes_xyxy=np.array(boxes, np.float32).reshape(count, 4),
        scores=np.linspace(0.9, 0.6, count, dtype=np.float32),
        classes=np.zeros(count, np.int32),
        anchors=np.arange(count, dtype=np.int32),
        class_names=(class_name,),
    )


def gray(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def coloured(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture has exactly the colour of class 0."""
    mask: NDArray[np.bool_] = (picture == class_colour(0)).all(axis=2)
    return mask


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    assert np.array_equal(draw_detections(gray(40, 30), detections(40, 30, [])), gray(40, 30))


def test_the_original_is_not_drawn_on() -> None:
    image = gray(200, 200)
    draw_detections(image, detections(200, 200, [(0.2, 0.2, 0.8, 0.8)]))
    assert np.array_equal(image, gray(200, 200))


def test_the_box_runs_along_the_corners_in_pixels() -> None:
    mask = coloured(draw_detections(gray(400, 200), detections(400, 200, [(0.25, 0.5, 0.75, 1.0)])))
    assert mask[150, 100]
    assert mask[150, 299]
    assert mask[199, 200]
    assert not mask[150, 200]
    assert not mask[150, :100].any()
    assert not mask[150, 300:].any()


def test_lines_grow_with_the_picture() -> None:
    widths = []
    for side in (100, 1000, 4000):
        picture = draw_detections(gray(side, side), detections(side, side, [(0.25, 0.25, 0.75, 0.75)]))
        widths.append(int(coloured(picture)[side * 2 // 3, : side // 2].sum()))
    assert widths == [1, 4, 18]


@pytest.mark.parametrize(
    "box",
    [(0.0, 0.0, 0.5, 0.5), (0.95, 0.0, 1.0, 1.0), (0.98, 0.98, 1.0, 1.0), (0.0, 0.5, 1.0, 1.0)],
    ids=["top left", "right edge", "bottom right corner", "above its box"],
)
def test_the_whole_label_is_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    anywhere = draw_detections(gray(400, 300), detections(400, 300, [(0.4, 0.5, 0.9, 0.9)]))
    here = draw_detections(gray(400, 300), detections(400, 300, [box]))

    def ink(picture: NDArray[np.uint8]) -> int:
        """Pixels of letters: neither background, nor box, nor rim."""
        known = coloured(picture) | (picture == 128).all(axis=2) | (picture == 0).all(axis=2)
        return int((~known).sum())

    assert ink(here) == ink(anywhere) > 50


def test_a_long_name_in_a_narrow_picture_gives_way_to_the_score() -> None:
    name = "a class with quite a long name"
    narrow = draw_detections(gray(60, 200), detections(60, 200, [(0.1, 0.3, 0.9, 0.9)], name))
    other = draw_detections(gray(60, 200), detections(60, 200, [(0.1, 0.3, 0.9, 0.9)], name + " indeed"))
    assert np.array_equal(narrow, other)
    assert coloured(narrow)[48:58].sum() > 100  # the score's background above the box


def test_a_tiny_picture_gets_boxes_without_labels() -> None:
    mask = coloured(draw_detections(gray(24, 24), detections(24, 24, [(0.25, 0.25, 0.75, 0.75)])))
    assert mask.sum() == 4 * 12 - 4


def test_the_best_box_lies_on_top_and_no_label_on_another() -> None:
    """Three detections of one box: three labels' grounds of the colour of class 0, none hidden."""

    def ground(count: int) -> int:
        found = detections(600, 600, [(0.2, 0.4, 0.8, 0.9)] * count)
        return int(coloured(draw_detections(gray(600, 600), found))[100:239].sum())

    assert ground(1) > 500
    assert ground(3) == pytest.approx(3 * ground(1), rel=0.05)


def test_among_many_boxes_the_narrow_ones_get_smaller_letters() -> None:
    boxes = [(0.1 * number, 0.3, 0.1 * number + 0.05, 0.6) for number in range(6)] + [(0.0, 0.7, 0.9, 0.9)]
    draw, style = ImageDraw.Draw(Image.new("RGB", (900, 900))), _Style.for_picture(900, 900)

    def sizes(found: Detections) -> list[int]:
        return [label.font_size for label in _place_labels(draw, list(found), style, (900, 900))]

    few, many = detections(900, 900, boxes[:5]), detections(900, 900, boxes)
    assert sizes(few) == [style.font_size] * 5
    assert sizes(many) == [round(style.font_size * 0.75)] * 6 + [style.font_size]


@given(st.lists(st.tuples(st.floats(0, 0.5, width=32), st.floats(0, 0.5, width=32)), max_size=12))
def test_no_label_covers_another_where_there_is_room(corners: list[tuple[float, float]]) -> None:
    """Twelve boxes, each half as wide and high as the picture: each has room for all labels."""
    boxes = [(x, y, min(x + 0.5, 1.0), min(y + 0.5, 1.0)) for x, y in corners]
    found = detections(2000, 2000, boxes)
    draw = ImageDraw.Draw(Image.new("RGB", (2000, 2000)))
    labels = _place_labels(draw, list(found), _Style.for_picture(2000, 2000), (2000, 2000))
    places = [label.place for label in labels]
    assert len(places) == len(boxes)
    assert not any(_shared(one, other) for one, other in itertools.combinations(places, 2))


@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), corners=st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_any_box_in_any_picture_can_be_drawn(size: tuple[int, int], corners: tuple[float, float, float, float]) -> None:
    x1, x2 = sorted(corners[::2])
    y1, y2 = sorted(corners[1::2])
    assert draw_detections(gray(*size), detections(*size, [(x1, y1, x2, y2)])).shape == (size[1], size[0], 3)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"of 'photo\.jpg' belong to uint8 \(30, 40, 3\), got uint8 \(40, 30, 3\)"):
        draw_detections(gray(30, 40), detections(40, 30, []))


def test_eighty_classes_have_eighty_colours() -> None:
    assert len({class_colour(index) for index in range(80)}) == 80


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".jpg", ".jpeg", ".webp"])
def test_a_saved_picture_reads_back_and_saves_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    image = gray(20, 10)
    for name in ("a", "b"):
        save_picture(tmp_path / f"{name}{suffix}", image)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert np.abs(read_image(tmp_path / f"a{suffix}", honour_exif=True).astype(int) - 128).max() <= 2  # lossy


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"unknown picture suffix '\.xyz'; use one of \.png \.jpg"):
        save_picture(tmp_path / "a.xyz", gray(2, 2))
    assert not list(tmp_path.iterdir())


def test_a_picture_too_large_for_its_format_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="JPEG refuses 70000 x 1 pixels"):
        save_picture(tmp_path / "a.jpg", gray(70000, 1))
    assert not list(tmp_path.iterdir())


def named(*images: str) -> list[str]:
    return [path.name for path in picture_paths([Path(image) for image in images], Path("out"))]


@pytest.mark.parametrize(
    ("image", "picture"),
    [
        ("a/photo.jpg", "photo.jpg"),
        ("a/photo.WebP", "photo.WebP"),
        ("a/photo.tif", "photo.tif.png"),
        ("grüße 1.jpg", "grüße 1.jpg"),
        ('what?<>:"|*.jpg', "what_______.jpg"),
        ("line\nbreak\x1b[31m.jpg", "line_break_[31m.jpg"),
        ("\udcff.jpg", "_.jpg"),
        ("con", "_con.png"),
        ("LPT1.jpg", "_LPT1.jpg"),
        ("console.jpg", "console.jpg"),
    ],
)
def test_a_name_that_some_system_refuses_is_made_fit(image: str, picture: str) -> None:
    assert named(image) == [picture]


@pytest.mark.parametrize(
    ("images", "pictures"),
    [
        (["a/1.jpg", "b/1.jpg"], ["a_1.jpg", "b_1.jpg"]),
        (["a_1.jpg", "a/1.jpg", "b/1.jpg"], ["a_1.jpg", "a_1-2.jpg", "b_1.jpg"]),
        (["x/A.jpg", "x/a.JPG", "x/a.jpg"], ["A.jpg", "a-2.JPG", "a-3.jpg"]),
        (["straße.jpg", "STRASSE.jpg"], ["straße.jpg", "STRASSE-2.jpg"]),
    ],
    ids=["folders", "joined-folders", "case", "folded-case"],
)
def test_no_two_pictures_share_a_name_where_case_is_ignored(images: list[str], pictures: list[str]) -> None:
    assert named(*images) == pictures


def test_a_long_name_leaves_room_for_suffix_and_counter() -> None:
    first, second = named("ü" * 120 + "a.jpg", "ü" * 120 + "b.jpg")
    assert first == "ü" * 100 + ".jpg"
    assert second == "ü" * 100 + "-2.jpg"


@given(st.lists(st.text(st.characters(exclude_characters="/\x00"), min_size=1, max_size=40), max_size=6))
def test_any_names_become_distinct_file_names_in_the_folder(names: list[str]) -> None:
    paths = picture_paths([Path("in") / name for name in names], Path("out"))
    assert all(path.parent == Path("out") and path.suffix.lower() in PICTURE_FORMATS for path in paths)
    assert all(len(PurePosixPath(path).name.encode("utf-8")) <= 255 for path in paths)
    assert len({path.name.casefold() for path in paths}) == len(names)
