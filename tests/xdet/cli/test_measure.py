"""``xdet inspect --layers``, ``bench``, ``card`` and ``eval`` as people call them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.xdet.command import assert_one_line, run_xdet
from tests.xdet.command import run_xdet as run
from tests.xdet.labelled_scenes import Scene, two_people, write_model
from tests.xdet.test_card import annotate

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@pytest.fixture(scope="module")
def model(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "person.onnx"
    assert run("convert", embedded_tflite, "-o", output).returncode == 0
    return output


def test_inspect_lists_layers_when_asked(model: Path) -> None:
    plain, detailed = run("inspect", model), run("inspect", model, "--layers")
    assert "Integer coverage    100.0 % of the MACs run in integer kernels of ONNX Runtime (cpu)" in plain.stdout
    assert "LeakyRelu  1x16x112x112" not in plain.stdout
    assert "layer  operator" not in plain.stdout
    assert "\nlayer  operator" in detailed.stdout
    layers = json.loads(run("inspect", model, "--layers", "--json", "-").stdout)["layers"]
    assert sum(layer["macs"] for layer in layers) == 773_864_448
    assert json.loads(run("inspect", model, "--json", "-").stdout)["layers"] == []


def test_bench_measures_on_the_command_line(embedded_tflite: Path, model: Path, tmp_path: Path) -> None:
    result = run("bench", embedded_tflite, model, "--blocks", "1", "--json", tmp_path / "bench.json")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [one["runtime"] for one in document["results"]] == ["litert:xnnpack", "onnxruntime:cpu"]
    assert "measuring" not in result.stderr  # a pipe shows no progress
    assert result.stdout.count("100.0 %") == 2


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--threads", "one"], 2, "--threads must be numbers such as 1 or 1,2, got 'one'"),
        (["--threads", "0"], 2, "at least 1"),
        (["--blocks", "0"], 2, "1..1000"),
        (["--score-threshold", "2"], 2, "--score-threshold must lie in 0..1, got 2.0"),
        (["--runtimes", "litert"], 2, "add onnxruntime"),
        (["--runtimes", "warp"], 2, "there is no runtime 'warp'"),
        (["--images", "nowhere"], 3, "nowhere"),
        (["--json", "nowhere/bench.json"], 3, "nowhere"),
    ],
)
def test_a_bad_bench_is_one_clear_line(options: list[str], code: int, word: str, model: Path, tmp_path: Path) -> None:
    assert_one_line(run("bench", model, "--blocks", "1", *options, folder=tmp_path), code, word)


def test_card_writes_a_file_and_its_pictures(
    embedded_tflite: Path, model: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    for picture in sample_pictures:
        shutil.copy(picture, tmp_path)
    annotate(tmp_path)
    (tmp_path / "notes.md").write_text("Ours.\n", encoding="utf-8")
    files: list[str | Path] = ["card", embedded_tflite, model, "--images", ".", "--annotations", "boxes.json"]
    how = ["--notes", "notes.md", "--runtimes", "litert,onnxruntime", "--blocks", "1", "-o", "ours.md"]
    result = run(*files, *how, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "wrote ours.md and 2 pictures beside it\n"
    assert (tmp_path / "ours.md").read_text("utf-8").splitlines()[2] == "Ours."
    assert sorted(path.name for path in (tmp_path / "ours-pictures").iterdir()) == ["astronaut.jpg", "camera.jpg"]


@pytest.mark.parametrize(("command", "default"), [("bench", "the usual ones"), ("card", "all that work here")])
def test_the_help_says_which_runtimes_are_timed_where_none_is_named(command: str, default: str) -> None:
    shown = " ".join(run(command, "--help").stdout.split())
    assert f"each model runs on those that take it [default: {default}]" in shown


def test_notes_that_are_missing_are_one_clear_line(embedded_tflite: Path, model: Path, tmp_path: Path) -> None:
    files: list[str | Path] = [
        "card",
        embedded_tflite,
        model,
        "--images",
        tmp_path,
        "--annotations",
        tmp_path / "b.json",
    ]
    assert_one_line(run(*files, "--notes", tmp_path / "no.md", folder=tmp_path), 3, "no.md", "UTF-8")


def run_eval(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_xdet("eval", *arguments, "--max-detections", "4")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return two_people(tmp_path)


@pytest.fixture
def inputs(scene: Scene) -> list[str | Path]:
    model = write_model(scene.folder / "m.onnx")
    return [model, "--images", scene.folder, "--annotations", scene.write()]


def test_a_table_a_plot_and_json(inputs: list[str | Path], tmp_path: Path) -> None:
    result = run_eval(
        *inputs, "--plot", tmp_path / "p.png", "--json", tmp_path / "e.json", "--resume", tmp_path / "kept"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "m.onnx  onnxruntime:cpu  50.5  50.5  50.5" in result.stdout
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["schema"] == "xdet.evaluation"
    assert len((tmp_path / "kept").read_bytes().splitlines()) == 1 + 2


def test_a_plot_of_another_format_is_refused_before_the_work(inputs: list[str | Path], tmp_path: Path) -> None:
    result = run_eval(*inputs, "--plot", tmp_path / "p.txt", "--resume", tmp_path / "kept")
    assert result.returncode == 2
    assert "the curves are drawn as PNG; name a file that ends in .png" in result.stderr
    assert not list(tmp_path.glob("p.txt")) + list(tmp_path.glob("kept"))


def test_json_on_stdout_stands_alone(inputs: list[str | Path]) -> None:
    result = run_eval(*inputs, "--protocol", "zoo-3", "--json", "-")
    assert result.returncode == 0
    assert json.loads(result.stdout)["metrics"] == {"AP50": 0.5}


def test_bad_entries_are_told_on_stderr_and_by_the_exit_code(scene: Scene, inputs: list[str | Path]) -> None:
    scene.annotations[0]["bbox"] = [0, 0, "nan", 1]
    (scene.folder / "2.png").unlink()
    scene.write()
    result = run_eval(*inputs)
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "image 2: there is no file" in lines[0]
    assert "annotations[0] (id 1) has the bbox [0, 0, 'nan', 1], expected four finite numbers" in lines[1]
    assert "  1 images without a file" in result.stdout
    assert "  1 annotations of images left out" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--truncate-input"], 2, "zoo"),
        (["--workers", "99"], 2, "--workers must lie in 1..64"),
        (["--provider", "warp"], 3, "'warp' is not available"),
        (["--iou-threshold", "7"], 2, "iou threshold"),
    ],
)
def test_a_bad_call_is_one_clear_line(inputs: list[str | Path], options: list[str], code: int, words: str) -> None:
    result = run_eval(*inputs, *options)
    assert result.returncode == code
    (line,) = result.stderr.splitlines()
    assert line.startswith("xdet: error: ")
    assert words in line
    assert result.stdout == ""
