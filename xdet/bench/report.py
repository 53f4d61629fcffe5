"""A benchmark as a report and as JSON (schema ``xdet.benchmark``, docs/bench.md)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from converters.errors import counted
from xdet.inspection.coverage import RENAMED
from xdet.writing.blocks import Items, Report, Section, Table, Text
from xdet.writing.files import to_json
from xdet.writing.text import format_count, format_duration, format_share, format_size, image_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdet.bench.records import Benchmark, CaseResult, Spread
    from xdet.writing.blocks import Block

BENCHMARK_SCHEMA = "xdet.benchmark"
BENCHMARK_VERSION = 1
HEADERS = (
    *("model", "runtime", "threads", "read", "resize", "network", "head", "boxes", "middle half", "ratio"),
    *("images/s", "peak memory", "integer"),
)
COSTLY = 12  # nodes that are listed by name
LONGEST_NAME = 32
Runs = dict[int, "CaseResult"]  # one graph on one runtime, by the number of threads


def benchmark_to_json(benchmark: Benchmark) -> str:
    """JSON text with a final newline; times in seconds, memory in bytes."""
    names = model_names(benchmark)
    document = {
        "machine": asdict(benchmark.machine),
        "options": asdict(benchmark.options),
        "images": {"count": benchmark.images, "embedded": benchmark.embedded_images},
        "results": [_to_dict(result, name) for result, name in zip(benchmark.results, names, strict=True)],
        "others_share": benchmark.others_share,
        "int8_peak": benchmark.int8_peak,
        "notes": list(benchmark.notes),
    }
    return to_json(BENCHMARK_SCHEMA, BENCHMARK_VERSION, document)


def benchmark_report(benchmark: Benchmark) -> Report:
    """The machine, one line per case, what runs in float, and what the columns mean."""
    meaning = (
        "Medians per image; 'middle half': the quartiles of 'boxes' (network + head).",
        "'ratio': the first model's 'boxes' time with as many threads, divided by this one's: above 1 is faster. "
        "'images/s': from file to boxes.",
    )
    notes = (*noise_lines(benchmark), *benchmark.notes)
    measured = (Table(HEADERS, tuple(benchmark_rows(benchmark)), keys=3),)
    sections: tuple[tuple[Block, ...], ...] = (
        *(conversion_tables(benchmark) if benchmark.options.targets else (measured,)),
        (Items(tuple(_miss_lines(benchmark))),),
        *(() if benchmark.options.targets else (tuple(map(Text, meaning)),)),
        *operator_tables(benchmark),
        *((Text(note),) for note in notes),
    )
    lead = tuple(_machine_lines(benchmark))
    return Report("xdet bench", tuple(Section("", blocks) for blocks in sections), lead)


def noise_lines(benchmark: Benchmark) -> list[str]:
    """A warning where other programs were busy."""
    share = benchmark.others_share
    if share is None or not benchmark.is_noisy:
        return []
    return [
        f"Other programs took {share:.0%} of the processors meanwhile: times are too long, ratios unsure; end them and "
        f"repeat."
    ]


def benchmark_rows(benchmark: Benchmark) -> Iterator[tuple[str, ...]]:
    """The texts of ``HEADERS`` for every case."""
    for result, name in zip(benchmark.results, model_names(benchmark), strict=True):
        spread, memory, ratio, coverage = result.boxes, result.memory, result.ratio, result.coverage
        integer = None if coverage is None else coverage.macs_integer
        yield (
            name,
            result.runtime,
            str(result.threads),
            format_duration(result.read.median_s),
            format_duration(result.resize.median_s),
            format_duration(result.network.median_s),
            "" if result.head_s is None else _signed_duration(result.head_s),
            "" if spread is None else format_duration(spread.median_s),
            "" if spread is None else _range_text(spread.low_s, spread.high_s),
            "" if ratio is None else f"{ratio.value:.2f}",
            f"{result.images_per_s:.1f}",
            "" if memory is None else format_size(memory.peak_bytes),
            "not known" if coverage is None or integer is None else format_share(integer, coverage.macs_total),
        )


def machine_text(benchmark: Benchmark) -> str:
    """Processor, instruction sets, cores, system, in one line."""
    machine = benchmark.machine
    flags = "flags not told" if machine.flags is None else " ".join(machine.flags)
    cores = f"{machine.usable_cpus} of {machine.logical_cpus} CPUs usable"
    return f"{machine.cpu or 'unnamed processor'} ({flags}), {cores}, {machine.system}"


def model_names(benchmark: Benchmark) -> list[str]:
    """Every result's model: its file name, with as many folders as tell different files apart."""
    return image_names([result.model for result in benchmark.results])


def conversion_tables(benchmark: Benchmark) -> list[tuple[Block, ...]]:
    """Ratios, one row per graph and runtime; then the times behind them."""
    threads, runs = benchmark.options.threads, _runs(benchmark)
    kinds = ("network", "boxes") if any(result.ratio for result in benchmark.results) else ("network",)
    titles = [f"{kind}, {counted(count, 'thread', 'threads')}" for kind in kinds for count in threads]
    first = next(iter(benchmark.results)).graph
    ratios = [
        (*key, *(_ratio_text(by_threads[count], kind) for kind in kinds for count in threads))
        for key, by_threads in runs.items()
        if key[1] != first
    ]
    meaning = (
        f"Ratios: the time of the {first} graph, divided by this one's with as many threads; above 1 it is the faster "
        "one. network: pixels at network size to raw outputs; boxes: to final boxes. +-: half of the middle half."
    )
    rated = not benchmark.embedded_images
    columns = ("threads", "network", "boxes", *(("images/s",) if rated else ()))
    times = [
        (*key, str(count), _spread_text(run.network), _spread_text(run.boxes), *((f"{run.images_per_s:.1f}",) * rated))
        for key, by_threads in runs.items()
        for count, run in by_threads.items()
    ]
    keys = ("model", "graph", "runtime")
    return [
        (Table((*keys, *titles), tuple(ratios), keys=3),),
        (Table((*keys, *columns), tuple(times), keys=3),),
        (Text(meaning),),
    ]


