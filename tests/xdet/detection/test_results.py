"""Results that grow image by image: lines are there at once, runs are resumed, other files are refused unharmed."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.xdet.finished_models import SPEC, red_image
from xdet.detection.batch import detect_to_file
from xdet.detection.detector import Detector
from xdet.detection.results import CSV_COLUMNS, ResultsFile, require_names, results_header
from xdet.errors import DataError, OutputError, UsageError
from xdet.pictures.preparation import prepare

if TYPE_CHECKING:
    from xdet.pictures.preparation import Preparation, Prepared

SUFFIXES = [".jsonl", ".csv"]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Four boxes, one box, none, and a picture that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, reds in (("four", [250] * 4), ("one", [250, 0, 0, 0]), ("none", [0] * 4), ("ü,q", [0, 0, 250, 0])):
        Image.fromarray(red_image(*reds)[0]).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return sorted(folder.iterdir())


def write(detector: Detector, images: list[Path], path: Path, classes: list[str] | None = None) -> ResultsFile:
    with ResultsFile(path, results_header(detector, classes)) as results:
        detect_to_file(detector, images, results, classes=classes)
    return results


def test_json_lines_name_the_run_and_then_each_image(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    results = write(detector, images, tmp_path / "out.jsonl")
    header, *lines = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert header == {
        "schema": "xdet.detection_lines",
        "version": 1,
        "model": {"name": "m.onnx", "sha256": detector.runtime.sha256},
        "description": hashlib.sha256(json.dumps(SPEC.to_dict(), sort_keys=True).encode()).hexdigest(),
        "runtime": "onnxruntime:cpu",
        "thresholds": {"score": 0.5, "iou": 0.5, "max_detections": 4},
        "classes": None,
    }
    assert [line["image"] for line in lines] == [path.as_posix() for path in images]
    assert [line["sha256"] for line in lines] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in images]
    assert [len(line.get("detections", "x")) for line in lines] == [1, 4, 0, 1, 1]
    assert list(lines[0]) == ["image", "sha256", "error"]
    assert list(lines[1]) == ["image", "sha256", "width", "height", "detections"]
    assert images[0].as_posix() in lines[0]["error"]
    assert (len(results.done), results.failed) == (5, 1)


def test_csv_has_a_line_per_box_or_image(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    write(detector, images, tmp_path / "out.csv")
    header, *lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()
    assert json.loads(header.removeprefix("# ")) == results_header(detector, None)
    rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == CSV_COLUMNS
    named = [images[0], *[images[1]] * 4, *images[2:]]
    assert [row["image"] for row in rows] == [path.as_posix() for path in named]
    assert [row["sha256"] for row in rows] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in named]
    assert rows[1]["class_name"] == "person"
    assert [row["x2"] for row in rows] == ["", "1.0", "1.0", "1.0", "1.0", "", "1.0", "1.0"]
    assert [bool(row["error"]) for row in rows] == [True] + [False] * 7


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_was_killed_at_any_byte_goes_on_to_the_same_file(
    detector: Detector, images: list[Path], tmp_path: Path, suffix: str
) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write(detector, images, whole)
    data = whole.read_bytes()
    with ResultsFile(tmp_path / f"empty{suffix}", results_header(detector, None)) as start:
        assert start.done == {}
    first = (tmp_path / f"empty{suffix}").stat().st_size
    assert data[:first] == (tmp_path / f"empty{suffix}").read_bytes()
    for end in [first, *range(first + 1, len(data), 23), len(data)]:
        cut.write_bytes(data[:end])
        write(detector, images, cut)
        assert cut.read_bytes() == data


def named_lines(path: Path) -> list[str]:
    """The folder and name of each line's image, in order, each image once in a row."""
    text = path.read_text("utf-8").splitlines()
    if path.suffix == ".csv":
        names = [row["image"] for row in csv.DictReader(text[1:])]
    else:
        names = [json.loads(line)["image"] for line in text[1:]]
    return ["/".join(Path(name).parts[-2:]) for name, _ in groupby(names)]


def save(path: Path, red: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2), (red, 0, 0)).save(path)
    return path


