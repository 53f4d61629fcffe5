"""The documents, run: commands and programs for real, options and links looked up."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

import xdet
from tests.converters.sources.tflite.look_alikes import yolo_v8
from tests.xdet.command import run_xdet
from tests.xdet.films import write_film

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *EXAMPLES.glob("*.md"), ROOT / "xdet" / "data" / "README.md"]
)
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
RUN = (ROOT / "README.md", EXAMPLES / "README.md", *TUTORIALS)  # their commands are run, in order, in one folder
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = set("|&;<>$`*?~")  # what only a shell reads
NOT_OURS = {
    "--no-vnni",
    "--build",
    "--strict",
    "--cases",
    "--seed",
    "--look-alikes",
    "--into",
    "--video",
}  # of programs that are named


SCHEMAS = {"xdet.benchmark", "xdet.detection_lines", "xdet.selftest"}  # of JSON, and no modules


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [code for found, code in FENCE.findall(document.read_text("utf-8")) if found == language]


def commands(document: Path, program: str) -> list[list[str]]:
    """The lines of shell blocks that start with ``program``, split as a shell does."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.split(" ", 1)[0] == program]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python`` or ``xdet`` of this environment, or another program."""
    if command[0] == "xdet":
        return run_xdet(*command[1:], folder=folder)
    here = [sys.executable] if command[0] == "python" else command[:1]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*here, *command[1:]], cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", check=False
    )


