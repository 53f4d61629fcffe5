"""What people do with detections: cut, filter, draw, save, hand on."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import xdet
from xdet.detections import Detections
from xdet.errors import ImageError, RuntimeUnavailableError, UsageError
from xdet.pictures.images import read_image

if TYPE_CHECKING:
    from pathlib import Path

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0]], np.float32)


@pytest.fixture
def found() -> Detections:
    return Detections(
        image="street.jpg",
        width=200,
        height=100,
        boxes_xyxy=BOXES,
        scores=np.array([0.9, 0.6, 0.3], np.float32),
        classes=np.array([1, 0, 1], np.int32),
        anchors=np.array([7, 5, 3], np.int32),
        class_names=("person", "dog"),
    )


def test_a_number_gives_one_detection_and_a_slice_or_mask_several(found: Detections) -> None:
    assert found[0].class_name == "dog"
    assert found[-1].anchor == found[2].anchor == 3
    assert [d.anchor for d in found[1:]] == [5, 3]
    assert [d.anchor for d in found[found.scores > 0.5]] == [7, 5]
    assert [d.anchor for d in found[np.array([2, 0])]] == [3, 7]
    with pytest.raises(IndexError):
        found[3]


def test_a_filter_keeps_classes_and_scores_and_names_a_class_that_is_none(found: Detections) -> None:
    assert [d.anchor for d in found.filter(classes=["dog"])] == [7, 3]
    assert [d.anchor for d in found.filter(classes="dog", min_score=0.5)] == [7]
    assert [d.anchor for d in found.filter(min_score=0.6)] == [7, 5]
    with pytest.raises(UsageError, match="`classes`: the model finds no 'cat'; it finds 'person', 'dog'"):
        found.filter(classes=["cat"])


def test_text_forms_hold_what_was_found(found: Detections) -> None:
    assert repr(found) == "<Detections of 'street.jpg' (200 x 100): 1 x person, 2 x dog>"
    assert repr(found[:0]).endswith(": nothing>")
    told = json.loads(found.to_json())
    assert told["detections"][0] == {
        "box_xyxy_px": [20.0, 20.0, 100.0, 60.0],
        "score": 0.9,
        "class_id": 1,
        "class_name": "dog",
        "anchor": 7,
    }
    assert found.to_yolo().splitlines()[0] == "1 0.300000 0.400000 0.400000 0.400000 0.900000"


def test_labels_to_train_with_have_no_scores(found: Detections) -> None:
    assert found.to_yolo(scores=False).splitlines()[0] == "1 0.300000 0.400000 0.400000 0.400000"


def test_pascal_voc_counts_pixels_from_one(found: Detections) -> None:
    hostile = Detections(**{**vars(found), "image": "a&b/c<d>.jpg", "class_names": ("person", "do\x07g<")})
    document = ET.fromstring(hostile.to_voc())  # noqa: S314 - our own
    assert document.findtext("folder") == "a&b"
    assert document.findtext("filename") == "c<d>.jpg"
    assert document.findtext("size/width") == str(found.width)
    assert [entry.findtext("name") for entry in document.iter("object")] == ["do?g<", "person", "do?g<"]
    for entry, box in zip(document.iter("bndbox"), found.boxes_xyxy_px.round(), strict=True):
        left, top, right, bottom = (int(corner.text or "") for corner in entry)
        assert (left, top) == (box[0] + 1, box[1] + 1)
        assert (right, bottom) == (max(box[2], left), max(box[3], top))


def test_a_notebook_shows_a_table_in_which_no_name_is_markup(found: Detections) -> None:
    hostile = Detections(**{**vars(found), "class_names": ("person", "<script>alert(1)</script>")})
    shown = hostile._repr_html_()
    assert "<script>" not in shown
    assert "<table>" in shown
    assert "nothing" in found[:0]._repr_html_()


def test_the_photograph_is_drawn_and_saved_but_never_replaced(sample_pictures: list[Path], tmp_path: Path) -> None:
    photograph = tmp_path / "photo.jpg"
    photograph.write_bytes(sample_pictures[0].read_bytes())
    with xdet.Detector() as detector:
        seen = detector(photograph)
    assert len(seen)
    picture = read_image(photograph, honour_exif=True)
    assert (seen.plot() == seen.plot(picture)).all()
    assert (seen.plot() != picture).any()
    saved = seen.save(tmp_path / "marked.png")
    assert (read_image(saved, honour_exif=False) == seen.plot()).all()
    seen.save(saved)  # ours, so it may be replaced
    before = photograph.read_bytes()
    with pytest.raises(UsageError, match=r"photo\.jpg"):
        seen.save(photograph, force=True)
    assert photograph.read_bytes() == before


def test_another_picture_than_the_one_looked_at_is_refused(found: Detections) -> None:
    with pytest.raises(ImageError):
        found.plot(np.zeros((50, 50, 3), np.uint8))


def test_what_was_no_file_wants_its_picture(found: Detections) -> None:
    with pytest.raises(ImageError, match=r"give the picture: plot\(picture\)"):
        found.plot()
    assert found.plot(np.zeros((100, 200, 3), np.uint8)).shape == (100, 200, 3)


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_missing_package_is_named_with_the_line_that_brings_it(
    package: str, found: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeUnavailableError, match=f"pip install {package}"):
        getattr(found, f"to_{package}")()


def test_a_data_frame_has_a_row_per_detection(found: Detections) -> None:
    pytest.importorskip("pandas", reason="needs pip install pandas")
    frame = found.to_pandas()
    assert list(frame.columns) == ["image", "x1", "y1", "x2", "y2", "class_id", "class_name", "score", "anchor"]
    assert frame["class_name"].tolist() == ["dog", "person", "dog"]
    assert frame["x2"].tolist() == pytest.approx([100.0, 200.0, 150.0])


def test_supervision_takes_boxes_in_pixels_with_names(found: Detections) -> None:
    pytest.importorskip("supervision", reason="needs pip install supervision")
    taken = found.to_supervision()
    np.testing.assert_array_equal(taken.xyxy, found.boxes_xyxy_px)
    assert taken.data["class_name"].tolist() == ["dog", "person", "dog"]
