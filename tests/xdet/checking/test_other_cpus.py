"""Other processors: which can be had, what runs there and how programs end, and how their columns are told."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.priors import PriorStatement
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import Rescaling, Thresholds
from tests.converters.sources.tflite.look_alikes import fastestdet
from tests.xdet.checking.reports import HOSTILE, SEGFAULT, WHERE, breaking_haswell, crashing_nehalem, put, read, section
from xdet.checking import other_cpus
from xdet.checking.check import check
from xdet.checking.other_cpus import LEFT_OUT, Processor, Request, emulate, emulator_of, plain, restored, split_cpus
from xdet.checking.page import check_to_html
from xdet.checking.report import check_text, check_to_json
from xdet.errors import RuntimeUnavailableError, UsageError
from xdet.runtimes.subprocess_runtime import Message

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from xdet.checking.result import CheckResult

    ActivationCodes = Literal["uint8", "int8"]
    Convert = Callable[[ActivationCodes], Path]


def test_without_columns_nothing_is_said_of_other_processors(checked: CheckResult, sample_pictures: list[Path]) -> None:
    assert checked.other_cpus == ()
    assert json.loads(check_to_json(checked))["other_cpus"] == []
    assert "processors" not in check_text(checked)
    page = check_to_html(checked, sample_pictures[:1], WHERE)
    assert "<h2>Other processors</h2>" not in page
    assert "golden vector" not in page


def test_the_page_shows_every_processor_with_the_numbers_of_the_json(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    result = with_columns(columns)
    page = check_to_html(result, sample_pictures[:1], WHERE)
    seen = read(section(page, "Other processors"))
    selftest = (
        "self-test exact: 0 of 1,470 head values differ; without session.x64quantprecision = 1: "
        "882 of 1,470 head values differ, by up to 11 LSB"
    )
    assert seen.text.count(selftest) == 2
    parts = "check of 1 photograph: static passed, exact passed, spread passed, head passed"
    assert seen.text.count(parts) == 2
    assert "passed Haswell (emulated)" in seen.text
    numbers = [json.loads(value) for value in seen.numbers]
    keys = ("differing", "max_steps", "mean_steps")
    found = json.loads(check_to_json(result))["other_cpus"]
    expected = [entry["check"]["changes"] for entry in found]
    for entry in found:
        for run in entry["check"]["runs"]:
            expected += [run["nearest"][key] for key in keys]
            expected += [] if run["must_be_exact"] else [entry["check"]["allowed_max"]]
    assert numbers == expected
    assert numbers[2:5] == [0, 0.0, 0.0]
    assert "which is the same on every processor" in read(section(page, "What the numbers mean")).text


def test_the_text_tells_each_processor_in_a_few_lines(
    columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    lines = check_text(with_columns(columns)).splitlines()
    start = lines.index("Other processors:")
    assert lines[start + 1] == "PASSED     Haswell (emulated)"
    assert lines[start + 2].startswith("           self-test exact: 0 of 1,470 head values differ; without ")
    assert lines[start + 4] == "           instruction sets: X86_V2"
    assert lines[start + 5] == "PASSED     Nehalem (emulated)"
    assert lines[start + 11].split() == [
        *("Haswell", "onnxruntime:cpu", "litert:xnnpack", "0", "0", "0", "exact", "follow", "(9/9)")
    ]
    assert lines[-1] == "PASSED"


def test_a_processor_that_failed_fails_the_check(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    result = with_columns(crashing_nehalem(breaking_haswell(columns)))
    assert [cpu.status for cpu in result.other_cpus] == ["failed", "incomplete"]
    assert not result.passed
    assert not result.complete
    text = check_text(result)
    assert "self-test broken: 882 of 1,470 head values differ, by up to 11 LSB" in text
    assert "exact: layer: 866 values differ" in text
    assert f"the check gave no result: {SEGFAULT}" in text
    assert text.endswith("FAILED: on Haswell (docs/check.md tells what to do)")
    document = json.loads(check_to_json(result))
    assert (document["passed"], document["complete"]) == (False, False)
    assert [cpu["status"] for cpu in document["other_cpus"]] == ["failed", "incomplete"]
    page = check_to_html(result, sample_pictures[:1], WHERE)
    assert "<p class='verdict failed'>FAILED: on Haswell" in page
    assert section(page, "Other processors").count("class='part failed'") == 1


@pytest.mark.parametrize(
    ("member", "value"),
    [
        pytest.param("1.check_problem", SEGFAULT, id="the check crashed"),
        pytest.param("1.selftest_problem", SEGFAULT, id="the self-test crashed"),
        pytest.param(
            "1.check.missing",
            [{"name": "openvino:cpu", "reason": "SIGILL", "asked": False, "crashed": True}],
            id="a runtime crashed",
        ),
    ],
)
def test_a_processor_without_a_result_leaves_the_check_incomplete(
    member: str, value: Any, columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    put(columns, member, value)
    result = with_columns(columns)
    assert [cpu.status for cpu in result.other_cpus] == ["passed", "incomplete"]
    assert result.passed
    assert not result.complete
    assert check_text(result).endswith("INCOMPLETE, nothing failed (not everything ran on Nehalem)")


def test_an_infinite_distance_of_another_processor_is_null_in_json(
    columns: list[dict[str, Any]], with_columns: Callable[[list[dict[str, Any]]], CheckResult]
) -> None:
    put(columns, "0.selftest.plain.worst_lsb", math.inf)
    result = with_columns(columns)
    selftest = result.other_cpus[0].selftest
    assert selftest is not None
    assert selftest.plain is not None
    assert math.isinf(selftest.plain.worst_lsb)
    assert json.loads(check_to_json(result))["other_cpus"][0]["selftest"]["plain"]["worst_lsb"] is None


def test_texts_of_the_columns_are_never_markup_nor_terminal_codes(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    breaking_haswell(columns)
    for member in ("cpu", "simd.0", "selftest.exact_kernels", "check.parts.1.findings.0.message"):
        put(columns, f"0.{member}", HOSTILE)
    for member in ("runs.0.name", "runs.0.nearest.second", "versions.onnxruntime"):
        put(columns, f"0.check.{member}", HOSTILE)
    put(columns, "1.selftest", None)
    put(columns, "1.selftest_problem", HOSTILE)
    result = with_columns(columns)
    page = check_to_html(result, sample_pictures[:1], WHERE)
    assert not any(tag == "script" for tag, _ in read(page).tags)
    assert "<script" not in page
    assert "\x1b" not in page + check_text(result)
    assert section(page, "Other processors").count("alert(1)") >= 8


def test_another_version_of_a_package_is_told_beside_the_one_here(
    columns: list[dict[str, Any]],
    with_columns: Callable[[list[dict[str, Any]]], CheckResult],
    sample_pictures: list[Path],
) -> None:
    put(columns, "0.check.versions.onnxruntime", "1.20.0")
    result = with_columns(columns)
    content = section(check_to_html(result, sample_pictures[:1], WHERE), "Other processors")
    assert content.count(f"onnxruntime 1.20.0 (here {result.versions['onnxruntime']})") == 1


ROOT = Path(__file__).resolve().parents[3]
RUNTIMES = "onnxruntime:cpu,litert:xnnpack"  # under emulation each of the others takes ten seconds
VALUES = 7 * 7 * 30
posix = pytest.mark.skipif(os.name == "nt", reason="needs Linux: the emulator, and scripts as programs, are its own")


def test_names_are_split_where_no_option_of_qemu_follows() -> None:
    assert split_cpus("Haswell, Nehalem") == ("Haswell", "Nehalem")
    assert split_cpus("max,sme=off,Haswell,-avx2,+aes") == ("max,sme=off", "Haswell,-avx2,+aes")
    for text in ("", "Haswell,,Nehalem", "Haswell,Haswell"):
        with pytest.raises(UsageError, match="`cpus` takes names of processors, each once"):
            split_cpus(text)


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for cpu, emulator in (("Haswell", "qemu-x86_64"), ("cortex-a72", "qemu-aarch64")):
        told = f"'{cpu}' is emulated by {emulator}, which is not installed: .*apt-get install qemu-user$"
        with pytest.raises(RuntimeUnavailableError, match=told):
            emulator_of(cpu)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.delenv("XDET_AARCH64", raising=False)
    told = r"'max,sme=off' needs an Arm Python, .*emulate_aarch64.py FOLDER -- -V, and set XDET_AARCH64=FOLDER$"
    with pytest.raises(RuntimeUnavailableError, match=told):
        emulator_of("max,sme=off")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(RuntimeUnavailableError, match="'Nehalem' needs the Python of an x86-64 machine"):
        emulator_of("Nehalem")


def test_a_request_travels_as_json_and_comes_back() -> None:
    source_options = SourceOptions(
        config=Path("zoo.yaml"),
        anchors=((1.0, 2.0),),
        anchor_unit="cell",
        class_names=("person",),
        rescaling=Rescaling(0.5, -1.0),
        priors=PriorStatement(variances=(0.1, 0.1, 0.2, 0.2)),
    )
    request = Request("m.onnx", "s.tflite", ("litert",), 2, Thresholds(0.25), source_options)
    found: Request = restored(Request, plain(request))
    assert plain(found) == plain(request)
    assert found.source_options is not None
    assert (found.source_options.config, found.source_options.anchors) == (
        source_options.config,
        source_options.anchors,
    )
    assert (found.source_options.rescaling, found.thresholds) == (source_options.rescaling, request.thresholds)


@pytest.fixture(scope="module")
def person(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Convert:
    folder = tmp_path_factory.mktemp("other-cpus")

    def convert(activations: ActivationCodes) -> Path:
        path = folder / f"{activations}.onnx"
        path.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions(activations=activations)).model)
        return path

    return convert


@posix
def test_numpy_is_emulated_without_the_code_that_the_emulator_gets_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    parts = np.show_config("dicts")["SIMD Extensions"]
    left_out = emulate("Haswell", tmp_path).environment[LEFT_OUT].split()
    assert set(left_out) >= set(parts.get("found", []))
    assert not set(left_out) & set(parts["baseline"])


def standing_in(script: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a script be the Python of every processor."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    python.chmod(0o700)
    monkeypatch.setattr(other_cpus, "emulate", lambda cpu, _: Processor(cpu, str(python), {}))
    monkeypatch.setattr(other_cpus, "emulator_of", lambda _: "qemu-x86_64")


@posix
def test_a_column_is_what_the_check_says_there(
    person: Convert, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    standing_in(f'exec {sys.executable} "$@"', monkeypatch, tmp_path)
    done: list[tuple[str, int]] = []
    result = check(
        person("uint8"),
        embedded_tflite,
        sample_pictures[:1],
        runtimes=RUNTIMES,
        cpus=("This",),
        progress=lambda name, count: done.append((name, count)),
    )
    assert done[0] == ("This", 1)
    (column,) = result.other_cpus
    assert (column.cpu, column.status, column.check_problem, column.selftest_problem) == ("This", "passed", None, None)
    assert column.simd
    assert column.selftest is not None
    assert (column.selftest.verdict, column.selftest.agreement.compared) == ("exact", VALUES)
    assert column.check is not None
    assert (column.check.parts, column.check.versions) == (result.parts, result.versions)
    assert column.check.runs[0].nearest == result.runs[0].nearest


@posix
@pytest.mark.parametrize(
    "ending",
    [
        ("kill -SEGV $$", "its process ended with signal SIGSEGV"),
        ("echo 'uncaught target signal 4' >&2; kill -ILL $$", "signal SIGILL: uncaught target signal 4"),
        ("echo 'no such file' >&2; exit 3", "exit code 3: no such file"),
    ],
    ids=["segmentation fault", "illegal instruction", "an error"],
)
def test_a_program_that_ends_badly_leaves_a_column_that_says_so(
    ending: tuple[str, str], person: Convert, embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, told = ending
    asks_simd = f'case "$*" in *find_simd) exec {sys.executable} "$@";; esac\n'
    standing_in(asks_simd + script, monkeypatch, tmp_path)
    request = Request(str(person("uint8")), str(embedded_tflite), None, None, None, None)
    (column,) = other_cpus.check_on_cpus(
        ["Bad"], request, [tmp_path / "photo.jpg"], has_golden=True, progress=lambda *_: None
    )
    assert (column.status, column.check, column.selftest) == ("incomplete", None, None)
    assert told in str(column.check_problem)
    assert told in str(column.selftest_problem)


@posix
def test_a_program_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in("exec sleep 60", monkeypatch, tmp_path)
    monkeypatch.setattr(other_cpus, "LONGEST_S", 0.5)
    there = Processor("Bad", str(tmp_path / "python"), {})
    found = other_cpus._ask(there, "find_simd", Message())
    assert found == (None, "its process ended with signal SIGKILL")


@posix
def test_a_processor_that_the_emulator_does_not_know_is_told_at_once(
    person: Convert, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in("echo \"unable to find CPU model 'Nosuch'\" >&2; exit 1", monkeypatch, tmp_path)
    with pytest.raises(UsageError, match=r"unable to find CPU model 'Nosuch'; 'qemu-x86_64 -cpu help' lists"):
        check(person("uint8"), embedded_tflite, sample_pictures[:1], cpus=("Nosuch",))


@pytest.mark.emulator
def test_the_oracle_computes_there_what_it_computes_here(tmp_path: Path, qemu_x86_64: str) -> None:
    # numpy's AVX2 code gathers what stands apart, from eight numbers on, and qemu 7.2 gathers wrongly
    program = (
        "import numpy as np; from converters.heads.arithmetic import iou_xyxy\n"
        "corners = np.random.default_rng(0).random((40, 2), np.float32)\n"
        "boxes = np.concatenate([corners, corners + 0.3], 1)\n"
        "print([iou_xyxy(boxes[:n], boxes[0]).tolist() for n in range(1, 41)])"
    )
    assert qemu_x86_64
    there = emulate("Haswell", tmp_path)
    printed = [
        subprocess.run(
            [python, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for python, environment in ((sys.executable, {}), (there.python, dict(there.environment)))
    ]
    assert printed[0] == printed[1]


@pytest.mark.emulator
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_other_cpus_are_exact_and_haswell_only_with_exact_kernels(
    activations: ActivationCodes, person: Convert, embedded_tflite: Path, sample_pictures: list[Path], qemu_x86_64: str
) -> None:
    assert qemu_x86_64
    cpus = ("Haswell", "Nehalem")
    result = check(person(activations), embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES, cpus=cpus)
    assert [column.cpu for column in result.other_cpus] == ["Haswell", "Nehalem"]
    for column in result.other_cpus:
        assert column.selftest is not None
        assert column.check is not None
        assert (column.status, column.selftest.verdict) == ("passed", "exact")
        (exact,) = column.check.runs
        assert exact.must_be_exact
        assert exact.nearest is not None
        assert (exact.nearest.differing, exact.nearest.values) == (0, VALUES)
        assert [part.status for part in column.check.parts[:2]] == ["passed", "passed"]
    haswell, nehalem = (column.selftest for column in result.other_cpus)
    assert haswell is not None
    assert nehalem is not None
    assert nehalem.plain is None
    entry = {"uint8": "session.x64quantprecision", "int8": "session.qdqisint8allowed"}[activations]
    assert haswell.exact_kernels == entry
    assert haswell.plain is not None
    assert haswell.plain.differing > VALUES // 2
    assert haswell.plain.worst_lsb > 6  # beyond what honest kernels that round in another way may differ by
    assert "X86_V4" not in (*result.other_cpus[0].simd, *result.other_cpus[1].simd)


@pytest.mark.emulator
def test_a_detector_of_another_maker_is_exact_on_every_processor(
    tmp_path: Path, sample_pictures: list[Path], qemu_x86_64: str
) -> None:
    """LOGISTIC and SOFTMAX, step by step, behind convolutions."""
    assert qemu_x86_64
    source, finished = tmp_path / "fastestdet.tflite", tmp_path / "fastestdet.onnx"
    source.write_bytes(fastestdet(3))
    finished.write_bytes(convert_to_bytes(source, ConvertOptions()).model)
    has_arm = shutil.which("qemu-aarch64") is not None and bool(os.environ.get("XDET_AARCH64"))
    cpus = ("Haswell", "Nehalem", *(["cortex-a72"] if has_arm else []))
    result = check(finished, source, sample_pictures[:1], runtimes=RUNTIMES, cpus=cpus)
    for column in result.other_cpus:
        assert column.check is not None, column.check_problem
        (run,) = column.check.runs
        assert run.must_be_exact
        assert run.nearest is not None
        assert (run.nearest.differing, run.nearest.values) == (0, 8 * 8 * 8)


@pytest.mark.emulator
@pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or shutil.which("apt-get") is None,
    reason="needs Debian or Ubuntu with qemu-aarch64: apt-get install qemu-user",
)
def test_a_cortex_is_exact(
    person: Convert, embedded_tflite: Path, sample_pictures: list[Path], arm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDET_AARCH64", str(arm))
    result = check(person("uint8"), embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES, cpus=("cortex-a72",))
    (column,) = result.other_cpus
    assert column.status == "passed"
    assert "NEON" in column.simd