def write_export(path: Path) -> None:
    """A network that ends as Ultralytics' exports do, with what they append."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.yaml", "task: detect\nstride: 32\nimgsz: [64, 64]\nnames: {0: cat, 1: dog}\n")
    path.write_bytes(yolo_v8(classes=2) + path.read_bytes())


@pytest.fixture
def folder(tmp_path: Path, embedded_tflite: Path, sample_pictures: list[Path]) -> Path:
    """A folder with the files that the documents speak of, and the example programs."""
    shutil.copy(embedded_tflite, tmp_path / "detector.tflite")
    shutil.copy(embedded_tflite.with_suffix(".xdet.json"), tmp_path / "detector.xdet.json")
    shutil.copy(sample_pictures[0], tmp_path / "photo.jpg")
    with Image.open(sample_pictures[0]) as photo:
        photo.resize((300, 700)).save(tmp_path / "tall.jpg", quality=95)  # its columns come first
    write_export(tmp_path / "yolov8n_int8.tflite")
    (tmp_path / "photos").mkdir()
    for picture in sample_pictures:
        shutil.copy(picture, tmp_path / "photos")
    write_film(tmp_path / "clip.mp4", [0, 250], codec="libx264", pixel_format="yuv420p")
    (tmp_path / "xdet").mkdir()
    shutil.copytree(sample_pictures[0].parent, tmp_path / "xdet" / "data")  # as in a clone
    for program in EXAMPLES.iterdir():
        if program.is_file():
            shutil.copy(program, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "document",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem == "measure-on-your-board" else path for path in RUN],
    ids=name_of,
)
def test_the_commands_of_this_document_run_in_order(document: Path, folder: Path) -> None:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    ran = 0
    for line in lines:
        command = shlex.split(line, comments=True)
        if not command or command[0] not in {"xdet", "python"}:
            continue  # pip lines are run by .ci/run, npm and cmake by the tests below
        result = run(command, folder)
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
        ran += 1
    assert ran >= 2


@pytest.mark.parametrize("document", sorted((ROOT / "docs" / "errors").glob("*.md")), ids=name_of)
def test_what_this_document_shows_is_what_the_commands_print(
    document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    here = folder / "bin"
    here.mkdir()
    (here / "xdet").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xdet "$@"\n', "utf-8")
    (here / "xdet").chmod(0o755)
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    shown = [line for block in blocks(document, "console") for line in block.splitlines()]
    while shown:
        command = shown.pop(0).removeprefix("$ ")
        expected = list(takewhile(lambda line: not line.startswith("$ "), shown))
        del shown[: len(expected)]
        if set(command) & SHELL or not command.startswith("xdet "):
            result = subprocess.run(
                ["/bin/sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False
            )
        else:
            result = run_xdet(*shlex.split(command)[1:], folder=folder)
        if expected:
            assert (result.stdout + result.stderr).splitlines() == expected, command
        else:
            assert result.returncode == 0, result.stderr


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason='needs pip install "xdet[docs]"')
    command = ["python", "-m", "mkdocs", "build", "--strict", "-q", "-f", ".mkdocs.yml", "-d", str(tmp_path)]
    built = run(command, ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text("utf-8")):
            if not re.match(r"[a-z]+:|/", target):
                assert (page.parent / unquote(target)).exists(), f"{page.name} links to {target}"


def test_the_readme_holds_the_two_commands_and_its_picture() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert '\npip install ".[cpu]" && xdet demo\n' in text
    assert '\npip install ".[test]" && pytest\n' in text
    assert "](docs/demo.jpg)" in text


def test_the_readme_shows_what_its_first_command_prints(folder: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^(xdet detect xdet/data/camera\.jpg)", text, re.MULTILINE)
    assert run(shlex.split(command), folder).stdout in text


def test_the_python_blocks_of_the_readme_run(folder: Path) -> None:
    programs = blocks(ROOT / "README.md", "python")
    assert programs
    for program in programs:
        result = run(["python", "-c", program], folder)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("person 0.")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_of_this_document_exists(document: Path) -> None:
    known = set(re.findall(r"^\W*([a-z]+)\s{2,}", run(["xdet", "--help"], ROOT).stdout, re.MULTILINE))
    named = set(re.findall(r"`xdet ([a-z]+)[^`]*`", document.read_text("utf-8")))
    named |= {command[1] for command in commands(document, "xdet") if not command[1].startswith("-")}
    assert named <= known


@pytest.fixture(scope="session")
def options() -> set[str]:
    """Every option of every command."""
    import typer

    from xdet.cli.app import build_app

    group: Any = typer.main.get_command(build_app())
    commands = (group, *group.commands.values())
    return {"--help", "--install-completion", "--show-completion"} | {
        name for command in commands for option in command.params for name in option.opts
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_option_that_this_document_quotes_exists(document: Path, options: set[str]) -> None:
    quoted = {found for span in re.findall(r"`([^`\n]+)`", document.read_text("utf-8")) for found in span.split()}
    named = {word.split("=")[0] for word in quoted if re.fullmatch(r"--[a-z][a-z-]+(=.*)?", word)}
    assert named - NOT_OURS <= options


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_every_name_and_file_of_the_packages_that_this_document_quotes_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    names = set(re.findall(r"`((?:xdet|converters)(?:\.[A-Za-z_]\w*)+)", text))
    for name in names - SCHEMAS:
        pkgutil.resolve_name(name)  # raises where there is none
    files = re.findall(r"`((?:xdet|converters|tests|examples)/[\w/.-]+)`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", xdet.__all__)
def test_the_help_of_a_public_record_says_what_each_field_is(name: str) -> None:
    public = getattr(xdet, name)
    records = [public] if is_dataclass(public) and isinstance(public, type) else []
    for record in records:
        text = inspect.getdoc(record) or ""
        assert [field.name for field in fields(record) if f"\n    {field.name}: " not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_links_of_this_document_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    for target in targets:
        if target.startswith("https://"):
            continue
        path = document.parent / target.split("#")[0]
        assert path.exists(), f"{name_of(document)} links to {target}"


def expected_lines(model: Path, picture: Path) -> list[list[str]]:
    """What xdet itself finds: class name, class index, score, corners, as the examples print them."""
    return [
        [found.class_name, str(found.class_id), f"{found.score:.3f}", *(f"{v:.1f}" for v in found.box_xyxy_px)]
        for found in xdet.Detector(model)(picture)
    ]


def write_sidecar(folder: Path, **changes: str) -> None:
    """The detector's sidecar with some keys changed."""
    path = folder / "detector.xdet.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def convert(folder: Path, *, freeze_thresholds: bool = False, any_size: bool = False) -> Path:
    model = folder / ("frozen.onnx" if freeze_thresholds else "detector.onnx")
    xdet.convert(folder / "detector.tflite", model, freeze_thresholds=freeze_thresholds, any_size=any_size)
    return model


