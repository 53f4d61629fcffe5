"""The command line as people call it: exit codes, streams, its own words, and nothing half-written."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

import xdet
from converters.errors import OptionError
from tests.converters.sources.tflite.builder import build_small_model
from tests.converters.sources.tflite.networks import tiny_yolo_v2_relu
from tests.slow import mostly_slow
from tests.xdet.command import ROOT, assert_one_line
from tests.xdet.command import run_xdet as run
from xdet.cli.app import COMMANDS, build_app
from xdet.cli.console import with_options
from xdet.cli.options import as_command

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(scope="module")
def model(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "person ü.onnx"
    result = run("convert", embedded_tflite, "-o", output)
    assert result.returncode == 0, result.stderr
    assert "11.1 MB" in result.stdout
    written, others, faster = result.stdout.splitlines()
    assert written.endswith("ONNX Runtime 1.15 or newer")
    assert others.endswith(": iree 3.13, opencv 5.0, openvino 2023.1, tract 0.23.8, tvm 0.26")
    assert faster.endswith(f"measure it here: xdet bench {embedded_tflite} --targets portable,cpu")
    return output


def test_the_fastest_choice_advises_no_faster_one(embedded_tflite: Path, tmp_path: Path) -> None:
    result = run("convert", embedded_tflite, "-o", tmp_path / "fast.onnx", "--target", "cpu")
    assert result.returncode == 0, result.stderr
    assert "--targets" not in result.stdout


def test_version() -> None:
    command = [sys.executable, "-m", "xdet", "--version"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == f"xdet {xdet.__version__}\n"


@pytest.mark.parametrize(("said", "threads"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")])
def test_numpy_s_products_take_one_thread_unless_told(said: dict[str, str], threads: str) -> None:
    program = "import os, sys, xdet.__main__; print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
    rest = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=ROOT, env=rest | said, capture_output=True, text=True, check=True)
    assert printed.stdout == f"False {threads}\n"


def test_the_help_of_the_program_cuts_no_sentence() -> None:
    command = [sys.executable, "-m", "xdet", "--help"]
    environment = {**os.environ, "COLUMNS": "80"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    commands = told.split("Commands:\n")[1].splitlines()
    assert len(commands) >= 10
    assert [line for line in commands if not line.endswith((".", "?")) or line.endswith("...")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux: only it has a device that is always full")
@pytest.mark.parametrize(
    "arguments", [["providers"], ["inspect", "MODEL"], ["inspect", "MODEL", "--json", "-"]], ids=" ".join
)
def test_a_full_disk_behind_the_standard_output_is_one_line(embedded_tflite: Path, arguments: list[str]) -> None:
    words = [str(embedded_tflite) if word == "MODEL" else word for word in arguments]
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "xdet", *words]
        result = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (
        3,
        "xdet: error: cannot write to the standard output: No space left on device\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: Windows has no such names")
@pytest.mark.parametrize("command", ["inspect", "convert", "detect", "selftest"])
def test_a_file_name_gives_no_commands_to_the_terminal_and_no_lines(tmp_path: Path, command: str) -> None:
    path = tmp_path / "a\x1b[2J\nxdet: error: forged\u202e.tflite"
    path.write_bytes(b"\x18\x00\x00\x00TFL3")
    result = run(command, path, *(["photo.jpg"] if command == "detect" else []))
    assert result.returncode == 3
    assert result.stderr.startswith("xdet: error: ")
    assert result.stderr.count("\n") == 1
    assert not set(result.stderr) & {"\x1b", "\u202e"}
    assert r"a\x1b[2J\nxdet: error: forged\u202e.tflite" in result.stderr


def test_names_in_a_model_give_no_commands_to_the_terminal(tmp_path: Path) -> None:
    builder, output = build_small_model()
    builder.subgraph.tensors[0].name = "a\x1b]0;title\x07\nOperators  none"
    builder.model.description = "b\x9b2J\u2028"
    (tmp_path / "m.tflite").write_bytes(builder.build([output]))
    result = run("inspect", tmp_path / "m.tflite")
    assert result.returncode == 0, result.stderr
    assert not set(result.stdout) & {"\x1b", "\x07", "\x9b", "\u2028"}
    assert [line.split()[0] for line in result.stdout.splitlines()].count("Operators") == 1
    assert r"a\x1b]0;title\x07\nOperators  none" in result.stdout


def test_an_error_of_many_lines_is_a_list_below_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(tiny_yolo_v2_relu(32, widest=16))
    result = run("convert", tmp_path / "m.tflite", "-o", tmp_path / "m.onnx", "--anchors", "0.5,0.5 0.2,0.3")
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith("xdet: error: ")
    assert result.stderr.splitlines()[-1] == "  --anchor-unit image"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_80_columns_show(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"xdet {command}" in result.stdout.split("Examples:")[1]
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []
    assert re.findall(r"\w-$", result.stdout, re.MULTILINE) == []  # a word that ends on the next line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_what_is_said_of_every_argument_and_option(command: str) -> None:
    parameters = typer.main.get_command(build_app([command, "demo"])).commands[command].params  # type: ignore[attr-defined]  # a group
    shown = " ".join(run(command, "--help").stdout.split())
    assert [each.name for each in parameters if not each.help or each.help not in shown] == []


def test_a_command_is_a_function_its_docstring_and_its_groups() -> None:
    taken: list[object] = []

    @dataclass(frozen=True)
    class Group:
        """Two options.

        Options:
            often N: How often.
            loud: With a noise
                that carries.
        """

        often: int = 1
        loud: bool = False

    def ring(bell: str, *, group: Group) -> None:
        """Ring a bell.

        Options:
            bell: Its name.
        """
        taken.append((bell, group))

    ring.__annotations__["group"] = Group
    toy = typer.Typer(add_completion=False)
    toy.command()(as_command(ring))
    command = typer.main.get_command(toy)
    command(["big", "--loud", "--often", "3"], standalone_mode=False)
    assert taken == [("big", Group(3, loud=True))]
    assert {each.name: getattr(each, "help", "") for each in command.params} == {
        "bell": "Its name.",
        "often": "How often.",
        "loud": "With a noise that carries.",
    }
    assert command.help == "Ring a bell."


def test_detect_finds_the_astronaut_with_the_embedded_model(sample_pictures: list[Path]) -> None:
    astronaut = next(path for path in sample_pictures if path.stem == "astronaut")
    result = run("detect", astronaut, "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["schema"] == "xdet.detections"
    best = report["images"][0]["detections"][0]
    assert best["class_name"] == "person"
    assert best["score"] > 0.8


def test_detect_with_a_model_and_a_folder_saves_pictures_and_json(
    model: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    result = run("detect", model, sample_pictures[0].parent, "--save", tmp_path / "out", "--json", tmp_path / "d.json")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    names = sorted(image["image"] for image in report["images"])
    assert len(list((tmp_path / "out").iterdir())) == len(names) == len(sample_pictures)
    assert str(tmp_path) not in (tmp_path / "d.json").read_text(encoding="utf-8")


def test_the_source_on_litert_and_the_converted_model_find_the_same_boxes(
    embedded_tflite: Path, model: Path, sample_pictures: list[Path]
) -> None:
    rows = [
        [
            (image["image"], found["anchor"], *found["box_xyxy_px"], found["score"])
            for image in json.loads(
                run("detect", path, *sample_pictures, "--json", "-", "--score-threshold", "0.05").stdout
            )["images"]
            for found in image["detections"]
        ]
        for path in (embedded_tflite, model)
    ]
    assert len(rows[0]) > 5
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    for source, converted in zip(*rows, strict=True):  # boxes are printed to 0.01 px; exp is rounded per runtime
        assert converted[2:6] == pytest.approx(source[2:6], abs=0.011)
        assert converted[6] == pytest.approx(source[6], rel=1e-6)


def test_coco_results_are_a_list(model: Path, sample_pictures: list[Path]) -> None:
    result = run("detect", model, sample_pictures[0], "--json", "-", "--format", "coco")
    assert {"image_id", "category_id", "bbox", "score"} == set(json.loads(result.stdout)[0])


def test_a_failing_image_is_listed_and_the_others_are_done(
    model: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(sample_pictures[0].read_bytes()[:2000])
    result = run("detect", model, broken, sample_pictures[0], "--json", tmp_path / "d.json")
    assert result.returncode == 3
    report = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    assert [image["image"] for image in report["images"]] == [sample_pictures[0].name]
    assert [failed["image"] for failed in report["failed"]] == ["broken.jpg"]
    assert "broken.jpg" in result.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("predict photo.jpg", "no command 'predict'; did you mean xdet detect?"),
        ("--debug export m.tflite", "no command 'export'; did you mean xdet convert?"),
        ("val m.onnx", "no command 'val'; did you mean xdet eval?"),
        ("detect photo.jpg --conf 0.3", "no option '--conf'; did you mean --score-threshold?"),
        ("detect photo.jpg --iou=0.3", "no option '--iou'; did you mean --iou-threshold?"),
    ],
)
def test_words_of_other_programs_get_a_did_you_mean(words: str, meant: str) -> None:
    result = run(*words.split())
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"xdet: error: there is {meant}"


def bad_calls(model: str, image: str, folder: Path) -> dict[str, tuple[Sequence[str | Path], int, str]]:
    return {
        "a folder without images": (["detect", model, folder / "empty"], 3, "empty"),
        "a missing folder": (["detect", model, folder / "nowhere"], 3, "nowhere"),
        "a missing model": (["detect", folder / "no.onnx", image], 3, "no.onnx"),
        "a model alone": (["detect", model], 2, "name images"),
        "an unknown provider": (["detect", model, image, "--provider", "warp"], 3, "cpu"),
        "a threshold out of range": (["detect", model, image, "--score-threshold", "1.5"], 2, "1.5"),
        "no threads": (["detect", model, image, "--threads", "0"], 2, "threads"),
        "too many threads": (["detect", model, image, "--threads", "100000"], 2, "four per processor"),
        "no workers": (["detect", model, image, "--workers", "0"], 2, "--workers must lie in 1..64, got 0"),
        "an ONNX file that is not ours": (["detect", folder / "foreign.onnx", image], 3, "export the network alone"),
        "a source that is a picture": (["convert", image], 3, "TFLite"),
        "a missing source": (["convert", folder / "no.tflite"], 3, "no.tflite"),
        "a bad anchor list": (["convert", model, "--anchors", "1,2,3", "--anchor-unit", "cell"], 2, "--anchors"),
        "inspecting a picture": (["inspect", image], 3, "TFLite"),
    }


@pytest.mark.parametrize("what", list(bad_calls("", "", Path())))
def test_a_bad_call_is_one_clear_line(what: str, model: Path, sample_pictures: list[Path], tmp_path: Path) -> None:
    import onnx

    (tmp_path / "empty").mkdir()
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "foreign", [x], [y])
    onnx.save(onnx.helper.make_model(graph, ir_version=9), tmp_path / "foreign.onnx")
    arguments, code, word = bad_calls(str(model), str(sample_pictures[0]), tmp_path)[what]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert_one_line(run(*arguments, folder=tmp_path), code, word)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("--debug", "convert", tmp_path / "no.tflite")
    assert result.returncode == 3
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("xdet: error: ")


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_a_defect_of_ours_is_one_line_that_asks_for_a_report(*, debug: bool) -> None:
    program = """
