"""The folder of a page: what is in it, what is refused, and what is left alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xdet.page as site
from converters.heads.nms import detect_from_head
from converters.heads.yolo_v2 import Anchors, YoloV2
from converters.spec import ImageInput, Suppression, Thresholds
from converters.spec.document import IN_FLOAT
from tests.xdet.finished_models import SPEC, document, finished_model, head_model
from tests.xdet.page.pages import empty_package
from xdet.errors import DataError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import read_document
from xdet.page import make_page


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return empty_package(tmp_path)


def write_model(folder: Path, data: bytes) -> Path:
    path = folder / "person.onnx"
    path.write_bytes(data)
    return path


def test_the_folder_holds_all_that_the_page_loads(package: Path, tmp_path: Path, sample_pictures: list[Path]) -> None:
    folder = tmp_path / "deep" / "site"
    model = write_model(tmp_path, finished_model())
    files = make_page(model, folder, package=package, samples=sample_pictures)
    assert set(files) == {path for path in folder.rglob("*") if path.is_file()}
    facts = json.loads((folder / "page.json").read_bytes())
    assert facts["title"] == "person"
    assert facts["about"] == "identity.tflite, 2 x 2, 1 class."
    assert facts["image"] == {"height": 2, "width": 2, "resize": "nearest", "color": "rgb", "any_size": False}
    assert facts["thresholds"] == {"score": 0.5, "iou": 0.5, "lowest": 0.05}
    assert (facts["samples"], facts["extra"]) == (["astronaut.jpg", "camera.jpg"], {})
    kept = re.search(r"^const FILES = (.*);$", (folder / "offline.js").read_text("utf-8"), re.MULTILINE)
    assert kept is not None
    names = {str(path.relative_to(folder)) for path in files}
    assert set(json.loads(kept[1])) == {"./", *names} - {"offline.js"}


def test_the_page_s_model_holds_the_slider_s_lowest_score(package: Path, tmp_path: Path) -> None:
    make_page(write_model(tmp_path, finished_model()), tmp_path / "site", package=package)
    found = read_document((tmp_path / "site" / "model.onnx").read_bytes(), file="model.onnx")
    assert (found.freeze_thresholds, found.spec.thresholds.score) == (True, 0.05)


def test_a_model_with_frozen_thresholds_stays_as_it_is(package: Path, tmp_path: Path) -> None:
    data = finished_model(freeze=True)
    make_page(write_model(tmp_path, data), tmp_path / "site", package=package)
    assert (tmp_path / "site" / "model.onnx").read_bytes() == data
    facts = json.loads((tmp_path / "site" / "page.json").read_bytes())
    assert facts["thresholds"]["lowest"] == facts["thresholds"]["score"] == 0.5


def test_the_page_sets_the_session_entry_that_int8_codes_need(package: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, finished_model(metadata=document(notes=(f"{IN_FLOAT}...",)).to_json()))
    make_page(model, tmp_path / "site", package=package)
    facts = json.loads((tmp_path / "site" / "page.json").read_bytes())
    assert facts["extra"] == {"session": {"qdqisint8allowed": "1"}}


def test_the_same_page_again_changes_nothing_and_another_model_replaces_its_own(package: Path, tmp_path: Path) -> None:
    model, folder = write_model(tmp_path, finished_model()), tmp_path / "site"
    before = {path: path.stat().st_mtime_ns for path in make_page(model, folder, package=package)}
    make_page(model, folder, package=package)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    make_page(model, folder, package=package, title="Another", force=False)
    changed = {path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"page.json", "offline.js"}


@pytest.mark.parametrize("name", ["index.html", "page.css", "page.json", "model.onnx", "offline.js"])
def test_a_file_of_another_hand_is_replaced_with_force_alone(name: str, package: Path, tmp_path: Path) -> None:
    model, folder = write_model(tmp_path, finished_model()), tmp_path / "site"
    folder.mkdir()
    (folder / name).write_text("mine", "utf-8")
    with pytest.raises(UsageError, match=f"{name}' exists already; give `force`"):
        make_page(model, folder, package=package)
    assert [path.name for path in folder.iterdir()] == [name]
    make_page(model, folder, package=package, force=True)
    assert (folder / name).read_text("utf-8", "replace") != "mine"


def test_a_model_that_a_page_cannot_show_is_refused(package: Path, tmp_path: Path) -> None:
    for data, words in (
        (b"no model", "is no ONNX file or a damaged one"),
        (head_model(), "ends at its raw outputs; a page shows boxes"),
        (finished_model(batch=4), "takes 4 pictures at a time; a page has one"),
    ):
        with pytest.raises(ModelError, match=words):
            make_page(write_model(tmp_path, data), tmp_path / "site", package=package)
    assert not (tmp_path / "site").exists()


def test_pictures_prepared_in_another_way_are_refused_by_name(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Later(ImageInput):
        order: str = "nchw"

    image = SPEC.image
    later = Later(image.height, image.width, image.rescaling, "bilinear", "bgr", order="nhwc")
    told = replace(document(), spec=replace(SPEC, image=later))
    monkeypatch.setattr(site, "ImageInput", Later)
    monkeypatch.setattr(site, "RESIZE_RULES", ("nearest",))
    monkeypatch.setattr(site, "read_document", lambda *_, **__: told)
    with pytest.raises(ModelError, match="wants pictures with order 'nhwc', resize 'bilinear', which the page"):
        make_page(write_model(tmp_path, finished_model()), tmp_path / "site", package=package)


def test_the_package_is_asked_for_by_its_npm_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDET_NODE_MODULES", raising=False)
    repair = "npm install onnxruntime-web@1.30.0, and name its folder with --onnxruntime-web"
    with pytest.raises(RuntimeUnavailableError) as missing:
        site.find_package(None)
    assert str(missing.value) == f"onnxruntime-web is not in 'node_modules/onnxruntime-web'; install it: {repair}"
    empty_package(tmp_path / "old", version="1.20.0")
    with pytest.raises(RuntimeUnavailableError, match=r"is onnxruntime-web 1\.20\.0, the page is made for 1\.30\.0"):
        site.find_package(tmp_path / "old")
    package = empty_package(tmp_path / "node_modules")
    assert site.find_package(None).resolve() == package == site.find_package(package) == site.find_package(tmp_path)
    (package / "dist" / "ort.wasm.min.mjs").unlink()
    with pytest.raises(RuntimeUnavailableError, match=r"ort\.wasm\.min\.mjs': No such file .* is not whole"):
        site.read_package(package)


def test_samples_must_be_there_and_differ_in_name(package: Path, tmp_path: Path, sample_pictures: list[Path]) -> None:
    model = write_model(tmp_path, finished_model())
    with pytest.raises(DataError, match=r"cannot read .none\.jpg."):
        make_page(model, tmp_path / "site", package=package, samples=[Path("none.jpg")])
    with pytest.raises(UsageError, match=r"two samples have the name .astronaut\.jpg."):
        make_page(model, tmp_path / "site", package=package, samples=[sample_pictures[0]] * 2)


@pytest.mark.parametrize(
    "rule",
    [
        Suppression(),
        Suppression(across_classes=True),
        Suppression(unclipped=True, class_first=True),
        Suppression(per_class=2),
    ],
    ids=["by class", "across classes", "class first", "few of a class"],
)
@given(seed=st.integers(0, 2**32 - 1), thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_leaving_out_low_scores_is_detecting_at_a_higher_threshold(
    rule: Suppression, seed: int, thresholds: tuple[float, float]
) -> None:
    """What the slider relies on, with more boxes than rows and equal scores."""
    low, high = sorted(thresholds)
    head = YoloV2(3, 3, Anchors(((1.0, 1.0), (2.0, 2.0)), "cell"), 3)
    limits = Thresholds(low, 0.4, max_detections=9)
    spec = replace(SPEC, head=head, class_names=("a", "b", "c"), suppression=rule, thresholds=limits)
    raw = np.random.default_rng(seed).integers(-3, 4, (1, 3, 3, 16)).astype(np.float32)
    found = detect_from_head(raw, spec, limits)
    expected = detect_from_head(raw, spec, replace(limits, score=high))
    kept = int((found.scores[0] > np.float32(high)).sum())
    assert kept == expected.num_detections[0]
    assert np.array_equal(found.anchors[0, :kept], expected.anchors[0, :kept])
    assert np.array_equal(found.classes[0, :kept], expected.classes[0, :kept])
    assert np.array_equal(found.boxes_xyxy[0, :kept], expected.boxes_xyxy[0, :kept])
