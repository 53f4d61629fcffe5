"""Which cases a call means, and a whole benchmark, short: what it holds, one session at a time, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import xdet
from tests.conftest import ROOT
from tests.xdet.finished_models import finished_model, head_model
from xdet.bench import Benchmark, BenchOptions, Memory, Ratio, run_benchmark
from xdet.bench.machine import measure_memory
from xdet.bench.report import benchmark_report, benchmark_to_json
from xdet.bench.run import case_coverage, plan_cases
from xdet.errors import MissingExtraError, ModelError, UsageError
from xdet.model.surgery import cut_at_head
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.table import open_model
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from pathlib import Path

SHORT = BenchOptions(blocks=2, block_s=0.0, pictures_per_block=2)


@pytest.fixture(scope="module")
def converted(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "person.onnx"
    xdet.convert(embedded_tflite, path)
    return path


@pytest.fixture(scope="module")
def found(embedded_tflite: Path, converted: Path) -> Benchmark:
    return run_benchmark([embedded_tflite, converted], options=SHORT)


def text_of(found: Benchmark) -> str:
    return report_text(benchmark_report(found))


def test_every_case_has_its_times_memory_and_coverage(found: Benchmark) -> None:
    assert [result.runtime for result in found.results] == ["litert:xnnpack", "onnxruntime:cpu"]
    assert (found.images, found.embedded_images) == (2, True)
    for result in found.results:
        # two blocks: two pictures read in each; five calls, the least, in each
        assert (result.read.count, result.resize.count) == (4, 4)
        assert result.boxes is not None
        assert (result.network.count, result.boxes.count) == (10, 10)
        assert 0 < result.boxes.low_s <= result.boxes.median_s <= result.boxes.high_s
        assert result.head_s == result.boxes.median_s - result.network.median_s
        assert result.images_per_s > 0
        assert result.thresholds.max_detections == 100
        assert result.coverage is not None
        assert result.coverage.share == 1.0
        assert result.memory is not None
        assert result.memory.peak_bytes > result.memory.before_bytes > 10_000_000
    first, second = found.results
    assert first.ratio == first.network_ratio == Ratio(1.0, 1.0, 1.0)
    assert first.boxes is not None
    assert second.boxes is not None
    assert second.ratio is not None
    assert second.ratio.value == first.boxes.median_s / second.boxes.median_s
    assert second.network_ratio.value == first.network.median_s / second.network.median_s


def test_only_one_session_is_ever_alive(
    embedded_tflite: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most, steps = 0, 0, []

    class Counted:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.runtime = open_model(*arguments, **options)

        def __enter__(self) -> Any:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            steps.append(self.runtime.name)
            return self.runtime

        def __exit__(self, *_: object) -> None:
            nonlocal alive
            alive -= 1
            self.runtime.close()

    monkeypatch.setattr("xdet.bench.blocks.open_model", Counted)
    monkeypatch.setattr("xdet.runtimes.finished.open_model", Counted)
    run_benchmark([embedded_tflite, converted], options=replace(SHORT, memory=False))
    assert (alive, most) == (0, 1)
    assert (
        steps[1:] == ["litert:xnnpack", "onnxruntime:cpu", "onnxruntime:cpu"] * 2
    )  # the source in a subprocess first, then alternating; ONNX with and without head


def test_progress_counts_memory_and_every_turn(embedded_tflite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdet.bench.run.measure_memory", lambda *_: Memory(1, 2))
    steps: list[tuple[int, int]] = []
    options = replace(SHORT, blocks=3)
    run_benchmark([embedded_tflite], options=options, progress=lambda *step: steps.append(step))
    assert steps == [(1, 4)] * 4


def test_a_score_threshold_reaches_every_model(embedded_tflite: Path, converted: Path) -> None:
    options = replace(SHORT, blocks=1, score_threshold=0.001, memory=False)
    results = run_benchmark([embedded_tflite, converted], options=options).results
    assert [result.thresholds.score for result in results] == [0.001, 0.001]


def test_a_missing_psutil_is_a_note_with_the_pip_line(embedded_tflite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    found = run_benchmark([embedded_tflite], options=replace(SHORT, blocks=1))
    assert found.results[0].memory is None
    assert found.others_share is None
    (note,) = found.notes
    assert 'pip install "xdet[bench]"' in note
    with pytest.raises(MissingExtraError):
        measure_memory(embedded_tflite, RuntimeChoices("litert", "xnnpack", 1))


def test_an_error_in_the_measured_process_is_raised_here(sample_pictures: list[Path]) -> None:
    with pytest.raises(ModelError, match="is not a model"):
        measure_memory(sample_pictures[0], RuntimeChoices("onnxruntime", "cpu", 1))


def test_the_json_has_the_keys_of_its_document(found: Benchmark) -> None:
    document = json.loads(benchmark_to_json(found))
    assert (document["schema"], document["version"]) == ("xdet.benchmark", 1)
    described = (ROOT / "docs" / "bench.md").read_text("utf-8")
    keys = {*document, *document["results"][0], *document["machine"], *document["options"]}
    assert not [key for key in sorted(keys) if f"`{key}`" not in described]
    assert [result["model"] for result in document["results"]] == ["tiny_yolo_v2_person_224_int8.tflite", "person.onnx"]
    assert document["results"][1]["head_s"] == found.results[1].head_s


def test_the_table_has_a_line_per_case_and_the_text_says_when_the_machine_was_busy(found: Benchmark) -> None:
    table = next(part for part in text_of(found).split("\n\n") if part.startswith("model")).splitlines()
    assert len(table) == 4
    assert table[2].split()[:3] == ["tiny_yolo_v2_person_224_int8.tflite", "litert:xnnpack", "1"]
    assert "1.00" in table[2]
    assert max(map(len, report_text(benchmark_report(found), 80).splitlines())) <= 80
    quiet, busy = replace(found, others_share=0.01), replace(found, others_share=0.3)
    assert "Other programs" not in text_of(quiet)
    assert "Other programs took 30% of the processors meanwhile" in text_of(busy)
    single = replace(found, options=replace(found.options, blocks=1))
    assert "\n1 block, one session at a time" in text_of(single)


def test_a_head_below_the_noise_is_told_with_its_sign(found: Benchmark) -> None:
    result = found.results[0]
    assert result.boxes is not None
    odd = replace(result, boxes=replace(result.boxes, median_s=0.001), network=replace(result.network, median_s=0.0012))
    assert "-200 us" in text_of(replace(found, results=(odd,)))


def names(models: list[Path], runtimes: str | None, threads: tuple[int, ...]) -> list[tuple[str, str, int | None]]:
    return [
        (case.model.path.suffix, f"{case.choices.runtime}:{case.choices.provider}", case.choices.threads)
        for case in plan_cases(models, runtimes, threads)
    ]


def test_cases_are_models_times_fitting_runtimes_times_threads(embedded_tflite: Path, converted: Path) -> None:
    assert names([embedded_tflite, converted], None, (1, 2)) == [
        (".tflite", "litert:xnnpack", 1),
        (".tflite", "litert:xnnpack", 2),
        (".onnx", "onnxruntime:cpu", 1),
        (".onnx", "onnxruntime:cpu", 2),
    ]
    assert names([converted, embedded_tflite], "litert:builtin,litert,onnxruntime", (1,)) == [
        (".onnx", "onnxruntime:cpu", 1),
        (".tflite", "litert:builtin", 1),
        (".tflite", "litert:xnnpack", 1),
    ]


def test_runtimes_and_models_that_do_not_meet_are_refused(embedded_tflite: Path, converted: Path) -> None:
    with pytest.raises(UsageError, match=r"no model here runs on 'onnxruntime'.*leave it out"):
        plan_cases([embedded_tflite], "litert,onnxruntime", (1,))
    with pytest.raises(UsageError, match=r"person\.onnx' is a file of format onnx.*add onnxruntime"):
        plan_cases([embedded_tflite, converted], "litert", (1,))
    with pytest.raises(UsageError, match="at least one model"):
        plan_cases([], None, (1,))


def test_a_picture_is_no_model(sample_pictures: list[Path]) -> None:
    with pytest.raises(ModelError, match="of no known format"):
        plan_cases([sample_pictures[0]], None, (1,))


def test_the_cut_network_gives_the_head_bit_for_bit_and_nothing_else(converted: Path) -> None:
    data = converted.read_bytes()
    cut = cut_at_head(data, "person.onnx")
    model = onnx.load_from_string(cut)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["head"]
    assert not {"NonMaxSuppression", "TopK", "Exp"} & {node.op_type for node in model.graph.node}
    image = np.random.default_rng(5).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with open_onnxruntime(data, file="whole.onnx") as whole, open_onnxruntime(cut, file="cut.onnx") as network:
        assert not network.spec.gives_boxes
        assert np.array_equal(whole.head(image), network.head(image))


def test_a_model_that_ends_at_its_head_is_its_own_network() -> None:
    model = head_model()
    assert cut_at_head(model, "raw.onnx") is model


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (finished_model(metadata=None), "not one that xdet made"),
        (finished_model(), "has no value named 'head'"),
        (finished_model()[:-4], "damaged"),
    ],
    ids=["foreign", "headless", "damaged"],
)
def test_what_cannot_be_cut_is_told(model: bytes, word: str) -> None:
    with pytest.raises(ModelError, match=rf"'m\.onnx'.*{word}"):
        cut_at_head(model, "m.onnx")


def test_every_case_has_its_coverage(embedded_tflite: Path, converted: Path, tmp_path: Path) -> None:
    sized = tmp_path / "sized.onnx"
    xdet.convert(embedded_tflite, sized, any_size=True)
    for case in plan_cases([embedded_tflite, converted, sized], None, (1,)):
        found = case_coverage(case)
        assert found is not None
        assert (found.macs_total, found.share) == (773_864_448, 1.0)