def operator_tables(benchmark: Benchmark) -> Iterator[tuple[Block, ...]]:
    """Per graph whose operators were measured: its share of the int8 peak, its costly nodes, and all by type."""
    for (model, graph, runtime), by_threads in _runs(benchmark).items():
        runs = {count: run for count, run in by_threads.items() if run.operators}
        if runs:
            name = f"{model}{f' for {graph}' if graph else ''} on {runtime}"
            titles = tuple(counted(count, "thread", "threads") for count in runs)
            yield (
                Text(f"Operators of the network of {name}{_rate_text(runs, benchmark.int8_peak)}:"),
                Table(("operator", "node", *titles, "share"), tuple(_operator_rows(list(runs.values()))), keys=2),
            )


def _runs(benchmark: Benchmark) -> dict[tuple[str, str, str], Runs]:
    runs: dict[tuple[str, str, str], Runs] = defaultdict(dict)
    for result, name in zip(benchmark.results, model_names(benchmark), strict=True):
        runs[name, result.graph, result.runtime][result.threads] = result
    return runs


def _operator_rows(runs: Sequence[CaseResult]) -> Iterator[tuple[str, ...]]:
    times = [{(one.kind, one.name): one.seconds for one in run.operators} for run in runs]
    first, whole = times[0], sum(times[0].values())
    for kind, name in sorted(first, key=lambda key: -first[key])[:COSTLY]:
        own = RENAMED.sub("", name)
        shown = own if len(own) <= LONGEST_NAME else f"...{own[3 - LONGEST_NAME :]}"
        yield _operator_row(kind, shown, [each.get((kind, name), 0.0) for each in times], whole)
    kinds = dict.fromkeys(kind for kind, _ in first)
    sums = {kind: [sum(s for (k, _), s in each.items() if k == kind) for each in times] for kind in kinds}
    for kind in sorted(kinds, key=lambda kind: -sums[kind][0]):
        yield _operator_row(kind, f"all {sum(k == kind for k, _ in first)}", sums[kind], whole)


def _operator_row(kind: str, name: str, seconds: Sequence[float], whole: float) -> tuple[str, ...]:
    return (kind, name, *(f"{1e6 * each:.0f} us" for each in seconds), format_share(seconds[0], whole))


def _rate_text(runs: Runs, peak: float | None) -> str:
    run = next(iter(runs.values()))
    if run.coverage is None:
        return ""
    rate = run.coverage.macs_total / run.network.median_s
    share = f", {rate / peak:.2f} of the int8 peak of one thread ({format_count(round(peak))})" if peak else ""
    return f" ({format_count(round(rate))} MAC/s with {counted(run.threads, 'thread', 'threads')}{share})"


def _ratio_text(run: CaseResult, kind: str) -> str:
    ratio = run.network_ratio if kind == "network" else run.ratio
    return "" if ratio is None else f"{ratio.value:.2f} +-{(ratio.high - ratio.low) / 2:.2f}"


def _spread_text(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{format_duration(spread.median_s)} +-{(spread.high_s - spread.low_s) / 2 / spread.median_s:.0%}"


def _range_text(low_s: float, high_s: float) -> str:
    """Two durations, with one unit where they share it."""
    low, high = format_duration(low_s), format_duration(high_s)
    shared = low.count(" ") == high.count(" ") == 1 and low.split()[1] == high.split()[1]
    return f"{low.split()[0]}..{high}" if shared else f"{low} .. {high}"


def _signed_duration(seconds: float) -> str:
    """A difference of two medians may fall below zero by noise."""
    return format_duration(seconds) if seconds >= 0 else f"-{format_duration(-seconds)}"


def _machine_lines(benchmark: Benchmark) -> Iterator[str]:
    yield machine_text(benchmark)
    yield ", ".join(f"{name} {version}" for name, version in benchmark.machine.versions.items())
    if benchmark.machine.saturates:
        yield "The fast int8 kernels saturate on this processor: ONNX Runtime runs its exact, slower ones"
    options = benchmark.options
    pictures = counted(benchmark.images, "photograph", "photographs")
    pictures = "the 2 photographs of xdet" if benchmark.embedded_images else pictures
    blocks = counted(options.blocks, "block", "alternating blocks")
    yield f"{blocks}, one session at a time; {pictures}"


def _miss_lines(benchmark: Benchmark) -> Iterator[str]:
    lines = (
        f"In float in {name}{f' for {result.graph}' if result.graph else ''}: {miss.node}: {miss.reason}"
        for result, name in zip(benchmark.results, model_names(benchmark), strict=True)
        for miss in (result.coverage.misses if result.coverage is not None else ())
    )
    yield from dict.fromkeys(lines)  # once for all numbers of threads


def _to_dict(result: CaseResult, name: str) -> dict[str, Any]:
    operators = [{"kind": one.kind, "name": one.name, "s": one.seconds} for one in result.operators]
    return {**asdict(result), "model": name, "head_s": result.head_s, "operators": operators}
