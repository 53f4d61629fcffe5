"""``xdet detect`` on many photographs: results that grow, runs that go on, and what it is asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.xdet.labelled_scenes import write_model
from xdet.detection.results import ResultsFile

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "xdet", "detect"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(folder: Path, words: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words.split()],
        cwd=folder,
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def told(result: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("xdet: error: ")
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and three photographs, one of them in a subfolder."""
    write_model(tmp_path / "m.onnx")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("1.png", "2.png", "sub/3.png"):
        Image.new("RGB", (200, 100), (255, 0, 0)).save(tmp_path / "photos" / name)
    return tmp_path


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_results_are_gone_on_with_or_begun_anew_as_asked(folder: Path, name: str) -> None:
    words = f"m.onnx photos/1.png photos/2.png --json {name}"
    first = run(folder, words)
    assert (first.returncode, first.stdout) == (0, f"{name}: 2 images, 0 without a result\n")
    data = (folder / name).read_bytes()
    assert f"'{name}' holds results already; add --resume to go on, or --force" in told(run(folder, words))
    again = 1 if name == "out.csv" else 2  # CSV does its last image again
    assert f"{name}: 2 images, {again} of them before" in run(folder, f"{words} --resume").stdout
    assert (folder / name).read_bytes() == data
    assert run(folder, f"{words} --force").returncode == 0
    assert (folder / name).read_bytes() == data
    other = run(folder, f"{words} --resume --score-threshold 0.7")
    assert "holds results of another thresholds" in told(other)
    (folder / name).write_bytes(b"my notes")
    assert "exists already" in told(run(folder, words))
    assert f"{'Parquet file' if name == 'out.parquet' else 'result'} of xdet detect" in told(
        run(folder, f"{words} --resume"), 3
    )
    assert (folder / name).read_bytes() == b"my notes"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--resume", "add --json FILE.jsonl"),
        ("--resume --json out.json", "add --json FILE.jsonl"),
        ("--format coco --json out.jsonl", "'out.jsonl' grows image by image"),
        ("--classes person,dog --json out.jsonl", "--classes: the model finds no 'dog'; it finds 'person'"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, options: str, words: str) -> None:
    before = sorted(folder.rglob("*"))
    assert words in told(run(folder, f"m.onnx photos {options}"))
    assert sorted(folder.rglob("*")) == before


def test_a_replaced_photograph_is_told_and_a_second_process_refused(folder: Path) -> None:
    words = "m.onnx photos --json out.jsonl"
    assert run(folder, words).returncode == 0
    Image.new("RGB", (20, 10)).save(folder / "photos" / "1.png")
    again = run(folder, f"{words} --resume")
    assert (
        again.stderr
        == "xdet: images that have changed since: 1; of their lines in 'out.jsonl' the last count\n"
    )
    *_, line = map(json.loads, (folder / "out.jsonl").read_text("utf-8").splitlines())
    assert (line["image"], line["width"]) == ("photos/1.png", 20)
    before = (folder / "out.jsonl").read_bytes()
    with ResultsFile(folder / "out.jsonl", json.loads(before.splitlines()[0])):
        for option in ("--resume", "--force"):
            assert "another process writes to 'out.jsonl'" in told(run(folder, f"{words} {option}"), 3)
    assert (folder / "out.jsonl").read_bytes() == before


