"""Every annotated picture gets a name of its own that all systems take."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdet.pictures.render import PICTURE_FORMATS, picture_paths


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
