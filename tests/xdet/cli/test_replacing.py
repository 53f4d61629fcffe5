"""No command replaces a file that it reads, and none replaces a file of the user's unless forced."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

import xdet
from tests.xdet.labelled_scenes import FOUND_XYWH_PX, Scene, write_model
from xdet.cli.app import build_app
from xdet.cli.console import with_options
from xdet.pictures.render import save_picture
from xdet.writing.files import MODEL_MARK, PAGE_MARK, PAGE_START, PICTURE_MARK

if TYPE_CHECKING:
    import re

FILES = "s.tflite s.xdet.json m.xdet.json z.yaml anchors.txt names.txt kept notes.md"
FOREIGN = b'{"schema": "somebody else\'s"}'


@dataclass(frozen=True)
class Case:
    """One output of one command: its words up to the output's path, and the files that it reads."""

    words: str
    inputs: tuple[str, ...]


EVAL = "eval m.onnx --images photos --annotations a.json --max-detections 4"
EVAL_INPUTS = ("m.onnx", "m.xdet.json", "a.json", "photos/1.png")
CHECK = "check m.onnx --source s.tflite --images photos"
CHECK_INPUTS = ("m.onnx", "s.tflite", "s.xdet.json", "photos/1.png")
CASES = {
    "convert": Case(
        "convert s.tflite --config z.yaml --anchors anchors.txt --classes names.txt "
        "--quantize per-channel --calibration photos -o",
        ("s.tflite", "s.xdet.json", "z.yaml", "anchors.txt", "names.txt", "photos/1.png"),
    ),
    "detect": Case("detect m.onnx photos --json", ("m.onnx", "m.xdet.json", "photos/1.png")),
    "inspect": Case("inspect m.onnx --json", ("m.onnx", "m.xdet.json")),
    "selftest": Case("selftest m.onnx --json", ("m.onnx",)),
    "bench": Case("bench m.onnx s.tflite --images photos --json", ("m.onnx", "s.tflite", "photos/1.png")),
    "eval json": Case(f"{EVAL} --resume kept --json", (*EVAL_INPUTS, "kept")),
    "eval plot": Case(f"{EVAL} --resume kept --plot", (*EVAL_INPUTS, "kept")),
    "check json": Case(f"{CHECK} --json", CHECK_INPUTS),
    "check report": Case(f"{CHECK} --report", CHECK_INPUTS),
    "check repro": Case(f"{CHECK} --repro", CHECK_INPUTS),
    "card": Case(
        "card s.tflite m.onnx --images photos --annotations a.json --samples more --notes notes.md --output",
        ("s.tflite", "s.xdet.json", "m.onnx", "a.json", "notes.md", "photos/1.png", "more/0.png"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a file for every input; a model and photographs that work."""
    (tmp_path / "photos").mkdir()
    scene = Scene(tmp_path / "photos")
    for _ in range(8):  # as many as a calibration needs
        scene.add(255, truths=[FOUND_XYWH_PX])
    scene.write().rename(tmp_path / "a.json")
    shutil.copytree(tmp_path / "photos", tmp_path / "more")
    (tmp_path / "more" / "1.png").rename(tmp_path / "more" / "0.png")
    write_model(tmp_path / "m.onnx")
    for name in FILES.split():
        (tmp_path / name).write_bytes(FOREIGN)
    (tmp_path / "anchors.txt").write_text("1,1 2,2", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: str) -> BaseException | None:
    """What a command raised; None where it worked."""
    error = CliRunner().invoke(build_app(), words.split()).exception
    return None if isinstance(error, SystemExit) and not error.code else error


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told(error: BaseException | None) -> str:
    assert getattr(error, "exit_code", None) == 2, error
    return with_options(str(error))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("force", ["", " --force"])
def test_no_output_replaces_an_input(folder: Path, case: Case, force: str) -> None:
    before = contents(folder)
    for name in case.inputs:
        target = name
        if "--repro" in case.words and Path(name).suffix != ".onnx":
            target = "link.onnx"
            Path(target).unlink(missing_ok=True)
            os.link(name, target)
        assert "is a file that this command reads" in told(run(f"{case.words} {target}{force}")), name
    Path("link.onnx").unlink(missing_ok=True)
    assert contents(folder) == before


@pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: links need a privilege on Windows"
)
@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_no_output_replaces_an_input_by_another_name(folder: Path, case: Case, make: object) -> None:
    assert callable(make)
    before = contents(folder)
    make(case.inputs[-1], folder / "link.onnx")
    assert "'link.onnx' is a file that this command reads" in told(run(f"{case.words} ./link.onnx --force"))
    Path("link.onnx").unlink()
    assert contents(folder) == before


@pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: links need a privilege on Windows"
)
def test_a_picture_read_through_a_link_stays(folder: Path) -> None:
    (folder / "real.png").write_bytes(Path("photos/1.png").read_bytes())
    Path("photos/1.png").unlink()
    Path("photos/1.png").symlink_to(folder / "real.png")
    for name in ("detect", "eval json", "bench", "card"):
        assert "is a file that this command reads" in told(run(f"{CASES[name].words} real.png --force"))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_file_of_the_users_is_replaced_by_force_alone(folder: Path, case: Case) -> None:
    mine = folder / "mine.onnx"
    mine.write_bytes(FOREIGN)
    before = contents(folder)
    assert told(run(f"{case.words} mine.onnx")).startswith("'mine.onnx' exists already; give --force to replace it")
    assert contents(folder) == before


def test_the_values_beside_a_repro_are_not_replaced(folder: Path) -> None:
    (folder / "layer.npz").write_bytes(FOREIGN)
    assert "'layer.npz' exists already" in told(run(f"{CHECK} --repro layer.onnx"))


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("detect m.onnx photos --json", "out.json"),
        ("inspect m.onnx --json", "out.json"),
        (f"{EVAL} --json", "out.json"),
        (f"{EVAL} --plot", "out.png"),
        ("detect m.onnx photos --save marked --json", "out.json"),
    ],
)
def test_what_a_command_made_is_replaced_and_foreign_files_by_force(folder: Path, words: str, output: str) -> None:
    (folder / "m.xdet.json").unlink()
    assert run(f"{words} {output}") is None
    made = contents(folder)
    assert run(f"{words} {output}") is None
    assert contents(folder) == made
    for path in [folder / output, *folder.glob("marked/*")]:
        path.write_bytes(FOREIGN)
        assert "exists already" in told(run(f"{words} {output}"))
        assert path.read_bytes() == FOREIGN
        assert run(f"{words} {output} --force") is None
        assert contents(folder) == made


def test_kept_predictions_and_other_schemas_are_not_replaced(folder: Path) -> None:
    (folder / "m.xdet.json").unlink()
    assert run(f"{EVAL} --resume lines --json evaluation.json") is None
    for name in ("lines", "evaluation.json"):
        assert "exists already" in told(run(f"inspect m.onnx --json {name}"))


@pytest.mark.usefixtures("folder")
def test_a_list_of_coco_results_could_be_anybodys() -> None:
    words = "detect m.onnx photos --format coco --json out.json"
    assert run(words) is None
    assert "exists already" in told(run(words))
    assert run(f"{words} --force") is None


@pytest.mark.parametrize("images", ["photos", "photos/1.png"])
def test_pictures_never_land_among_the_photographs(folder: Path, images: str) -> None:
    before = contents(folder)
    for place in ("photos", "photos/../photos/"):
        assert "holds the photograph" in told(run(f"detect m.onnx {images} --force --save {place}"))
    assert contents(folder) == before


@pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: links need a privilege on Windows"
)
def test_pictures_do_not_reach_the_photographs_by_links(folder: Path) -> None:
    (folder / "marked").symlink_to("photos")
    assert "holds the photograph" in told(run("detect m.onnx photos --save marked"))
    (folder / "linked").mkdir()
    (folder / "linked" / "1.png").symlink_to(folder / "photos" / "1.png")
    assert "holds the photograph" in told(run("detect m.onnx linked --save photos"))
    (folder / "saved").mkdir()
    (folder / "saved" / "1.png").symlink_to(folder / "photos" / "1.png")
    assert "is a file that this command reads" in told(run("detect m.onnx photos --force --save saved"))


def test_a_cards_pictures_are_not_put_among_the_photographs(folder: Path) -> None:
    (folder / "photos").rename("c-pictures")
    words = "card s.tflite m.onnx --images c-pictures --annotations a.json --force -o c.md"
    assert "is a file that this command reads" in told(run(words))
    for photograph in Path("c-pictures").glob("*.png"):
        photograph.rename(photograph.with_suffix(".tif"))  # whose pictures get other names
    assert "holds the photograph" in told(run(f"{words} --samples c-pictures"))


def test_the_demo_replaces_its_own_files_alone(folder: Path) -> None:
    data = Path(xdet.__file__).parent / "data"
    assert "holds the photograph" in told(run(f"demo --force -o {data}"))
    for name in ("tiny_yolo_v2_person_224_int8.onnx", "camera.png", "detections.json"):
        (folder / "demo").mkdir()
        (folder / "demo" / name).write_bytes(FOREIGN)
        assert f"{name}' exists already" in told(run("demo -o demo"))
        assert [path.read_bytes() for path in (folder / "demo").iterdir()] == [FOREIGN]
        shutil.rmtree(folder / "demo")


@pytest.mark.usefixtures("folder")
def test_one_file_is_not_two_outputs() -> None:
    for words in (f"{EVAL} --plot x --json ./x", f"{EVAL} --resume x --json x --force", f"{CHECK} --report x --json x"):
        assert "is named for two outputs" in told(run(words))


def test_devices_are_written_to(folder: Path) -> None:
    (folder / "m.xdet.json").unlink()
    assert run(f"inspect m.onnx --json {os.devnull}") is None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("mark", [PICTURE_MARK, MODEL_MARK, PAGE_MARK])
def test_marks_fit_nothing_else(mark: re.Pattern[bytes], sample_pictures: list[Path]) -> None:
    pictures = [path.read_bytes() for path in (*sample_pictures, Path("photos/1.png"))]
    assert not any(mark.match(data) for data in (FOREIGN, b"", b"<!DOCTYPE html>", *pictures))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg"])
def test_a_picture_has_its_mark(name: str, tmp_path: Path) -> None:
    save_picture(tmp_path / name, np.zeros((9, 9, 3), np.uint8))
    assert PICTURE_MARK.match((tmp_path / name).read_bytes())


def test_a_page_has_its_mark() -> None:
    assert PAGE_MARK.match(f"{PAGE_START}<title>".encode())