def convert_for(folder: Path, rule: str, color: str, photo: str, *, any_size: bool) -> tuple[Path, list[str]]:
    """A model that wants pictures in this way, or holds it, and what the Python program prints for a photograph."""
    write_sidecar(folder, resize=rule, color=color)
    (folder / "detector.onnx").unlink(missing_ok=True)
    model = convert(folder, any_size=any_size)
    result = run(["python", "run_without_xdet.py", model.name, photo], folder)
    lines = result.stdout.splitlines()
    assert lines, result.stderr
    return model, lines


def assert_same_boxes(printed: str, expected: list[list[str]], *, label: int) -> None:
    """Compare what a program printed; ``label`` 0 is the class by name, 1 by index.

    A tenth of a pixel is the printed resolution: the last digit may round either way.
    """
    found = [line.split() for line in printed.splitlines()]
    assert [row[:2] for row in found] == [[row[label], row[2]] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert [float(v) for v in row[2:]] == pytest.approx([float(v) for v in wanted[3:]], abs=0.11)


def test_quickstart_prints_what_xdet_finds(folder: Path) -> None:
    result = run(["python", "quickstart.py", "detector.tflite", "photo.jpg"], folder)
    assert result.returncode == 0, result.stderr
    assert_same_boxes(result.stdout, expected_lines(convert(folder), folder / "photo.jpg"), label=0)


@pytest.mark.parametrize("frozen", [False, True], ids=["optional thresholds", "frozen thresholds"])
@pytest.mark.parametrize("extra", [[], ["--no-vnni"]], ids=["fast kernels", "exact kernels"])
def test_plain_python_finds_what_xdet_finds(folder: Path, extra: list[str], frozen: bool) -> None:  # noqa: FBT001 - a parameter
    model = convert(folder, freeze_thresholds=frozen)
    result = run(["python", "run_without_xdet.py", model.name, "photo.jpg", *extra], folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert_same_boxes(result.stdout, expected_lines(model, folder / "photo.jpg"), label=0)


def test_the_measurements_are_printed_with_every_convolution_in_integers(folder: Path) -> None:
    result = run(["python", "measure.py", "detector.tflite", "--repeats", "1"], folder)
    assert result.returncode == 0, result.stderr
    machine, source, *lines = result.stdout.splitlines()
    assert "onnxruntime " in machine
    assert source == "detector.tflite, 11.1 MB"
    assert [line.split(":")[0].strip() for line in lines] == [
        "conversion, interpreter start excluded",
        "start to first box with the finished model",
        "multiply-accumulates in integer kernels",
        "network, 1 thread",
    ]
    assert lines[2].endswith(": 100.00% of 774 million")


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        *(({"resize": "nearest"}, size) for size in [(512, 512), (300, 451), (1920, 1080)]),
        *((rule, (451, 300)) for rule in ({"resize": "bilinear"}, {"resize": "letterbox"}, {"color": "bgr"})),
    ],
    ids=str,
)
def test_plain_python_makes_pictures_as_xdet_does(folder: Path, rule: dict[str, str], size: tuple[int, int]) -> None:
    write_sidecar(folder, **rule)
    with Image.open(folder / "photo.jpg") as photo:
        photo.resize(size).save(folder / "photo.png")
    model = convert(folder)
    result = run(["python", "run_without_xdet.py", model.name, "photo.png"], folder)
    assert result.returncode == 0, result.stderr
    expected = expected_lines(model, folder / "photo.png")
    assert expected
    assert_same_boxes(result.stdout, expected, label=0)


