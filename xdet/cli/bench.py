"""``xdet bench``."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer

from xdet.cli.describing import Said, describes_source
from xdet.cli.options import STDOUT, Force, counted_progress_bar, json_outputs, print_report, write_json
from xdet.errors import UsageError

FEW_PICTURES = 2  # images per second of two pictures mean nothing

EPILOG = """\b
Examples:
  xdet bench person.tflite person.onnx
  xdet bench person.tflite person.onnx --threads 1,2 --images photos --json bench.json
  xdet bench person.onnx --runtimes onnxruntime:cpu,onnxruntime:openvino
  xdet bench *.tflite --targets portable,cpu --threads 1,2    what each conversion buys, next to LiteRT and OpenVINO
  xdet bench net.tflite --targets portable,cpu --head none --profile
"""


@describes_source
def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="ONNX files of xdet convert, or source files; ratios refer to the first."
        ),
    ],
    *,
    runtimes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Such as onnxruntime:cpu,litert:xnnpack; each model runs on those that take it [default: the usual ones].",
        ),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="LIST", help="Threads inside an operator, such as 1,2.")] = "1",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of photographs [default: the two that come with xdet].")
    ] = None,
    blocks: Annotated[int, typer.Option(metavar="N", help="Turns of each case; more of them, less noise.")] = 5,
    score_threshold: Annotated[
        float | None, typer.Option(help="Keep boxes that score above this [default: each model's own].")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Convert each source for these (portable,cpu) and measure it beside them, on OpenVINO where installed.",
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also where the time goes: operators on ONNX Runtime's CPU kernels.")
    ] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    force: Force = False,
    source_options: Said,
) -> None:
    """Measure time, throughput and memory of models side by side."""
    from xdet.bench import BenchOptions, run_benchmark
    from xdet.bench.report import BENCHMARK_SCHEMA, benchmark_report, benchmark_to_json
    from xdet.bench.run import SAMPLES
    from xdet.pictures.images import find_images
    from xdet.writing.files import require_outputs, with_sidecars

    inputs = chain(with_sidecars(models), source_options.files(), find_images([SAMPLES if images is None else images]))
    require_outputs(json_outputs(json, BENCHMARK_SCHEMA), inputs, force=force)
    options = BenchOptions(
        threads=read_numbers(threads), blocks=blocks, score_threshold=score_threshold, profile=profile
    )
    if targets is not None:
        wanted: Any = tuple(word.strip() for word in targets.split(","))  # BenchOptions refuses others
        few = FEW_PICTURES if images is None else options.pictures_per_block
        options = replace(options, targets=wanted, memory=False, pictures_per_block=few)
    with counted_progress_bar("measuring") as advance:
        found = run_benchmark(
            models,
            runtimes=runtimes,
            images=images,
            options=options,
            source_options=source_options.options(),
            progress=advance,
        )
    if json is not None:
        write_json(json, benchmark_to_json(found))
    if json != STDOUT:
        print_report(benchmark_report(found))


def read_numbers(text: str) -> tuple[int, ...]:
    """``--threads 1,2`` as numbers."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--threads must be numbers such as 1 or 1,2, got {text!r}")
    return tuple(map(int, words))
