"""What a benchmark of conversions shows: each network next to its source, in 80 columns, and where its time goes.

A "+-" is half of the distance between the quartiles: of the turns' ratios, or of all calls.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from xdet.inspection.coverage import RENAMED
from xdet.writing.blocks import Table, Text
from xdet.writing.text import format_count, format_duration, image_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdet.bench.records import Benchmark, CaseResult, Ratio, Spread
    from xdet.writing.blocks import Block

COSTLY = 12  # nodes that are listed by name
LONGEST_NAME = 32
Runs = dict[int, "CaseResult"]  # one graph on one runtime, by the number of threads


def model_names(benchmark: Benchmark) -> list[str]:
    """Every result's model: its file name, with as many folders as tell different files apart."""
    files = list(dict.fromkeys(result.model for result in benchmark.results))
    names = dict(zip(files, image_names(files), strict=True))
    return [names[result.model] for result in benchmark.results]


def conversion_tables(benchmark: Benchmark) -> list[tuple[Block, ...]]:
    """Ratios, one row per graph and runtime; then the times behind them."""
    threads, runs = benchmark.options.threads, _runs(benchmark)
    kinds = ("network", "boxes") if any(result.ratio for result in benchmark.results) else ("network",)
    titles = [f"{kind}, {count} thread{'s'[: count - 1]}" for kind in kinds for count in threads]
    first = next(iter(benchmark.results)).graph
    ratios = [
        (*key, *(_ratio_text(_ratio_of(by_threads[count], kind)) for kind in kinds for count in threads))
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
            titles = tuple(f"{count} thread{'s'[: count - 1]}" for count in runs)
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
    return (kind, name, *(f"{1e6 * each:.0f} us" for each in seconds), f"{seconds[0] / whole:.1%}")


def _rate_text(runs: Runs, peak: float | None) -> str:
    run = next(iter(runs.values()))
    if run.coverage is None:
        return ""
    rate = run.coverage.macs_total / run.network.median_s
    share = f", {rate / peak:.2f} of the int8 peak of one thread ({format_count(round(peak))})" if peak else ""
    return f" ({format_count(round(rate))} MAC/s with {run.threads} thread{'s'[: run.threads - 1]}{share})"


def _ratio_of(run: CaseResult, kind: str) -> Ratio | None:
    return run.network_ratio if kind == "network" else run.ratio


def _ratio_text(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f} +-{(ratio.high - ratio.low) / 2:.2f}"


def _spread_text(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{format_duration(spread.median_s)} +-{(spread.high_s - spread.low_s) / 2 / spread.median_s:.0%}"
