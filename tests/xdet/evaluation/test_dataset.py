"""Reading COCO annotations: every wrong entry is named with its file and reason, nothing else changes."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from xdet.errors import DataError
from xdet.evaluation.dataset import IGNORED, Dataset, read_coco

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = [
    {"id": 7, "file_name": "b.jpg", "width": 640, "height": 480},
    {"id": 3, "file_name": "sub/a.jpg", "width": 100, "height": 50},
]
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def annotation(number: int = 1, **changes: object) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 7,
        "category_id": 1,
        "bbox": [10.5, 20, 30, 40],
        "area": 900.5,
        "iscrowd": 0,
    } | changes


def write(folder: Path, document: object) -> Path:
    """The annotations beside two (empty) photographs."""
    (folder / "sub").mkdir(exist_ok=True)
    for name in ("b.jpg", "sub/a.jpg"):
        (folder / name).write_bytes(b"")
    path = folder / "truth.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def read(folder: Path, **sections: object) -> Dataset:
    document = {"images": IMAGES, "annotations": [annotation()], "categories": CATEGORIES} | sections
    return read_coco(write(folder, document), folder)


def test_images_come_by_id_with_their_boxes_in_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = read(
        tmp_path,
        annotations=[
            annotation(5, iscrowd=1),
            annotation(2, bbox=[0, 0, 5, 4], category_id=18),
            annotation(9, image_id=3),
        ],
    )
    assert [image.id for image in dataset.images] == [3, 7]
    second = dataset.images[1]
    assert (second.size_wh, second.path) == ((640, 480), tmp_path / "b.jpg")
    assert second.boxes_xywh_px.tolist() == [[10.5, 20, 30, 40], [0, 0, 5, 4]]
    assert second.areas.tolist() == [900.5, 900.5]
    assert second.category_ids.tolist() == [1, 18]
    assert second.crowd.tolist() == [True, False]
    assert dataset.categories == {1: "person", 18: "dog"}
    assert (dataset.problems, dataset.ignored) == ((), {})
    assert dataset.sha256 == hashlib.sha256((tmp_path / "truth.json").read_bytes()).hexdigest()


def test_an_image_without_annotations_stays(tmp_path: Path) -> None:
    assert read(tmp_path).images[0].boxes_xywh_px.shape == (0, 4)


def test_an_area_that_is_not_annotated_is_width_times_height(tmp_path: Path) -> None:
    entry = {key: value for key, value in annotation().items() if key not in ("area", "iscrowd")}
    image = read(tmp_path, annotations=[entry]).images[1]
    assert image.areas.tolist() == [1200.0]
    assert image.crowd.tolist() == [False]


BAD_ANNOTATIONS: dict[str, tuple[object, str]] = {
    "no object": ([1], r"annotations\[1\] is \[1\], expected an object"),
    "no id": ({"image_id": 7}, r"annotations\[1\] has the id None, expected an integer"),
    "an id that is text": (annotation() | {"id": "2"}, r"annotations\[1\] has the id '2'"),
    "an id that stands there already": (annotation(1), r"annotations\[1\] \(id 1\) has the id of an annotation before"),
    "an unknown image": (annotation(2, image_id=99), r"\(id 2\) belongs to image 99, which does not exist"),
    "an unknown category": (annotation(2, category_id=4), r"\(id 2\) belongs to category 4, which does not exist"),
    "NaN": (
        annotation(2, bbox=[float("nan"), 0, 1, 1]),
        r"\(id 2\) has the bbox \[nan, 0, 1, 1\], expected four finite",
    ),
    "infinity": (annotation(2, bbox=[0, 0, float("inf"), 1]), r"\[0, 0, inf, 1\], expected four finite numbers"),
    "three numbers": (annotation(2, bbox=[0, 0, 1]), r"\[0, 0, 1\], expected four finite numbers"),
    "truth values": (annotation(2, bbox=[True, 0, 1, 1]), r"\[True, 0, 1, 1\], expected four finite numbers"),
    "a negative width": (annotation(2, bbox=[5, 5, -1, 4]), r"\[5, 5, -1, 4\], whose width and height must be above 0"),
    "no height": (annotation(2, bbox=[5, 5, 1, 0]), r"whose width and height must be above 0"),
    "a box outside": (annotation(2, bbox=[640, 5, 9, 9]), r"lies outside its image of 640 x 480 pixels"),
    "a box on the other side": (annotation(2, bbox=[5, -9, 9, 9]), r"lies outside its image of 640 x 480 pixels"),
    "a negative area": (annotation(2, area=-1), r"has the area -1, expected square pixels"),
    "a crowd of two": (annotation(2, iscrowd=2), r"has iscrowd 2, expected 0 or 1"),
}


@pytest.mark.parametrize("what", BAD_ANNOTATIONS)
def test_a_bad_annotation_is_named_and_the_others_count(what: str, tmp_path: Path) -> None:
    bad, reason = BAD_ANNOTATIONS[what]
    dataset = read(tmp_path, annotations=[annotation(1), bad, annotation(8)])
    assert len(dataset.images[1].areas) == 2
    assert dataset.ignored == {"bad_annotations": 1}
    (problem,) = dataset.problems
    assert problem.kind == "bad_annotations"
    assert str(tmp_path / "truth.json") in problem.message
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(problem.message)


BAD_IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "an id that stands there already": (
        {"id": 7, "file_name": "c.jpg", "width": 9, "height": 9},
        r"images\[2\] \(id 7\) has the id of another image, 'b.jpg'; that one counts",
    ),
    "no name": ({"id": 8, "width": 9, "height": 9}, r"has the file_name None, expected a path"),
    "a way out": (
        {"id": 8, "file_name": "../b.jpg", "width": 9, "height": 9},
        r"has the file_name '../b.jpg', which leads out of the folder",
    ),
    "no width": ({"id": 8, "file_name": "b.jpg", "height": 9}, r"has the size None x 9, expected whole pixels"),
    "half a pixel": (
        {"id": 8, "file_name": "b.jpg", "width": 9.5, "height": 9},
        r"has the size 9.5 x 9, expected whole pixels",
    ),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
def test_a_bad_image_entry_is_named_and_the_others_count(what: str, tmp_path: Path) -> None:
    bad, reason = BAD_IMAGES[what]
    dataset = read(tmp_path, images=[*IMAGES, bad])
    assert [image.id for image in dataset.images] == [3, 7]
    assert dataset.ignored == {"bad_images": 1}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(dataset.problems[0].message)


def test_a_missing_photograph_and_its_annotations_are_counted(tmp_path: Path) -> None:
    gone = {"id": 8, "file_name": "gone.jpg", "width": 9, "height": 9}
    dataset = read(tmp_path, images=[*IMAGES, gone], annotations=[annotation(1, image_id=8), annotation(2, image_id=8)])
    assert dataset.ignored == {"missing_images": 1, "annotations_of_ignored_images": 2}
    assert [problem.message for problem in dataset.problems] == [
        f"'{tmp_path / 'truth.json'}': image 8: there is no file '{tmp_path / 'gone.jpg'}'"
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": 1, "name": "cat"}, "has the id of another category, 'person'"),
        ({"id": 2, "name": " Person "}, "has the name of another category, ' Person '"),
        ({"id": 2, "name": ""}, "has the name '', expected a text"),
    ],
)
def test_a_bad_category_is_named(bad: dict[str, Any], reason: str, tmp_path: Path) -> None:
    dataset = read(tmp_path, categories=[*CATEGORIES, bad])
    assert dataset.categories == {1: "person", 18: "dog"}
    assert dataset.ignored == {"bad_categories": 1}
    assert f"categories[2] (id {bad['id']}) {reason}" in dataset.problems[0].message


def test_boxes_over_the_edge_are_kept_and_counted(tmp_path: Path) -> None:
    dataset = read(
        tmp_path,
        annotations=[
            annotation(1, bbox=[600, 0, 40.9, 9]),  # rounding, as in COCO's own files
            annotation(2, bbox=[600, 0, 42, 9]),
            annotation(3, bbox=[-2, 0, 42, 9]),
        ],
    )
    assert dataset.over_the_edge == 2
    assert len(dataset.images[1].areas) == 3
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is no JSON: .* expected a COCO file"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b'[{"image_id": 1}]', "holds a list, as COCO results do"),
        (b"7", "holds 7; expected a COCO file"),
        (b'{"images": [], "annotations": {}}', "has no list named annotations, categories"),
        (b'{"images": [], "annotations": [], "categories": []}', "leaves no image to evaluate: 0 image entries"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_bytes(content)
    with pytest.raises(DataError, match=f"truth.json' {reason}"):
        read_coco(tmp_path / "truth.json", tmp_path)


def test_when_nothing_is_left_the_first_reason_is_told(tmp_path: Path) -> None:
    gone = {"id": 8, "file_name": "gone.jpg", "width": 9, "height": 9}
    with pytest.raises(DataError, match=r"1 left out, the first because: .*there is no file '.*gone\.jpg'"):
        read(tmp_path, images=[gone], annotations=[])


def test_missing_annotations_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the annotations '.*no\.json'"):
        read_coco(tmp_path / "no.json", tmp_path)
    with pytest.raises(DataError, match=r"nowhere' is not a folder; give `images`"):
        read_coco(write(tmp_path, {"images": [], "annotations": [], "categories": []}), tmp_path / "nowhere")


def test_every_kind_of_problem_has_words(tmp_path: Path) -> None:
    dataset = read(tmp_path, images=[*IMAGES, {}], annotations=[{}], categories=[*CATEGORIES, {}])
    assert set(dataset.ignored) <= set(IGNORED)
    assert len(dataset.problems) == sum(dataset.ignored.values()) == 3


@pytest.mark.shared
def test_the_shared_annotations_have_no_problem(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "coco_person"
    dataset = read_coco(folder / "annotations.json", folder / "images")
    assert len(dataset.images) == 150
    assert sum(len(image.areas) for image in dataset.images) == 614
    assert sum(int(image.crowd.sum()) for image in dataset.images) == 8
    assert (dataset.problems, dataset.over_the_edge) == ((), 0)


HUGE = 10**400


@pytest.mark.parametrize(
    ("section", "entry", "said"),
    [
        ("annotations", annotation(bbox=[HUGE, 20, 30, 40]), "expected four finite numbers"),
        ("annotations", annotation(bbox=[1e300, 20, 1e300, 40]), "expected four finite numbers"),
        ("annotations", annotation(area=HUGE), "expected square pixels"),
        ("annotations", annotation(id=HUGE), "expected an integer of 64 bits"),
        ("annotations", annotation(category_id=2**63), "which does not exist"),
        ("images", IMAGES[0] | {"width": HUGE}, "expected whole pixels"),
        ("images", IMAGES[0] | {"id": 2**63}, "expected an integer of 64 bits"),
        ("images", IMAGES[0] | {"file_name": "n" * 5000}, "there is no file"),
        ("images", IMAGES[0] | {"file_name": "\ud800"}, "there is no file"),
        ("categories", {"id": -(2**64), "name": "cat"}, "expected an integer of 64 bits"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numbers_and_names_that_no_computer_takes_are_problems(
    tmp_path: Path, section: str, entry: dict[str, Any], said: str
) -> None:
    sound = {"images": IMAGES[1], "annotations": annotation(2, image_id=3), "categories": CATEGORIES[0]}
    dataset = read(tmp_path, **{section: [sound[section], entry]})
    assert said in dataset.problems[0].message
    assert len(dataset.problems[0].message) < 6000


def test_many_categories_are_read_in_no_time(tmp_path: Path) -> None:
    started = time.process_time()
    dataset = read(tmp_path, categories=[{"id": i + 1, "name": f"class {i}"} for i in range(40_000)])
    assert len(dataset.categories) == 40_000
    assert time.process_time() - started < 5


BOXES = [[10, 20, 30, 40], [300, 300, 200, 100], [600, 100, 40, 300], [500, 20, 100, 440]]


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        (BOXES, None),
        ([[x / 640, y / 480, w / 640, h / 480] for x, y, w, h in BOXES], "they look like fractions of the image"),
        ([[x, y, x + w, y + h] for x, y, w, h in BOXES], "they look like x1, y1, x2, y2"),
        ([[x + w / 2, y + h / 2, w, h] for x, y, w, h in BOXES], "x, y is the upper left corner in COCO"),
        ([[0, 0, 300, 200], [400, 300, 245, 190]], None),
        ([], None),
    ],
    ids=["as they should be", "fractions", "corners", "centres", "over the edge", "none"],
)
def test_boxes_of_another_form_are_told_by_their_looks(
    tmp_path: Path, boxes: list[list[float]], said: str | None
) -> None:
    dataset = read(tmp_path, annotations=[annotation(i, bbox=box) for i, box in enumerate(boxes)])
    assert dataset.problems == ()
    assert (dataset.warning is None) if said is None else (said in str(dataset.warning))