def test_an_input_is_no_file_to_go_on_with(folder: Path) -> None:
    (folder / "out.jsonl").hardlink_to(folder / "photos" / "1.png")
    words = "m.onnx photos --json out.jsonl --resume --force"
    assert "is a file that this command reads" in told(run(folder, words))


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_an_interruption_keeps_what_is_done(folder: Path) -> None:
    picture = folder / "photos" / "0.png"
    Image.effect_noise((900, 900), 64).convert("RGB").save(picture)
    for number in range(150):
        (folder / "photos" / f"n{number:03}.png").hardlink_to(picture)
    words = "m.onnx photos --threads 1 --workers 2 --json"
    process = subprocess.Popen(
        [*COMMAND, *words.split(), "cut.jsonl"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    cut = folder / "cut.jsonl"
    deadline = time.monotonic() + 60
    while not cut.exists() or cut.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    done = cut.read_bytes().count(b"\n") - 1
    assert process.returncode == 130
    assert 3 <= done < 153
    assert f"xdet: interrupted; {done} images are in 'cut.jsonl', --resume goes on" in error
    assert f"153 images, {done} of them before" in run(folder, f"{words} cut.jsonl --resume").stdout
    run(folder, f"{words} whole.jsonl")
    assert cut.read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert [json.loads(line)["image"] for line in cut.read_text("utf-8").splitlines()[1:4]] == [
        "photos/0.png",
        "photos/1.png",
        "photos/2.png",
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("photos", ["1.png", "2.png"]),
        ("photos --recursive", ["1.png", "2.png", "3.png"]),
        ("photos/2.png photos -r", ["2.png", "1.png", "3.png"]),
        ("photos/*.png", ["1.png", "2.png"]),
        ("photos/**/*.png", ["1.png", "2.png", "3.png"]),
        ("photos/**", ["1.png", "2.png", "3.png"]),
        ("@list.txt", ["3.png", "1.png"]),
        ("photos/2.png -", ["2.png", "3.png", "1.png"]),
        ("photos/[[]x].png", ["[x].png"]),
        ("photos/[x].png", ["[x].png"]),
    ],
)
def test_images_by_folder_pattern_and_list(folder: Path, words: str, names: list[str]) -> None:
    listed = "photos/sub/3.png\n\n photos/1.png \n"
    (folder / "list.txt").write_text(listed, "utf-8")
    if "[" in words:
        (folder / "photos" / "1.png").rename(folder / "photos" / "[x].png")
    (folder / "photos" / ".hidden").mkdir()
    (folder / "photos" / ".hidden" / "4.png").write_bytes(b"")
    result = run(folder, f"m.onnx {words} --json -", stdin=listed)
    assert result.returncode == 0, result.stderr
    assert [image["image"] for image in json.loads(result.stdout)["images"]] == names


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "photos m.onnx",
            2,
            "'m.onnx' is a model; one model stands first, before the images: xdet detect m.onnx photo",
        ),
        (
            "m.onnx photos.zip",
            2,
            "'photos.zip' is an archive, which xdet does not read; unpack it and name its folder",
        ),
        (
            "m.onnx clip.MP4",
            2,
            "'clip.MP4' is a video, which xdet does not read; save its frames as pictures first",
        ),
        ("m.onnx https://example.org/a.jpg", 2, "is an address; xdet reads files: download it first"),
        ("m.onnx photos/*.bmp", 3, "no file fits the pattern 'photos/*.bmp'"),
        ("m.onnx @gone.txt", 3, "cannot read the list 'gone.txt': "),
        ("m.onnx -", 3, "the list on standard input names no image; write a path on each line"),
        ("m.onnx photos/empty -r", 3, "no image in the folder 'photos/empty' and its subfolders"),
    ],
)
def test_what_names_no_image_is_told_in_a_sentence(folder: Path, words: str, code: int, said: str) -> None:
    (folder / "photos" / "empty").mkdir()
    assert said in told(run(folder, words), code)


def test_a_picture_where_a_list_is_expected_is_told_in_one_line(folder: Path) -> None:
    line = told(run(folder, "m.onnx -", stdin="\x89PNG\0\0\0"), code=3)
    assert "the list on standard input is no text" in line


def test_an_error_with_details_has_a_line_for_each(folder: Path) -> None:
    (folder / "lines.py").write_text(
        "import sys, xdet.cli.app as program, xdet.cli.detect\n"
        "from xdet.errors import ModelError\n"
        "def fail(*_, **__): raise ModelError('no head fits', '  yolo_v2: why', '  yolo_v3: why\\nnot')\n"
        "program.app = fail\n"
        "sys.argv = ['xdet', 'detect']\n"
        "program.main()\n",
        "utf-8",
    )
    result = subprocess.run(
        [sys.executable, "lines.py"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3
    assert result.stderr.splitlines() == [
        "xdet: error: no head fits",
        "  yolo_v2: why",
        "  yolo_v3: why\\nnot",
    ]