def test_what_is_done_is_not_looked_at_again(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(detector, images[:3], tmp_path / "out.jsonl")
    read: list[Path] = []

    def count(path: Path, how: Preparation) -> Prepared:
        read.append(path)
        return prepare(path, how)

    monkeypatch.setattr("xdet.detection.batch.prepare", count)
    results = write(detector, images, tmp_path / "out.jsonl")
    assert sorted(read) == [images[0], *images[3:]]  # what failed is tried again
    assert (len(results.done), results.failed) == (5, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_namesake_in_another_folder_is_another_image(detector: Detector, tmp_path: Path, suffix: str) -> None:
    first, last, second = (save(tmp_path / name, 250) for name in ("da/x.png", "da/y.png", "db/x.png"))
    path = tmp_path / f"out{suffix}"
    write(detector, [first, last], path)
    write(detector, [second], path)
    write(detector, [first, last, second], path)
    assert named_lines(path) == ["da/x.png", "da/y.png", "db/x.png"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_changed_photograph_is_detected_anew(detector: Detector, tmp_path: Path, suffix: str) -> None:
    images = [save(tmp_path / "d" / name, 250) for name in ("x.png", "y.png")]
    path = tmp_path / f"out{suffix}"
    write(detector, images, path)
    images[0].write_bytes(b"no picture")
    with ResultsFile(path, results_header(detector, None)) as results:
        assert detect_to_file(detector, images, results) == 1
        assert (len(results.done), results.failed) == (2, 1)
    with ResultsFile(path, results_header(detector, None)) as results:  # the last line of a name counts
        assert results.done[images[0].as_posix()] == hashlib.sha256(b"no picture").hexdigest()
        assert detect_to_file(detector, images, results) == 0
    save(images[0], 0)
    assert write(detector, images, path).failed == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_failed_is_tried_again(
    detector: Detector, images: list[Path], tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / f"out{suffix}", images[0].read_bytes()
    write(detector, images, path)
    before = path.read_bytes()
    assert write(detector, images, path).failed == 1
    assert path.read_bytes() == before  # the same failure is held once
    with monkeypatch.context() as patch:
        patch.setattr("xdet.detection.batch.hash_file", lambda _: hashlib.sha256(whole).hexdigest())
        patch.setattr("xdet.detection.batch.prepare", lambda _, how: prepare(images[1], how))
        assert write(detector, images[:1], path).failed == 0  # such as a file that could not be read for a moment
    with ResultsFile(path, results_header(detector, None)) as results:
        assert results.failed == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_writer_is_refused(detector: Detector, tmp_path: Path, suffix: str) -> None:
    path, header = tmp_path / f"out{suffix}", results_header(detector, None)
    with ResultsFile(path, header):
        before = path.read_bytes()
        for anew in (False, True):
            with pytest.raises(OutputError, match=rf"another process writes to '.*out{suffix}'; wait"):
                ResultsFile(path, header, anew=anew)
        assert path.read_bytes() == before
    with ResultsFile(path, header, anew=True):
        assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_results_of_another_run_are_refused_unharmed(
    detector: Detector, images: list[Path], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    write(detector, images, path)
    before = path.read_bytes()
    with Detector(tmp_path / "m.onnx", threads=1, score_threshold=0.7) as other:
        header = results_header(other, ["person"])
    with pytest.raises(UsageError, match=f"out{suffix}' holds results of another thresholds, another classes; "):
        ResultsFile(path, header)
    assert path.read_bytes() == before


def test_the_same_file_described_in_another_way_is_another_run(
    detector: Detector, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(detector, images, tmp_path / "out.jsonl")
    monkeypatch.setattr(Detector, "spec", replace(SPEC, class_names=("dog",)))  # as by another sidecar or --classes
    with pytest.raises(UsageError, match=r"holds results of another description; go on as that run was called"):
        ResultsFile(tmp_path / "out.jsonl", results_header(detector, None))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"my notes\n", b"# my notes", b"{}\n", b"\x00" * 100, b"image,width\n1,2\n"])
def test_a_file_of_another_kind_is_refused_unharmed(
    detector: Detector, tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"notes{suffix}', line 1, is no result of xdet detect; name another file"):
        ResultsFile(path, results_header(detector, None))
    assert path.read_bytes() == content


def test_other_lines_behind_the_header_are_refused(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    for suffix, line in ((".jsonl", b'{"image": "a"}\n'), (".csv", b"a,b\n")):
        path = tmp_path / f"out{suffix}"
        write(detector, images[:2], path)
        path.write_bytes(path.read_bytes() + line)
        with pytest.raises(DataError, match="is no result of xdet detect"):
            ResultsFile(path, results_header(detector, None))


@pytest.mark.parametrize(
    "change",
    [
        {"image": 3},
        {"sha256": "a b"},
        {"sha256": None},
        {"error": 7},
        {"frame": 1e400},
        {"time_s": 10**30},
        {"width": 2**31},
        {"detections": None},
        {"detections": [{}]},
        {"image": "\ud800"},
    ],
    ids=str,
)
def test_a_line_whose_values_are_of_other_kinds_is_refused_unharmed(tmp_path: Path, change: dict[str, object]) -> None:
    header = {"schema": "xdet.detection_lines", "version": 1}
    path = tmp_path / "out.jsonl"
    sound = {"image": "a", "sha256": "0", "width": 1, "height": 1, "detections": []}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (header, sound)))
    with ResultsFile(path, header) as results:
        assert results.done == {"a": "0"}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (header, sound, {**sound, **change})))
    before = path.read_bytes()
    with pytest.raises(DataError, match="line 3, is no result of xdet detect"):
        ResultsFile(path, header)
    assert path.read_bytes() == before


def test_a_line_break_in_a_name_suits_json_alone() -> None:
    require_names(Path("o.jsonl"), ["a\nb.png"])
    with pytest.raises(DataError, match=r"'a\\nb\.png' cannot stand in a line of CSV"):
        require_names(Path("o.csv"), ["a\nb.png"])


def test_classes_that_are_not_wanted_are_left_out(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    write(detector, images, tmp_path / "out.jsonl", ["person"])
    assert '"classes": ["person"]' in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()[0]
    with pytest.raises(UsageError, match="the model finds no 'dog'"):
        write(detector, images, tmp_path / "dog.jsonl", ["dog"])
