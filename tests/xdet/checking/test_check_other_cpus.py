"""The example program that repeats self-test and check on emulated processors, and puts them into the check's page."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "examples" / "check_other_cpus.py"
RUNTIMES = "onnxruntime:cpu,litert:xnnpack"  # under emulation each of the others takes ten seconds
CHILD = "import subprocess, sys; sys.executable = sys.argv[1]; subprocess.run([sys.executable, '-c', sys.argv[2]])"
VALUES = 7 * 7 * 30
posix = pytest.mark.skipif(os.name == "nt", reason="the emulator, and scripts as programs, are Linux's")


@pytest.fixture(scope="module")
def program() -> Any:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("check_other_cpus", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other-cpus") / "person.onnx"
    path.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions()).model)
    return path


def run(*arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The program, with another search path if one is named."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"] if path is None else path}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def faked(program: Any, tmp_path: Path) -> Callable[[str], Any]:
    """A processor on which Python is a shell script."""

    def fake(script: str) -> Any:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o700)
        return program.Processor("Fake", str(path), dict(os.environ))

    return fake


@posix
@pytest.mark.parametrize(
    ("script", "entry"),
    [
        ("kill -SEGV $$", {"error": "ended by signal SIGSEGV: it said nothing"}),
        ("echo 'uncaught target signal 4' >&2; kill -ILL $$", {"error": "ended by signal SIGILL: uncaught target signal 4"}),
        ("echo 'xdet: error: no such file' >&2; exit 3", {"error": "xdet: error: no such file"}),
        ("echo '{\"passed\": true}'; exit 3", {"result": {"passed": True}}),
    ],
    ids=["segmentation fault", "illegal instruction", "an error", "an incomplete result"],
)  # fmt: skip
def test_a_program_that_ends_badly_is_told_and_an_incomplete_result_is_kept(
    program: Any, faked: Callable[[str], Any], script: str, entry: dict[str, Any]
) -> None:
    assert program.run_xdet(faked(script), ["check"]) == entry


@posix
def test_a_program_that_never_ends_is_stopped(
    program: Any, faked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "LONGEST_S", 0.2)
    assert program.run_xdet(faked("exec sleep 60"), ["check"]) == {"error": "no end after 0.2 s"}


def test_signals_have_names_or_numbers(program: Any) -> None:
    done = subprocess.CompletedProcess([], -signal.SIGABRT, "", "qemu: uncaught\n")
    assert program.last_line(done) == "ended by signal SIGABRT: qemu: uncaught"
    assert (
        program.last_line(subprocess.CompletedProcess([], -99, "", ""))
        == "ended by signal 99: it said nothing"
    )


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (None, 0),
        ({"error": "x"}, 3),
        ({"result": {"schema": "xdet.selftest", "verdict": "bounded"}}, 0),
        ({"result": {"schema": "xdet.selftest", "verdict": "broken"}}, 1),
        ({"result": {"schema": "xdet.check", "passed": True, "complete": True}}, 0),
        ({"result": {"schema": "xdet.check", "passed": True, "complete": False}}, 3),
        ({"result": {"schema": "xdet.check", "passed": False, "complete": False}}, 1),
    ],
    ids=["nothing to do", "error", "bounded", "broken", "passed", "incomplete", "failed"],
)
def test_a_verdict_has_its_exit_code(program: Any, entry: dict[str, Any] | None, code: int) -> None:
    assert program.exit_code(entry) == code


def test_without_an_emulator_the_program_says_how_to_get_it(model: Path, tmp_path: Path) -> None:
    done = run(model, path=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "qemu-x86_64 is not installed (Debian: apt-get install qemu-user)\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "person.tflite"], "--source and --images go together"),
        (["--report", "page.html"], "--report needs --source and --images"),
        (["--photographs", "0"], "--photographs must be at least 1"),
    ],
    ids=["images", "source", "photographs"],
)
def test_what_does_not_go_together_is_refused(model: Path, options: list[str], message: str) -> None:
    done = run(model, *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"error: {message}")


def test_a_model_without_a_golden_vector_is_checked_alone_or_refused(
    program: Any, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = SimpleNamespace(golden=None)
    monkeypatch.setattr(program.xdet, "inspect", lambda _: SimpleNamespace(document=document))
    options = Namespace(
        model="float.onnx", source="float.h5", images=sample_pictures[0].parent, photographs=1, runtimes="a,b"
    )
    assert program.commands(options) == {
        "selftest": None,
        "check": [
            *("check", "float.onnx", "--source", "float.h5", "--runtimes", "a,b"),
            *("--images", str(sample_pictures[0])),
        ],
    }
    options.source = None
    with pytest.raises(program.UnusableError, match="holds no golden vector; name --source and --images"):
        program.commands(options)


@pytest.mark.emulator
def test_an_unknown_processor_is_refused_before_anything_runs(model: Path) -> None:
    done = run(model, "--cpus", "Haswell", "Hazwell")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: no Python on Hazwell: qemu-x86_64: unable to find CPU model 'Hazwell'; "
        "'qemu-x86_64 -cpu help' lists the processors\n"
    )


@pytest.mark.emulator
def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    page = tmp_path / "nowhere" / "page.html"
    done = run(model, "--source", embedded_tflite, "--images", sample_pictures[0], "--report", page)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr


@pytest.mark.emulator
def test_children_of_an_emulated_program_are_emulated_too(program: Any, tmp_path: Path) -> None:
    processor = program.emulate("Nehalem", tmp_path)
    own, child = (
        json.loads(processor.run("-c", *arguments).stdout)
        for arguments in ([program.SIMD], [CHILD, processor.python, program.SIMD])
    )
    assert own == child
    newer = {"AVX2", "X86_V3"}  # as numpy calls it before and since 2.4
    assert newer & set(own["not found"])
    assert not newer & {*own["baseline"], *own.get("found", [])}


@pytest.mark.emulator
def test_the_page_has_a_column_per_processor_and_onnx_runtime_differs_nowhere(
    model: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    page, columns = tmp_path / "page.html", tmp_path / "columns.json"
    (tmp_path / "photographs").mkdir()
    for picture in sample_pictures:
        shutil.copy(picture, tmp_path / "photographs")
    where = ("--source", embedded_tflite, "--images", tmp_path / "photographs", "--photographs", 1)
    done = run(model, *where, "--runtimes", RUNTIMES, "--report", page, "--json", columns)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nPASSED (not compared: spread)\n")
    data = json.loads(columns.read_text("utf-8"))
    assert [column["cpu"] for column in data["columns"]] == ["this machine", "Haswell", "Nehalem"]
    for column in data["columns"]:
        found = column["check"]["result"]
        assert column["selftest"]["result"]["verdict"] == "exact"
        (exact,) = found["runs"]
        assert (exact["must_be_exact"], exact["nearest"]["differing"]) == (True, 0)
        assert exact["nearest"]["values"] == VALUES
        assert [part["status"] for part in found["parts"][:2]] == ["passed", "passed"]
    assert data["columns"][1]["selftest"]["result"]["plain"]["differing"] > VALUES // 2
    told = page.read_text("utf-8")
    assert re.findall(r"<b>passed</b> (.+?)</h3>", told)[-3:] == [
        "this machine",
        "Haswell (emulated)",
        "Nehalem (emulated)",
    ]
    cells = re.sub(r"<td[^>]*>", "<td>", told)
    one, zero, whole = (f'<td><data value="{n}">{n:,}</data></td>' for n in (1, 0, VALUES))
    row = f"<td>onnxruntime:cpu</td>{one}<td>litert:xnnpack</td>{zero}{whole}"
    assert [f"<td>{cpu}</td>{row}" in cells for cpu in ("this machine", "Haswell", "Nehalem")] == [True] * 3