import sys
import xdet.runtimes.ort_session
from xdet.__main__ import main
def broken(): return 1 / 0
xdet.runtimes.ort_session.available_providers = broken
sys.argv[0] = "xdet"
main()
"""
    command = [sys.executable, "-c", program, "providers", *(["--debug"] if debug else [])]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *before, last = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (3, "")
    assert last == (
        "xdet: internal error: ZeroDivisionError: division by zero; "
        "please report it, with the command and what --debug shows"
    )
    assert before[:1] == (["Traceback (most recent call last):"] if debug else [])


@pytest.mark.parametrize("encoding", mostly_slow(["cp1252", "utf-8", "ascii"], fast=1))
def test_json_on_stdout_is_the_files_bytes_whatever_the_terminal_speaks(
    encoding: str, model: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    picture = tmp_path / "Łódź ü.jpg"
    picture.write_bytes(sample_pictures[0].read_bytes())
    arguments = [sys.executable, "-m", "xdet", "detect", str(model), str(picture), "--json"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"}
    printed = subprocess.run([*arguments, "-"], env=environment, capture_output=True, check=True).stdout
    subprocess.run([*arguments, str(tmp_path / "d.json")], env=environment, capture_output=True, check=True)
    assert printed == (tmp_path / "d.json").read_bytes()
    assert "Łódź ü.jpg".encode() in printed
    assert b"\r" not in printed


def test_what_cannot_be_written_is_told_before_anything_runs(sample_pictures: list[Path], tmp_path: Path) -> None:
    for name in ("1.jpg", "01.png"):
        (tmp_path / name).write_bytes(sample_pictures[0].read_bytes())
    gone = tmp_path / "gone.onnx"  # opening the model would be the first thing to fail
    out = tmp_path / "nowhere" / "d.json"
    pictures = [tmp_path / "1.jpg", tmp_path / "01.png"]
    assert_one_line(run("detect", gone, *pictures, "--json", out), 3, "nowhere", "does not exist")
    assert_one_line(run("detect", gone, *pictures, "--json", tmp_path), 3, "it is a folder")
    coco: list[str | Path] = ["--json", tmp_path / "d.json", "--format", "coco", "--save", tmp_path / "marked"]
    assert_one_line(run("detect", gone, *pictures, *coco), 3, "share the COCO image id 1")
    assert_one_line(run("inspect", gone, "--json", out), 3, "nowhere", "does not exist")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01.png", "1.jpg"]


def test_verbose_tells_what_passes_did_and_why_they_declined(embedded_tflite: Path, tmp_path: Path) -> None:
    result = run("--verbose", "convert", embedded_tflite, "-o", tmp_path / "m.onnx")
    assert "pool before activation: tiny_yolo_v2/pool1/MaxPool" in result.stderr


def test_inspect_speaks_json_too(model: Path) -> None:
    document = json.loads(run("inspect", model, "--json", "-").stdout)
    assert document["schema"] == "xdet.inspection"
    assert document["spec"]["class_names"] == ["person"]


@pytest.mark.parametrize(
    ("words", "offered"), [("xdet des", ["describe"]), ("xdet detect --score", ["--score-threshold"])]
)
def test_a_shell_is_offered_what_completes_a_word(words: str, offered: list[str]) -> None:
    program = "import sys; sys.argv[0] = 'xdet'; from xdet.__main__ import main; main()"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_XDET_COMPLETE": "complete_bash"}
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line for line in told.split() if line in offered] == offered


ALLOWED = ("pip install", "Chromium", "xdet convert", "xdet eval", "xdet detect")  # commands, told in full
SOURCES = [path for package in ("xdet",) for path in sorted((ROOT / package).rglob("*.py")) if "cli" not in path.parts]


def test_parameters_of_commands_become_options_and_other_words_stay() -> None:
    assert with_options("give `force`, or `anchor_unit` cell") == "give --force, or --anchor-unit cell"
    assert with_options("a file `strange` and ``x`") == "a file `strange` and ``x`"


def test_an_error_of_the_library_names_the_parameter(embedded_tflite: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")
    with pytest.raises(OptionError, match="give `force` to replace it"):
        xdet.convert(embedded_tflite, tmp_path / "m.onnx")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_error_of_the_library_speaks_of_an_option(path: Path) -> None:
    lines = path.read_text("utf-8").split("\n")
    raised = {
        line
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.Raise) and node.end_lineno is not None
        for line in lines[node.lineno - 1 : node.end_lineno]
    }
    assert [
        line for line in raised if re.search(r"(?<![\w`-])--[a-z]", line) and not any(word in line for word in ALLOWED)
    ] == []