@pytest.mark.emulator
def test_without_vnni_the_plain_program_differs_until_it_asks_for_the_exact_kernels(
    folder: Path, qemu_x86_64: str
) -> None:
    model, expected = convert(folder), expected_lines(folder / "detector.onnx", folder / "photo.jpg")
    program = [sys.executable, "run_without_xdet.py", model.name, "photo.jpg"]
    fast = run([qemu_x86_64, "-cpu", "Haswell", *program], folder)
    exact = run([qemu_x86_64, "-cpu", "Haswell", *program, "--no-vnni"], folder)
    assert (fast.returncode, exact.returncode) == (0, 0), fast.stderr + exact.stderr
    assert_same_boxes(exact.stdout, expected, label=0)
    assert fast.stdout != exact.stdout


PICTURES = [
    ("bilinear-antialias", "rgb", "tall.jpg", False),
    ("bilinear-antialias", "rgb", "photo.jpg", False),
    ("nearest", "bgr", "photo.jpg", False),
    ("bilinear", "rgb", "photo.jpg", False),
    ("letterbox", "bgr", "photo.jpg", False),
    ("letterbox", "bgr", "photo.jpg", True),
]


@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_javascript_prints_what_python_prints_for_a_jpeg(folder: Path, package: str) -> None:
    modules = Path(os.environ.get("XDET_NODE_MODULES", EXAMPLES / "node_modules"))
    missing = [name for name in (package, "@cwasm/jpeg-turbo") if not (modules / name).is_dir()]
    if shutil.which("node") is None or missing:
        pytest.skip(
            f"needs node and npm install {package} @cwasm/jpeg-turbo, then XDET_NODE_MODULES to name its node_modules"
        )
    (folder / "examples").mkdir()
    shutil.copy(EXAMPLES / "run_without_xdet.mjs", folder / "examples")
    (folder / "examples" / "node_modules").symlink_to(modules, target_is_directory=True)
    shutil.copytree(ROOT / "xdet" / "page" / "static", folder / "xdet" / "page" / "static")
    program = ["node", "examples/run_without_xdet.mjs"]
    for rule, color, photo, any_size in PICTURES:
        model, expected = convert_for(folder, rule, color, photo, any_size=any_size)
        result = run([*program, model.name, photo, package], folder)
        assert (result.stdout.splitlines(), result.stderr) == (expected, ""), rule
    result = run([*program, "detector.onnx", "detector.tflite", package], folder)
    assert result.returncode == 3
    assert result.stderr.startswith("detector.tflite: not a readable JPEG file: ")


def test_cpp_prints_what_python_prints_for_a_jpeg(folder: Path) -> None:
    release = os.environ.get("XDET_ORT_ROOT", "")
    include = Path("/usr/include")
    found = {
        "cmake and a C++ compiler": shutil.which("cmake") is not None,
        "libonnxruntime-dev or XDET_ORT_ROOT": bool(release) or (include / "onnxruntime").is_dir(),
        "libturbojpeg0-dev": (include / "turbojpeg.h").is_file(),
        "nlohmann-json3-dev": (include / "nlohmann").is_dir(),
    }
    if not all(found.values()):
        pytest.skip(f"needs {', '.join(name for name, here in found.items() if not here)}")
    for step in (["cmake", "-S", ".", "-B", "build", f"-DORT={release}"], ["cmake", "--build", "build"]):
        built = run(step, folder)
        assert built.returncode == 0, built.stdout + built.stderr
    for rule, color, photo, any_size in PICTURES:
        model, expected = convert_for(folder, rule, color, photo, any_size=any_size)
        result = run(["build/run_without_xdet", model.name, photo], folder)
        assert (result.stdout.splitlines(), result.stderr) == (expected, ""), rule
    result = run(["build/run_without_xdet", "detector.onnx", "detector.tflite"], folder)
    assert result.returncode == 3
    assert result.stderr.startswith("detector.tflite: not a readable JPEG file: ")
