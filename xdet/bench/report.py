"""A benchmark as a report and as JSON (schema ``xdet.benchmark``, docs/bench.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xdet.bench.tables import conversion_tables, model_names, operator_tables
from xdet.writing.blocks import Items, Report, Section, Table, Text
from xdet.writing.text import format_duration, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdet.bench.records import Benchmark, CaseResult
    from xdet.writing.blocks import Block

BENCHMARK_SCHEMA = "xdet.benchmark"
BENCHMARK_VERSION = 1
HEADERS = (
    *("model", "runtime", "threads", "read", "resize", "network", "head", "boxes", "middle half", "ratio"),
    *("images/s", "peak memory", "integer"),
)


def benchmark_to_json(benchmark: Benchmark) -> str:
    """JSON text with a final newline; times in seconds, memory in bytes."""
    names = model_names(benchmark)
    document = {
        "schema": BENCHMARK_SCHEMA,
        "version": BENCHMARK_VERSION,
        "machine": asdict(benchmark.machine),
        "options": asdict(benchmark.options),
        "images": {"count": benchmark.images, "embedded": benchmark.embedded_images},
        "results": [_to_dict(result, name) for result, name in zip(benchmark.results, names, strict=True)],
        "others_share": benchmark.others_share,
        "int8_peak": benchmark.int8_peak,
        "notes": list(benchmark.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
    pictures = "the 2 photographs of xdet" if benchmark.embedded_images else f"{benchmark.images} photographs"
    yield f"{options.blocks} alternating blocks, one session at a time; {pictures}"


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
