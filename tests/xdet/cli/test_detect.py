"""``xdet detect`` on many photographs: results that grow, runs that go on, and what it is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.xdet.command import ROOT, run_xdet
from tests.xdet.films import write_film
from tests.xdet.labelled_scenes import write_model
from tests.xdet.web import Site, serving
from xdet.detection.results import ResultsFile

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
INTERRUPTED = """
import signal
from xdet.__main__ import main
from xdet.detection.results import ResultsFile
add, added = ResultsFile.add, []
def add_three_and_interrupt(*arguments):
    add(*arguments)
    added.append(arguments)
    if len(added) == 3:
        signal.raise_signal(signal.SIGINT)
ResultsFile.add = add_three_and_interrupt
main()
"""


def run(folder: Path, words: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_xdet("detect", *words.split(), folder=folder, stdin=stdin)


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
        ("--format yolo --json labels --resume", "--resume goes on with one file; --format yolo writes"),
        ("--format yolo", "--format yolo writes a label file per image: name a folder for them"),
        ("--format voc --json out.xml", "name a folder for them, such as --json labels"),
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
    assert again.stderr == "xdet: images that have changed since: 1; of their lines in 'out.jsonl' the last count\n"
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


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: Windows has other signals")
def test_an_interruption_keeps_what_is_done(folder: Path) -> None:
    picture = folder / "photos" / "0.png"
    Image.effect_noise((90, 90), 64).convert("RGB").save(picture)
    for number in range(50):
        (folder / "photos" / f"n{number:03}.png").hardlink_to(picture)
    words = "m.onnx photos --threads 1 --workers 2 --json"
    interrupted = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "detect", *words.split(), "cut.jsonl"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    cut = folder / "cut.jsonl"
    done = cut.read_bytes().count(b"\n") - 1
    assert interrupted.returncode == 130
    assert 3 <= done < 53
    assert f"xdet: interrupted; {done} images are in 'cut.jsonl', --resume goes on" in interrupted.stderr
    assert f"53 images, {done} of them before" in run(folder, f"{words} cut.jsonl --resume").stdout
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
        ("m.onnx photos.zip", 2, "'photos.zip' is an archive, which xdet does not read; unpack it and name its folder"),
        ("m.onnx ftp://example.org/a.jpg", 2, "'ftp://example.org/a.jpg' is no address that xdet reads"),
        ("m.onnx http://127.0.0.1:9/a.jpg", 3, "cannot fetch 'http://127.0.0.1:9/a.jpg': Connection refused"),
        ("m.onnx", 2, "'m.onnx' is a model; name images or folders behind it"),
        ("", 2, "name images, folders or videos, such as: xdet detect photo.jpg; or give --camera 0"),
        ("m.onnx photos -r --save photos", 2, "'photos' holds the photograph"),
        ("m.onnx photos/sub/.. -r --save photos", 2, "'photos' holds the photographs; name another folder"),
        ("m.onnx photos --score-threshold person", 2, "must be a number, or CLASS=NUMBER,CLASS=NUMBER, got"),
        ("m.onnx photos --score-threshold dog=0.1", 2, "the model finds no 'dog'; it finds 'person'"),
        ("m.onnx photos --score-threshold person=7", 2, "give a number between 0 and 1"),
        ("m.onnx photos/*.bmp", 3, "no file fits the pattern 'photos/*.bmp'"),
        ("m.onnx @gone.txt", 3, "cannot read the list 'gone.txt': "),
        ("m.onnx -", 3, "the list on standard input names no image; write a path on each line"),
        ("m.onnx photos/empty -r", 3, "no image in the folder 'photos/empty' and its subfolders"),
    ],
)
def test_what_names_no_image_is_told_in_a_sentence(folder: Path, words: str, code: int, said: str) -> None:
    (folder / "photos" / "empty").mkdir()
    assert said in told(run(folder, words), code)


def test_pictures_with_boxes_are_never_inputs(folder: Path) -> None:
    words = "m.onnx photos -r --json"
    first = run(folder, f"{words} 1.json --save photos/marked")
    assert first.returncode == 0, first.stderr
    before = {path: path.read_bytes() for path in (folder / "photos").rglob("*.png")}
    assert len(before) == 6
    again = run(folder, f"{words} 2.json --save photos/marked")
    assert (again.returncode, again.stderr) == (0, "")
    other = run(folder, f"{words} 3.json")
    assert other.stderr == "note: pictures in which xdet has drawn boxes, left out: 3\n"
    assert len({(folder / f"{number}.json").read_bytes() for number in (1, 2, 3)}) == 1
    assert {path: path.read_bytes() for path in (folder / "photos").rglob("*.png")} == before
    alone = told(run(folder, "m.onnx photos/marked -r"), 3)
    assert "no image in the folder 'photos/marked' and its subfolders but 3 pictures with boxes of xdet" in alone


def test_thresholds_by_class_are_part_of_the_run(folder: Path) -> None:
    words = "m.onnx photos --json out.jsonl"
    assert run(folder, f"{words} --score-threshold person=0.75").returncode == 0
    header = json.loads((folder / "out.jsonl").read_text("utf-8").splitlines()[0])
    assert header["thresholds"]["score_by_class"] == {"person": 0.75}
    assert "holds results of another thresholds" in told(run(folder, f"{words} --resume"))


def test_an_address_is_detected_in_and_saved_under_its_name(folder: Path) -> None:
    data = (folder / "photos" / "1.png").read_bytes()
    with serving(Site(files={"/a/1.png": ("image/png", data), "/b/1.png": ("image/png", data)})) as site:
        words = f"m.onnx {site.address}/a/1.png {site.address}/b/1.png {site.address}/c.png --save out --json out.jsonl"
        result = run(folder, words)
        assert result.returncode == 3
        asked = len(site.asked)
        assert run(folder, f"{words} --resume").returncode == 3
        assert [path for path, _ in site.asked[asked:]] == ["/c.png"]  # what was done is not fetched again
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()[1:]]
    assert [line["image"] for line in lines] == [f"{site.address}/{name}.png" for name in ("a/1", "b/1", "c")]
    assert [len(line.get("detections", "x")) for line in lines] == [4, 4, 1]
    assert lines[0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert "the server answers 404" in lines[2]["error"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a_1.png", "b_1.png"]


@pytest.mark.parametrize(("layout", "suffix"), [("yolo", ".txt"), ("voc", ".xml")])
def test_a_label_file_per_image(folder: Path, layout: str, suffix: str) -> None:
    (folder / "photos" / "3.gif").write_bytes(b"no picture")
    words = f"m.onnx photos --format {layout} --json labels"
    result = run(folder, words)
    assert (result.returncode, result.stdout) == (3, "labels: 2 label files\n")
    assert "3.gif' is no readable image" in result.stderr
    assert sorted(path.name for path in (folder / "labels").iterdir()) == [f"1{suffix}", f"2{suffix}"]
    text = (folder / "labels" / f"1{suffix}").read_text("utf-8")
    assert text.startswith("0 0.250000 0.125000 0.500000 0.250000\n" if layout == "yolo" else "<annotation>")
    assert "exists already; give --force" in told(run(folder, words))
    Image.new("RGB", (20, 10)).save(folder / "photos" / "1.jpg")
    assert "share the label file '1" in told(run(folder, words), 3)


def test_a_video_is_seen_frame_by_frame(folder: Path) -> None:
    pytest.importorskip("av", reason='needs pip install "xdet[video]"')
    write_film(folder / "clip.mkv", [255, 0, 255])
    (folder / "bad.mp4").write_bytes(b"no video")
    shown = run(folder, "m.onnx clip.mkv")
    assert (shown.returncode, shown.stderr) == (0, "")
    first, *lines = shown.stdout.splitlines()
    assert first == "m.onnx on onnxruntime:cpu, boxes that score above 0.5"
    rows = [line.split() for line in lines]
    assert [row[:6] for row in rows[::4]] == [
        ["clip.mkv", number, time, "s", "person", "1.00"] for number, time in (("0", "0.000"), ("2", "0.080"))
    ]
    words = "m.onnx photos/1.png clip.mkv bad.mp4 --json out.jsonl"
    result = run(folder, f"{words} --save boxes")
    assert (result.returncode, result.stdout) == (3, "out.jsonl: 2 images and 3 frames, 1 without a result\n")
    assert sorted(path.name for path in (folder / "boxes").iterdir()) == ["1.png", "clip.mkv"]
    data = (folder / "out.jsonl").read_bytes()
    assert "--resume cannot go on with a video in 'boxes'" in told(run(folder, f"{words} --resume --save boxes"))
    assert run(folder, f"{words} --resume").returncode == 3
    assert (folder / "out.jsonl").read_bytes() == data
    assert "name a file FILE.jsonl" in told(run(folder, "m.onnx clip.mkv --json out.json"))
    assert "holds the photograph" in told(run(folder, "m.onnx clip.mkv --save ."))
    camera = told(run(folder, "m.onnx --camera 99"), 3)
    assert "cannot open 'camera 99'" in camera
    assert "'camera 99', which does not come again" in told(run(folder, "m.onnx --camera 99 --resume --json out.jsonl"))


def test_a_picture_where_a_list_is_expected_is_told_in_one_line(folder: Path) -> None:
    line = told(run(folder, "m.onnx -", stdin="\x89PNG\0\0\0"), code=3)
    assert "the list on standard input is no text" in line


def test_an_error_with_details_has_a_line_for_each(folder: Path) -> None:
    (folder / "lines.py").write_text(
        "import sys, xdet.cli.app as program, xdet.cli.detect\n"
        "from xdet.errors import ModelError\n"
        "def fail(*_, **__): raise ModelError('no head fits', '  yolo_v2: why', '  yolo_v3: why\\nnot')\n"
        "program.build_app = lambda _: fail\n"
        "sys.argv = ['xdet', 'detect']\n"
        "program.main()\n",
        "utf-8",
    )
    result = subprocess.run(
        [sys.executable, "lines.py"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3
    assert result.stderr.splitlines() == ["xdet: error: no head fits", "  yolo_v2: why", "  yolo_v3: why\\nnot"]


def test_another_runtime_gives_its_boxes_at_the_thresholds_asked_for(folder: Path) -> None:
    words = "m.onnx photos/1.png --score-threshold 0.01 --json -"
    known = json.loads(run(folder, words).stdout)
    assert known == json.loads(run(folder, f"{words} --runtime onnx-reference").stdout)
    assert known["images"][0]["detections"]
    shown = run(folder, "m.onnx photos/1.png --runtime onnx-reference").stdout
    assert shown.startswith("m.onnx on onnx-reference:numpy, boxes that score above")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--runtime onnxruntime:cpu --provider cpu", "names a provider, and --provider 'cpu' another one"),
        ("--runtime onnxruntime,openvino", "one runtime at a time, got 'onnxruntime,openvino'"),
        ("--runtime litert", "a file of format onnx, which the runtime 'litert' does not take"),
        ("--runtime onnx-reference --provider cpu", "it has numpy; choose one of these"),
        ("--runtime warp", "there is no runtime 'warp'; choose among onnxruntime, "),
        ("--runtime onnx-reference --provider-option a=b", "options and devices are those of ONNX Runtime's"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused(folder: Path, options: str, words: str) -> None:
    result = run(folder, f"m.onnx photos/1.png {options}")
    assert words in told(result, result.returncode)
    assert result.returncode in (2, 3)


def test_a_runtime_that_is_not_installed_is_told_with_the_line_to_type(folder: Path) -> None:
    environment = {**ENVIRONMENT, "XDET_NODE_MODULES": str(folder)}
    for name, line in (("tract", 'pip install "xdet[tract]"'), ("onnxruntime-node", "npm install onnxruntime-node")):
        words = ["xdet", "detect", "m.onnx", "photos/1.png", "--runtime", name]
        program = f"import sys; sys.modules['tract'] = None; sys.argv = {words}"
        done = subprocess.run(
            [sys.executable, "-c", f"{program}; from xdet.__main__ import main; main()"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert line in told(done, 3)
