"""Sources next to what they become: which cases that makes, what ratios refer to, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import xdet
from tests.converters.sources.tflite.networks import st_yolo_lc
from tests.xdet.command import assert_one_line
from tests.xdet.command import run_xdet as run
from xdet.bench import Benchmark, BenchOptions, Ratio, run_benchmark
from xdet.bench.report import benchmark_report, benchmark_to_json, model_names
from xdet.bench.run import plan_cases
from xdet.errors import UsageError
from xdet.runtimes.table import RUNTIMES
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from pathlib import Path

SHORT = BenchOptions(
    blocks=2, block_s=0.0, pictures_per_block=1, memory=False, targets=("portable", "cpu"), threads=(1, 2)
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small networks of one name."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    sidecar = {"head": "yolo_v2", "class_names": ["person"], "anchors": [[1, 1]] * 5, "anchor_unit": "cell"}
    for size, folder in zip((32, 48), folders, strict=True):
        (folder / "net.tflite").write_bytes(st_yolo_lc(size))
        (folder / "net.xdet.json").write_text(json.dumps({**sidecar, "resize": "bilinear"}), encoding="utf-8")
    return [folder / "net.tflite" for folder in folders]


@pytest.fixture(scope="module")
def found(sources: list[Path]) -> Benchmark:
    return run_benchmark(
        sources, runtimes="litert,onnxruntime", options=replace(SHORT, profile=True), source_options=None
    )


def test_every_source_is_measured_beside_what_it_becomes_for_each_target(found: Benchmark) -> None:
    cases = [(result.graph, result.runtime, result.threads) for result in found.results]
    graphs = [("source", "litert:xnnpack"), ("portable", "onnxruntime:cpu"), ("cpu", "onnxruntime:cpu")]
    assert cases == [(*graph, threads) for graph in graphs for threads in (1, 2)] * 2
    assert len({result.sha256 for result in found.results}) == 6
    assert len(set(model_names(found))) == 2


def test_ratios_refer_to_the_own_source_with_as_many_threads(found: Benchmark) -> None:
    for place, result in enumerate(found.results):
        source = found.results[place // 6 * 6 + place % 2]
        assert source.graph == "source"
        assert result.network_ratio.value == source.network.median_s / result.network.median_s
        assert result.network_ratio.low <= result.network_ratio.high
        if result is source:
            assert result.ratio == Ratio(1.0, 1.0, 1.0)


def test_a_ratio_spreads_over_the_turns() -> None:
    ratio = Ratio.of([[2.0, 2.0, 9.0], [4.0]], [[1.0], [1.0, 1.0, 1.0]])
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 2.5, 3.5)


def test_operators_are_measured_where_onnxruntime_tells_them(found: Benchmark) -> None:
    for result in found.results:
        assert bool(result.operators) == (result.runtime == "onnxruntime:cpu")
        assert all(operator.seconds > 0 for operator in result.operators)
    assert "QLinearConv" in {operator.kind for operator in found.results[2].operators}
    assert (found.int8_peak or 0) > 1e8
    document = json.loads(benchmark_to_json(found))
    assert set(document["results"][2]["operators"][0]) == {"kind", "name", "s"}


def test_the_tables_fit_80_columns_and_name_what_ratios_mean(found: Benchmark) -> None:
    text = report_text(benchmark_report(found), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "Ratios: the time of the source graph" in " ".join(text.split())
    assert "+-" in text
    assert "images/s" not in text  # two pictures tell nothing
    assert text.count("Operators of the network of") == 4
    ratios = text.split("\n\n")[1].splitlines()
    rows = [line.split()[:2] for line in ratios if line.startswith("  ") and "onnxruntime" in line]
    assert rows == [["portable", "onnxruntime:cpu"], ["cpu", "onnxruntime:cpu"]] * 2


def test_openvino_runs_the_portable_graph_where_it_is_installed(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(folder: Path) -> list[tuple[str, str]]:
        folder.mkdir()
        cases = plan_cases(sources[:1], None, (1,), targets=("portable", "cpu"), folder=folder)
        return [(case.graph, str(case.choices.runtime)) for case in cases]

    without = [("source", "litert"), ("portable", "onnxruntime"), ("cpu", "onnxruntime")]
    row = type(RUNTIMES["openvino"])
    monkeypatch.setattr(row, "installed", property(lambda row: row.package != "openvino"))
    assert planned(tmp_path / "without") == without
    monkeypatch.setattr(row, "installed", property(lambda _: True))
    assert planned(tmp_path / "with") == [*without[:2], ("portable", "openvino"), without[2]]


def test_without_its_runtime_the_source_is_left_out_and_ratios_refer_to_the_first_target(sources: list[Path]) -> None:
    found = run_benchmark(sources[:1], runtimes="onnxruntime", options=replace(SHORT, threads=(1,), blocks=1))
    assert [result.graph for result in found.results] == ["portable", "cpu"]
    assert found.results[0].ratio == Ratio(1.0, 1.0, 1.0)
    assert "Ratios: the time of the portable graph" in report_text(benchmark_report(found))


def test_a_network_without_a_head_has_no_boxes(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(st_yolo_lc(32))
    source_options = xdet.describing_options(head="none")
    options = replace(SHORT, threads=(1,), blocks=1, targets=("cpu",))
    found = run_benchmark([source], runtimes="litert,onnxruntime", options=options, source_options=source_options)
    assert [(result.boxes, result.ratio, result.head_s) for result in found.results] == [(None,) * 3] * 2
    assert "boxes, 1 thread" not in report_text(benchmark_report(found))


@pytest.mark.parametrize("wrong", [("fast",), ("cpu", "cpu")])
def test_targets_that_do_not_exist_or_stand_twice_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="targets must be among portable, cpu, each once"):
        BenchOptions(targets=wrong)


def test_the_command_compares_targets_and_refuses_finished_models(sources: list[Path], tmp_path: Path) -> None:
    result = run("bench", sources[0], "--targets", "portable, cpu", "--runtimes", "onnxruntime", "--blocks", "1")
    assert result.returncode == 0, result.stderr
    assert "peak memory" not in result.stdout
    xdet.convert(sources[0], tmp_path / "net.onnx")
    told = "is a finished model: --targets converts sources"
    assert_one_line(run("bench", tmp_path / "net.onnx", "--targets", "cpu"), 2, told)
