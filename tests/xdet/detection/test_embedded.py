"""The embedded model: converted once, for the runtime at hand, and the demo on it, whole and real."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.xdet.finished_models import SPEC, finished_model
from xdet.detection import embedded
from xdet.detection.detector import Detector
from xdet.detection.embedded import PHOTOGRAPHS, DemoFiles, cache_path, open_embedded, run_demo
from xdet.errors import ModelError, OutputError, RuntimeUnavailableError
from xdet.model.file import read_document
from xdet.runtimes import ort_session
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from converters.spec import Target
    from xdet.runtimes.base import Runtime

ONE_THREAD = RuntimeChoices(threads=1)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """An empty cache, and the sources converted since, by a converter that takes no time."""
    done: list[Path] = []

    def convert(source: Path, _: Target) -> bytes:
        done.append(source)
        return finished_model()

    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "cache" / "xdet"))
    monkeypatch.setattr(embedded, "_convert", convert)
    return done


def test_the_first_call_converts_and_the_second_reads_the_cache(conversions: list[Path]) -> None:
    for _ in range(2):
        runtime = open_embedded(ONE_THREAD)
        assert runtime.spec == SPEC
        assert runtime.file == str(cache_path())
    assert conversions == [embedded.SOURCE]
    assert [path.name for path in cache_path().parent.iterdir()] == [cache_path().name]


def test_the_caches_name_changes_with_the_source_its_sidecar_and_the_converter(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = [cache_path()]
    other = tmp_path / embedded.SOURCE.name
    other.write_bytes(embedded.SOURCE.read_bytes())
    monkeypatch.setattr(embedded, "SOURCE", other)
    paths.append(cache_path())  # the sidecar is missing
    other.write_bytes(b"another source")
    paths.append(cache_path())
    program = tmp_path / "program.py"
    program.write_text("one = 1", "utf-8")
    monkeypatch.setattr(embedded, "_converter_files", lambda: iter([program]))
    paths.append(cache_path())
    program.write_text("one = 10", "utf-8")
    paths.append(cache_path())
    os.utime(program, (1000, 1000))  # edited, with as many characters as before
    paths.append(cache_path())
    assert len(set(paths)) == 6
    assert cache_path() == paths[-1]
    assert conversions == []


@pytest.mark.parametrize(("installed", "target"), [("1.23.2", "portable"), ("1.24.1", "cpu"), ("2.0.0", "cpu")])
def test_an_onnxruntime_without_the_cpu_targets_kernels_gets_the_portable_graph(
    monkeypatch: pytest.MonkeyPatch, installed: str, target: str
) -> None:
    names = [cache_path()]
    monkeypatch.setattr(ort_session, "installed_release", lambda: installed)
    assert embedded.target_for(ONE_THREAD) == target
    names.append(cache_path())
    assert (names[0] == names[1]) == (target == "cpu")  # environments of both kinds share the folder
    data = embedded._convert(embedded.SOURCE, embedded.target_for(ONE_THREAD))
    assert read_document(data, file="m.onnx").target == target


def test_every_module_of_the_converter_counts_for_the_caches_name() -> None:
    import converters

    folder = Path(converters.__file__).parent
    found = {path.relative_to(folder).as_posix() for path in embedded._converter_files()}
    assert {"convert.py", "sources/tflite/importer.py", "heads/yolo_v2.py", "passes/__init__.py"} <= found


def test_old_conversions_are_removed_but_for_the_latest_three(conversions: list[Path]) -> None:
    folder = cache_path().parent
    folder.mkdir(parents=True)
    for age in range(5):
        old = folder / f"{embedded.SOURCE.stem}-{age}.onnx"
        old.touch()
        os.utime(old, (1000 - age, 1000 - age))
    (folder / "not ours.onnx").touch()
    open_embedded(ONE_THREAD)
    assert {path.name for path in folder.iterdir()} == {
        *(f"{embedded.SOURCE.stem}-{age}.onnx" for age in (0, 1)),
        cache_path().name,
        "not ours.onnx",
    }
    assert len(conversions) == 1


def test_a_model_that_only_the_asked_provider_refuses_is_not_converted_again(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_embedded(ONE_THREAD)

    def refusing(*_: object) -> Runtime:
        raise ModelError("this device takes no such operator")

    monkeypatch.setattr(embedded, "open_at", refusing)
    with pytest.raises(ModelError, match="this device takes no such operator"):
        open_embedded(RuntimeChoices(provider="cpu"))
    assert len(conversions) == 1


def test_without_the_variable_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.CACHE_VARIABLE)
    assert "xdet" in cache_path().parent.parts


@pytest.mark.parametrize("damage", [b"", b"\x08\x09", finished_model()[:300]], ids=["empty", "no-graph", "truncated"])
def test_a_damaged_cache_is_made_again(damage: bytes, conversions: list[Path]) -> None:
    cache_path().parent.mkdir(parents=True)
    cache_path().write_bytes(damage)
    assert open_embedded(ONE_THREAD).spec == SPEC
    assert cache_path().read_bytes() == finished_model()
    assert len(conversions) == 1


def test_a_cache_that_cannot_be_written_leaves_the_model_in_memory(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocker = tmp_path / "a file"
    blocker.touch()
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(blocker / "xdet"))
    runtime = open_embedded(ONE_THREAD)
    assert runtime.spec == SPEC
    assert runtime.file == cache_path().name
    assert len(conversions) == 1


def test_callers_that_start_together_all_get_the_whole_model(conversions: list[Path]) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(open_embedded(ONE_THREAD).spec)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SPEC] * 6
    assert 1 <= len(conversions) <= 6
    assert [path.name for path in cache_path().parent.iterdir()] == [cache_path().name]


def test_a_provider_that_is_not_there_is_found_before_the_conversion(conversions: list[Path]) -> None:
    with pytest.raises(RuntimeUnavailableError, match="warp-drive"):
        open_embedded(RuntimeChoices(provider="warp-drive"))
    assert conversions == []


def test_a_detector_without_a_model_is_the_embedded_one(conversions: list[Path]) -> None:
    assert Detector(threads=1).spec == SPEC
    assert len(conversions) == 1


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
