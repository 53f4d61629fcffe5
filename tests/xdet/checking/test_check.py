"""What check does around its parts: which runtimes run, what happens to those that cannot, and how it is told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.spec import Thresholds
from tests.xdet.checking import faults
from tests.xdet.command import ROOT, run_xdet
from xdet import checking
from xdet.checking import runs
from xdet.checking.check import check, planned_images
from xdet.checking.pair import open_pair
from xdet.checking.report import ADVICE, CHANGE_CAUSES, check_text, check_to_json, layer_advice
from xdet.checking.result import Cause, ChangeCause
from xdet.checking.runtimes import OpenRuntimes, count_images, split_runtimes
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import ModelFile
from xdet.runtimes import table
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
RUNTIMES = "onnxruntime:cpu,litert:xnnpack,litert:builtin"


@pytest.fixture(scope="module")
def passed(person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]) -> CheckResult:
    return check(person_onnx, embedded_tflite, sample_pictures, runtimes=RUNTIMES + ",onnxruntime-unfused:cpu")


def test_the_default_runtimes_are_onnx_runtime_the_kernels_of_litert_and_openvino_if_installed(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    seen: dict[str, int] = {}

    def progress(name: str, images: int) -> None:
        seen[name] = seen.get(name, 0) + images

    result = check(person_onnx, embedded_tflite, sample_pictures, progress=progress)
    extra = ["openvino:cpu"] if find_spec("openvino") else []
    assert [run.name for run in result.runs] == ["onnxruntime:cpu", *extra]
    assert result.source_runs == ("litert:xnnpack", "litert:builtin", "litert:reference")
    assert result.source_images == (2, 2, 2)
    assert seen == dict.fromkeys((*result.source_runs, *(run.name for run in result.runs)), 2)
    assert sum(seen.values()) == planned_images(None, "tflite", 2)
    assert result.passed
    assert result.complete


def test_slow_runtimes_see_two_images(person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]) -> None:
    pictures = [*sample_pictures, *sample_pictures]
    result = check(person_onnx, embedded_tflite, pictures, runtimes="onnx-reference,litert:xnnpack,litert:builtin")
    assert [(run.name, run.images) for run in result.runs] == [("onnx-reference:numpy", 2)]
    assert planned_images("onnx-reference,litert:xnnpack,litert:builtin", "tflite", 4) == 10
    assert result.passed


def test_slow_kernels_of_the_source_see_two_images_and_the_yardstick_has_them_all(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    pictures = [*sample_pictures, *sample_pictures]
    result = check(
        person_onnx, embedded_tflite, pictures, runtimes=f"onnxruntime-unfused:cpu,litert:reference,{RUNTIMES}"
    )
    assert result.source_runs == ("litert:reference", "litert:xnnpack", "litert:builtin")
    assert result.source_images == (2, 4, 4)
    assert result.yardstick is not None
    assert (result.yardstick.second, result.yardstick.values) == ("litert:builtin", 4 * 1470)
    assert [run.nearest and run.nearest.values for run in result.runs] == [4 * 1470, 4 * 1470]
    assert "\nlitert:reference ran on 2 photographs\n" in check_text(result)
    assert json.loads(check_to_json(result))["source_images"] == [2, 4, 4]
    alone = check_text(replace(result, source_images=(1, 4, 4)))
    assert "\nlitert:reference ran on 1 photograph\n" in alone
    assert result.passed


@pytest.mark.parametrize(
    ("runtimes", "images"),
    [
        (None, (9, 9, 2)),
        ("litert:xnnpack,litert:builtin,litert:reference", (9, 9, 2)),
        ("litert:xnnpack,litert:reference", (9, 9)),
        ("litert:reference", (9,)),
    ],
)
def test_slow_kernels_see_all_images_where_the_yardstick_needs_them(
    runtimes: str | None, images: tuple[int, ...]
) -> None:
    finished, sources = split_runtimes(runtimes, "tflite", None)
    counts = count_images(finished, sources, 9)
    assert tuple(counts[choices.name] for choices in sources) == images


def test_source_and_model_run_side_by_side_and_stand_in_the_order_in_which_they_are_named(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both_run, run_source, run_finished = Barrier(2, timeout=60), runs.run_source, runs.run_finished

    def after_the_other(run: Callable[..., runs.Run]) -> Callable[..., runs.Run]:
        def wait(*arguments: Any) -> runs.Run:
            if arguments[1].runtime in ("litert", "onnxruntime"):
                both_run.wait()
            return run(*arguments)

        return wait

    monkeypatch.setattr(runs, "run_source", after_the_other(run_source))
    monkeypatch.setattr(runs, "run_finished", after_the_other(run_finished))
    trust_nothing_of("onnxruntime-unfused", monkeypatch)
    named = "litert:builtin,onnxruntime-unfused:cpu,onnxruntime:cpu"
    result = check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=named)
    assert [run.name for run in result.runs] == ["onnxruntime-unfused:cpu", "onnxruntime:cpu"]
    assert result.complete


def test_where_the_caller_is_interrupted_no_other_runtime_begins(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_runs, interrupted, begun = Event(), Event(), list[str]()
    closed: list[object] = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its own
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closed.append(self)
            if len(set(closed)) == 2:  # the source's, and that of the subprocesses
                interrupted.set()
            super().shutdown(wait)

    def run_source(_: object, choices: RuntimeChoices, *__: object) -> runs.Run:
        begun.append(str(choices.provider))
        first_runs.set()
        interrupted.wait(60)
        raise RuntimeUnavailableError("it ended with the interrupt")

    def run_finished(*_: object) -> runs.Run:
        first_runs.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(runs, "run_source", run_source)
    monkeypatch.setattr(runs, "run_finished", run_finished)
    with pytest.raises(KeyboardInterrupt):
        check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES)
    assert begun == ["builtin"]


def test_a_missing_runtime_is_told_and_hides_nothing(
    person_onnx: Path,
    embedded_tflite: Path,
    sample_pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDET_NODE_MODULES", str(tmp_path))
    result = check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=f"onnxruntime-web,{RUNTIMES}")
    (missing,) = [m for m in result.missing if m.asked]
    assert missing.name == "onnxruntime-web:wasm"
    assert "npm install onnxruntime-web" in missing.reason
    assert [run.name for run in result.runs] == ["onnxruntime:cpu"]
    assert result.passed
    assert not result.complete


@pytest.mark.parametrize(
    ("error", "complete"),
    [(RuntimeUnavailableError("no luck"), False), (MissingExtraError("LiteRT", "litert"), True)],
    ids=["failed", "not installed"],
)
def test_a_default_runtime_that_fails_leaves_a_gap_and_one_that_is_not_installed_none(
    person_onnx: Path,
    embedded_tflite: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeUnavailableError,
    *,
    complete: bool,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "run_source", fail)
    black = np.zeros((8, 8, 3), np.uint8)
    result = check(person_onnx, embedded_tflite, [black])
    assert {m.name for m in result.missing if m.reason == str(error)} == {
        "litert:xnnpack",
        "litert:builtin",
        "litert:reference",
    }
    assert (result.passed, result.complete) == (True, complete)


def trust_nothing_of(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.RUNTIMES, runtime, replace(table.RUNTIMES[runtime], trusted=()))


def test_a_runtime_that_ends_its_process_is_told_and_hides_nothing(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = replace(table.RUNTIMES["onnxruntime"], trusted=(), module="tests.xdet.runtimes.crashing_runtime")
    monkeypatch.setitem(table.RUNTIMES, "onnxruntime", crashing)
    result = check(
        person_onnx,
        embedded_tflite,
        sample_pictures[:1],
        runtimes="onnxruntime:cpu,onnxruntime-unfused:cpu,litert:xnnpack,litert:builtin",
    )
    (crashed,) = [m for m in result.missing if m.crashed]
    assert crashed.name == "onnxruntime:cpu"
    assert (
        "onnxruntime:cpu crashed while opening it: its process ended with signal SIGSEGV: out of luck;"
        in crashed.reason
    )
    assert [run.name for run in result.runs] == ["onnxruntime-unfused:cpu"]


def test_a_process_of_its_own_gives_what_this_one_gives(
    person_onnx: Path, embedded_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), np.uint8)
    file = ModelFile(person_onnx, person_onnx.read_bytes(), "onnx")
    asked = (RuntimeChoices("onnxruntime", "cpu", 1), runs.Work(images, (Thresholds(0.01), Thresholds(0.05, 0.4))))
    pair = open_pair(file, embedded_tflite)
    with OpenRuntimes(pair) as opened:
        here = runs.run_finished(file, *asked, opened)
    trust_nothing_of("onnxruntime", monkeypatch)
    with OpenRuntimes(pair) as opened:
        apart = runs.run_finished(file, *asked, opened)
    assert (apart.name, apart.exact) == (here.name, here.exact)
    assert np.array_equal(apart.heads, here.heads)
    for (_, one), (_, other) in zip(here.boxes, apart.boxes, strict=True):
        assert np.array_equal(one.anchors, other.anchors)
        assert np.array_equal(one.scores, other.scores)


def test_an_error_in_a_process_of_its_own_comes_back_as_one_line(
    person_onnx: Path, embedded_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_nothing_of("onnxruntime", monkeypatch)
    pair = open_pair(person_onnx, embedded_tflite)
    gone = ModelFile(Path("gone.onnx"), b"\x08\x09", "onnx")
    with (
        OpenRuntimes(pair) as runtimes,
        pytest.raises(ModelError, match=r"gone\.onnx'.*not one that xdet"),
        runtimes.opened(gone, RuntimeChoices("onnxruntime", "cpu")),
    ):
        pass


def test_what_passed_is_told_part_by_part(passed: CheckResult) -> None:
    text = check_text(passed)
    assert text.startswith("person.onnx against tiny_yolo_v2_person_224_int8.tflite, 2 photographs\n")
    assert [line.split()[:2] for line in text.splitlines() if line[:8].strip() in ("PASSED", "SKIPPED")][:4] == [
        ["PASSED", "static:"],
        ["PASSED", "exact:"],
        ["PASSED", "spread:"],
        ["PASSED", "head:"],
    ]
    assert "onnxruntime:cpu against litert:xnnpack: 0 of 2,940 values differ" in text
    assert "16 differ on purpose and are proven" in text
    assert text.endswith("\nPASSED")


def test_the_json_holds_everything_and_names_its_schema(passed: CheckResult) -> None:
    document = json.loads(check_to_json(passed))
    assert (document["schema"], document["version"]) == ("xdet.check", 1)
    assert document["passed"] is True
    assert document["complete"] is True
    assert document["source"]["sha256"] == passed.source_sha256
    assert [part["part"] for part in document["parts"]] == ["static", "exact", "spread", "head"]
    assert document["runs"][0]["nearest"]["second"] == "litert:xnnpack"
    assert len(document["proven"]) == 16
    assert check_to_json(passed) == check_to_json(passed)


def test_an_infinite_distance_is_null_in_json(passed: CheckResult) -> None:
    from dataclasses import replace

    assert passed.yardstick is not None
    broken = replace(passed, yardstick=replace(passed.yardstick, max_steps=float("inf")))
    assert json.loads(check_to_json(broken))["yardstick"]["max_steps"] is None


def test_every_cause_has_its_advice_and_every_change_its_words() -> None:
    from typing import get_args

    assert set(ADVICE) == set(get_args(Cause))
    assert set(CHANGE_CAUSES) == set(get_args(ChangeCause))


def test_every_cause_stands_in_the_decision_tree() -> None:
    from typing import get_args

    text = (ROOT / "docs" / "check.md").read_text("utf-8")
    assert [cause for cause in get_args(Cause) if f"`{cause}`" not in text] == []
    assert [cause for cause in get_args(ChangeCause) if f"`{cause}`" not in text] == []


def test_the_command_prints_the_verdict_and_writes_json(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "check.json"
    source = ("--source", embedded_tflite, "--images", sample_pictures[0], "--runtimes", RUNTIMES)
    result = run_xdet("check", person_onnx, *source, "--json", report)
    assert result.returncode == 0
    assert "xdet:" not in result.stderr  # LiteRT itself tells there that it has its delegate
    assert result.stdout.endswith("PASSED (not compared: spread)\n")
    assert json.loads(report.read_text("utf-8"))["images"] == [sample_pictures[0].name]


def test_the_command_takes_photographs_of_its_own_and_exits_with_1_when_a_part_fails(
    person_onnx: Path, embedded_tflite: Path, tmp_path: Path
) -> None:
    planted = tmp_path / "planted.onnx"
    planted.write_bytes(faults.planted(person_onnx.read_bytes(), faults.one_weight_byte))
    result = run_xdet("check", planted, "--source", embedded_tflite, "--runtimes", RUNTIMES)
    assert result.returncode == 1
    assert "no --images: on the two photographs that come with xdet; your own say more\n" in result.stderr
    assert "planted.onnx against tiny_yolo_v2_person_224_int8.tflite, 2 photographs\n" in result.stdout
    assert "FAILED: weight, layer (docs/check.md tells what to do)" in result.stdout
    assert f"weight: weights 'tiny_yolo_v2/conv3/Conv2D' of '{faults.CONV3}': 1 of 18,432 codes differ" in result.stdout


def test_the_command_exits_with_3_when_a_named_runtime_is_missing(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    source = ("--source", embedded_tflite, "--images", sample_pictures[0])
    result = run_xdet("check", person_onnx, *source, "--runtimes", f"openvino:npu9,{RUNTIMES}")
    assert result.returncode == 3
    assert "openvino:npu9 did not run:" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("INCOMPLETE, nothing failed (not compared: spread;")


@pytest.mark.parametrize(
    ("runtimes", "summary"),
    [
        ("onnxruntime:cpu,litert:xnnpack", "name two of litert:xnnpack, litert:builtin and litert:reference, or none"),
        (RUNTIMES, "no runtime ran besides those of the exact pairs"),
    ],
)
def test_what_part_spread_lacks_is_told(
    runtimes: str, summary: str, person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    parts = {
        part.part: part for part in check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=runtimes).parts
    }
    assert parts["spread"].status == "skipped"
    assert parts["spread"].summary.endswith(summary)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_in_place_of_a_list_is_a_usage_error(kind: type, person_onnx: Path, embedded_tflite: Path) -> None:
    with pytest.raises(UsageError, match=r"images must be a list of photographs, got 'photos'"):
        check(person_onnx, embedded_tflite, kind("photos"))


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [("warp", "there is no runtime 'warp'"), ("keras:cpu", "keras:cpu runs neither ONNX files nor tflite sources")],
)
def test_runtimes_that_make_no_sense_are_usage_errors(
    runtimes: str, message: str, person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    with pytest.raises(UsageError, match=message):
        check(person_onnx, embedded_tflite, sample_pictures, runtimes=runtimes)


def test_files_in_the_wrong_order_are_a_usage_error(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    with pytest.raises(UsageError, match=r"is tflite, expected an ONNX file made by xdet convert"):
        check(embedded_tflite, person_onnx, sample_pictures)
    with pytest.raises(UsageError, match=r"is onnx, expected the source that .* was made of \(TFLite, "):
        check(person_onnx, person_onnx, sample_pictures)
    with pytest.raises(UsageError, match="at least one photograph"):
        check(person_onnx, embedded_tflite, [])


def test_a_damaged_source_is_a_model_error(
    person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(embedded_tflite.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut\.tflite"):
        check(person_onnx, cut, sample_pictures)


def test_the_packages_docstring_names_its_entry() -> None:
    assert checking.__doc__ is not None
    assert "verdict.check" in checking.__doc__


def test_arrays_are_told_apart_by_their_number(person_onnx: Path, embedded_tflite: Path) -> None:
    pictures = [np.full((8, 8, 3), level, np.uint8) for level in (0, 255)]
    result = check(person_onnx, embedded_tflite, pictures, runtimes="onnxruntime:cpu,litert:xnnpack")
    assert result.images == ("<array 1>", "<array 2>")


def test_what_was_done_already_is_not_advised() -> None:
    told = {
        (layers, repro): layer_advice(SimpleNamespace(layers=layers), repro=repro)  # type: ignore[arg-type]  # all it reads
        for layers, repro in ((None, False), (object(), False), (object(), True))
    }
    assert [("--layers" in text, "--repro FILE" in text) for text in told.values()] == [
        (True, True),
        (False, True),
        (False, False),
    ]
