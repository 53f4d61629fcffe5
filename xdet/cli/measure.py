"""The commands that measure models: ``xdet eval``, ``xdet bench`` and ``xdet card``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xdet.cli import console, options
from xdet.errors import DataError, UsageError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from xdet.bench import BenchOptions

FEW_PICTURES = 2  # images per second of two pictures mean nothing
LARGEST_NOTES = 1 << 20

Protocol = Literal["coco", "zoo-3", "zoo-4"]
Images = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the annotated photographs.")]
Annotations = Annotated[Path, typer.Option(metavar="COCO.json", help="Their boxes, in COCO format.")]


@dataclass(frozen=True)
class Timing:
    """What is timed, and how often.

    Options:
        runtimes LIST: Such as onnxruntime:cpu,litert:xnnpack; each model runs on those that take it [default: the usual
            ones].
        threads LIST: Threads inside an operator, such as 1,2.
        blocks N: Turns of each case; more of them, less noise.
    """

    runtimes: str | None = None
    threads: str = "1"
    blocks: int = 5

    def options(self, **others: Any) -> BenchOptions:
        """As ``xdet.run_benchmark`` takes them, with others."""
        from xdet.bench import BenchOptions

        words = [word.strip() for word in self.threads.split(",")]
        if not all(word.isascii() and word.isdigit() for word in words):
            raise UsageError(f"--threads must be numbers such as 1 or 1,2, got {self.threads!r}")
        return BenchOptions(threads=tuple(map(int, words)), blocks=self.blocks, **others)


@dataclass(frozen=True)
class Scoring:
    """How detections are scored; the names are those of ``xdet.evaluate``.

    Options:
        protocol: coco: as pycocotools; zoo-3, zoo-4: as the ST model zoo, by services version.
        crowd: Crowd boxes [default: ignore for coco, keep for zoo-3 and zoo-4].
        max_gt N: Leave out images with more ground truths.
        eval_iou F: IoU from which on a detection is a hit, for zoo-3 and zoo-4 [default: 0.5].
        truncate_input: Truncate in the input's quantisation, as the zoo evaluates.
        score_threshold: Detections score above this.
        iou_threshold: Suppress neighbours that overlap more.
        max_detections: Detections per image.
    """

    protocol: Protocol = "coco"
    crowd: Literal["ignore", "drop", "keep"] | None = None
    max_gt: int | None = None
    eval_iou: float | None = None
    truncate_input: bool = False
    score_threshold: float = 0.001
    iou_threshold: float = 0.5
    max_detections: int = 100


def evaluate(
    models: list[Path],
    *,
    images: Images,
    annotations: Annotations,
    scoring: Scoring,
    running: options.Running,
    workers: int | None = None,
    json: options.Json = None,
    plot: Path | None = None,
    resume: Path | None = None,
    force: options.Force = False,
    describing: options.Describing,
) -> None:
    r"""Measure average precision on annotated photographs.

    Further models are compared with the first.

    Options:
        models MODEL...: ONNX files of xdet convert, source files, or results of xdet detect (.jsonl, .parquet).
        workers N: Photographs worked on at the same time [default: one per processor, at most 8].
        plot FILE.png: Draw precision over recall (extra: eval).
        resume FILE: Keep each photograph's result there; go on where it stopped.

    Examples:
        xdet eval m.onnx --images photos --annotations coco.json
        xdet eval float.onnx int8.onnx int8.tflite --images photos \
            --annotations coco.json --plot curves.png
        xdet eval m.tflite --images photos --annotations coco.json \
            --protocol zoo-3 --eval-iou 0.4 --json -
        xdet eval found.parquet --images photos --annotations coco.json
            made by xdet detect --score-threshold 0.001
    """
    from xdet.evaluation.evaluate import evaluate as evaluate_models
    from xdet.evaluation.evaluate import evaluated_files
    from xdet.evaluation.report import (
        EVALUATION_SCHEMA,
        evaluation_report,
        evaluation_to_json,
        problem_lines,
        require_plotting,
        save_precision_plot,
    )
    from xdet.writing.files import PICTURE_MARK, Output, require_outputs, require_target

    if plot is not None:
        require_plotting()
    outputs = console.json_outputs(json, EVALUATION_SCHEMA)
    outputs += [] if plot is None else [Output(plot, PICTURE_MARK)]
    inputs = describing.files()
    if resume is not None:
        require_target(resume)
        if resume.exists():
            inputs.append(resume)
        else:
            outputs.append(Output(resume))
    require_outputs(outputs, chain(inputs, evaluated_files(models, images, annotations)), force=force)
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"`plot` '{plot}': the curves are drawn as PNG; name a file that ends in .png")
    with console.progress_bar("evaluating") as advance:
        evaluation = evaluate_models(
            models,
            images,
            annotations,
            **vars(scoring),
            **running.keywords,
            workers=workers,
            resume=resume,
            source_options=describing.options(),
            progress=advance,
        )
    if plot is not None:
        save_precision_plot(plot, evaluation)
    console.print_result(evaluation, json, evaluation_to_json, evaluation_report)
    if evaluation.warning is not None:
        console.print_line(f"xdet: warning: {evaluation.warning}", err=True)
    for line in problem_lines(evaluation.problems):
        console.print_line(f"xdet: error: {line}", err=True)
    if evaluation.problems:
        raise typer.Exit(3)


def bench(
    models: list[Path],
    *,
    timing: Timing,
    images: Path | None = None,
    score_threshold: float | None = None,
    targets: str | None = None,
    profile: bool = False,
    json: options.Json = None,
    force: options.Force = False,
    describing: options.Describing,
) -> None:
    """Measure time, throughput and memory of models side by side.

    Options:
        models MODEL...: ONNX files of xdet convert, or source files; ratios refer to the first.
        images DIR: Folder of photographs [default: the two that come with xdet].
        score_threshold: Keep boxes that score above this [default: each model's own].
        targets LIST: Convert each source for these (portable,cpu) and measure it beside them, on OpenVINO where
            installed.
        profile: Also where the time goes: operators on ONNX Runtime's CPU kernels.

    Examples:
        xdet bench person.tflite person.onnx
        xdet bench m.tflite m.onnx --threads 1,2 --images photos --json bench.json
        xdet bench person.onnx --runtimes onnxruntime:cpu,onnxruntime:openvino
        xdet bench *.tflite --targets portable,cpu --threads 1,2
            what each conversion buys, next to LiteRT and OpenVINO
        xdet bench net.tflite --targets portable,cpu --head none --profile
    """
    from xdet.bench import run_benchmark
    from xdet.bench.report import BENCHMARK_SCHEMA, benchmark_report, benchmark_to_json
    from xdet.bench.run import SAMPLES
    from xdet.pictures.images import find_images
    from xdet.writing.files import require_outputs, with_sidecars

    inputs = chain(with_sidecars(models), describing.files(), find_images([SAMPLES if images is None else images]))
    require_outputs(console.json_outputs(json, BENCHMARK_SCHEMA), inputs, force=force)
    bench_options = timing.options(score_threshold=score_threshold, profile=profile)
    if targets is not None:
        names: Any = tuple(word.strip() for word in targets.split(","))  # BenchOptions refuses others
        few = FEW_PICTURES if images is None else bench_options.pictures_per_block
        bench_options = replace(bench_options, targets=names, memory=False, pictures_per_block=few)
    with console.progress_bar("measuring") as advance:
        benchmark = run_benchmark(
            models,
            runtimes=timing.runtimes,
            images=images,
            options=bench_options,
            source_options=describing.options(),
            progress=advance,
        )
    console.print_result(benchmark, json, benchmark_to_json, benchmark_report)


@dataclass(frozen=True)
class CardTiming(Timing):
    """What is timed for a card.

    Options:
        runtimes LIST: Such as onnxruntime:cpu,litert:xnnpack; each model runs on those that take it [default: all that
            work here].
    """


def card(
    source: Path,
    models: list[Path],
    *,
    images: Images,
    annotations: Annotations,
    output: options.OutputPath = Path("model-card.md"),
    samples: Path | None = None,
    notes: Path | None = None,
    timing: CardTiming,
    protocol: Protocol = "coco",
    force: options.Force = False,
    describing: options.Describing,
) -> None:
    r"""Write a model card, filled for this machine.

    It holds network, memory, time, accuracy, pictures and provenance.

    Options:
        source: The source model; differences and ratios refer to it.
        models MODEL.onnx...: Finished models, and others to compare, such as the float file.
        output FILE.md: Where to write it; pictures go beside it.
        samples DIR: Photographs to draw boxes on [default: the first three of --images].
        notes FILE.md: Hand-written Markdown: its beginning opens the card, its sections close it.
        protocol: Of the average precision, as in xdet eval.

    Examples:
        xdet card m.tflite m.onnx --images photos --annotations coco.json
        xdet card m.tflite m.onnx float.h5 --images photos \
            --annotations coco.json --notes limits.md
    """
    from xdet.card import CardRequest, make_card

    request = CardRequest(
        source=source,
        models=tuple(models),
        images=images,
        annotations=annotations,
        samples=() if samples is None else (samples,),
        notes="" if notes is None else _read_notes(notes),
        notes_name="" if notes is None else notes.name,
        runtimes=timing.runtimes,
        protocol=protocol,
        bench=timing.options(),
        source_options=describing.options(),
    )
    inputs = (*describing.files(), *(() if notes is None else (notes,)))
    content = make_card(request, output, _print_stage, inputs=inputs, force=force)
    console.print_line(f"wrote {output} and {len(content.pictures)} pictures beside it")


def _read_notes(path: Path) -> str:
    from converters.files import read_regular

    try:
        return read_regular(path, LARGEST_NOTES).decode("utf-8")
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(f"cannot read the notes '{path}': {reason(error)}; give a Markdown file in UTF-8") from error


def _print_stage(stage: str) -> None:
    """On a terminal, not in a pipe."""
    if sys.stderr.isatty():
        console.print_line(f"{stage} ...", err=True)
