"""The commands that measure models: ``xdet eval``, ``xdet bench`` and ``xdet card``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xdet.cli.options import (
    Describing,
    Force,
    Json,
    Running,
    Workers,
    json_outputs,
    print_line,
    print_result,
    progress_bar,
)
from xdet.errors import DataError, UsageError
from xdet.writing.text import reason

if TYPE_CHECKING:
    from xdet.evaluation.results import Evaluation

FEW_PICTURES = 2  # images per second of two pictures mean nothing
LARGEST_NOTES = 1 << 20

Images = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the annotated photographs.")]
Annotations = Annotated[Path, typer.Option(metavar="COCO.json", help="Their boxes, in COCO format.")]
Protocol = Literal["coco", "zoo-3", "zoo-4"]
Runtimes = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Such as onnxruntime:cpu,litert:xnnpack; each model runs on those that take it [default: the usual ones].",
    ),
]
ThreadCounts = Annotated[str, typer.Option(metavar="LIST", help="Threads inside an operator, such as 1,2.")]
Blocks = Annotated[int, typer.Option(metavar="N", help="Turns of each case; more of them, less noise.")]

EVAL_EPILOG = """\b
Examples:
  xdet eval m.onnx --images photos --annotations coco.json
  xdet eval float.onnx int8.onnx int8.tflite --images photos \\
      --annotations coco.json --plot curves.png
  xdet eval m.tflite --images photos --annotations coco.json \\
      --protocol zoo-3 --eval-iou 0.4 --json -
  xdet eval found.parquet --images photos --annotations coco.json
      made by xdet detect --score-threshold 0.001
"""


@dataclass(frozen=True)
class Scoring:
    """How detections are scored; the names are those of ``xdet.evaluate``."""

    protocol: Annotated[
        Protocol, typer.Option(help="coco: as pycocotools; zoo-3, zoo-4: as the ST model zoo, by services version.")
    ] = "coco"
    crowd: Annotated[
        Literal["ignore", "drop", "keep"] | None,
        typer.Option(help="Crowd boxes [default: ignore for coco, keep for zoo-3 and zoo-4]."),
    ] = None
    max_gt: Annotated[int | None, typer.Option(metavar="N", help="Leave out images with more ground truths.")] = None
    eval_iou: Annotated[
        float | None,
        typer.Option(metavar="F", help="IoU from which on a detection is a hit, for zoo-3 and zoo-4 [default: 0.5]."),
    ] = None
    truncate_input: Annotated[
        bool, typer.Option("--truncate-input", help="Truncate in the input's quantisation, as the zoo evaluates.")
    ] = False
    score_threshold: Annotated[float, typer.Option(help="Detections score above this.")] = 0.001
    iou_threshold: Annotated[float, typer.Option(help="Suppress neighbours that overlap more.")] = 0.5
    max_detections: Annotated[int, typer.Option(help="Detections per image.")] = 100


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files of xdet convert, source files, or results of xdet detect (.jsonl, .parquet).",
        ),
    ],
    images: Images,
    annotations: Annotations,
    *,
    scoring: Scoring,
    running: Running,
    workers: Workers = None,
    json: Json = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw precision over recall (extra: eval).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep each photograph's result there; go on where it stopped.")
    ] = None,
    force: Force = False,
    describing: Describing,
) -> None:
    """Measure average precision on annotated photographs.

    Further models are compared with the first.
    """
    from xdet.evaluation.evaluate import evaluate as evaluate_models
    from xdet.evaluation.evaluate import evaluated_files
    from xdet.evaluation.report import (
        EVALUATION_SCHEMA,
        evaluation_report,
        evaluation_to_json,
        problem_lines,
        require_plotting,
    )
    from xdet.writing.files import PICTURE_MARK, Output, require_outputs, require_target

    if plot is not None:
        require_plotting()
    outputs = json_outputs(json, EVALUATION_SCHEMA)
    outputs += [] if plot is None else [Output(plot, PICTURE_MARK)]
    inputs = describing.files()
    if resume is not None:
        require_target(resume)
        if resume.exists():
            inputs.append(resume)
        else:
            outputs.append(Output(resume))
    require_outputs(outputs, chain(inputs, evaluated_files(models, images, annotations)), force=force)
    with progress_bar("evaluating") as advance:
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
        _draw(plot, evaluation)
    print_result(evaluation, json, evaluation_to_json, evaluation_report)
    if evaluation.warning is not None:
        print_line(f"xdet: warning: {evaluation.warning}", err=True)
    for line in problem_lines(evaluation.problems):
        print_line(f"xdet: error: {line}", err=True)
    if evaluation.problems:
        raise typer.Exit(3)


def _draw(path: Path, evaluation: Evaluation) -> None:
    from xdet.evaluation.report import model_names, save_precision_plot

    curves = [
        (f"{name} ({result.runtime})", result.score.precision)
        for name, result in zip(model_names(evaluation), evaluation.results, strict=True)
    ]
    iou = evaluation.options.eval_iou or 0.5
    title = f"Protocol {evaluation.options.protocol}, IoU {iou:g}, {evaluation.num_images} images"
    save_precision_plot(path, curves, title=title)


BENCH_EPILOG = """\b
Examples:
  xdet bench person.tflite person.onnx
  xdet bench m.tflite m.onnx --threads 1,2 --images photos --json bench.json
  xdet bench person.onnx --runtimes onnxruntime:cpu,onnxruntime:openvino
  xdet bench *.tflite --targets portable,cpu --threads 1,2
      what each conversion buys, next to LiteRT and OpenVINO
  xdet bench net.tflite --targets portable,cpu --head none --profile
"""


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="ONNX files of xdet convert, or source files; ratios refer to the first."
        ),
    ],
    *,
    runtimes: Runtimes = None,
    threads: ThreadCounts = "1",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of photographs [default: the two that come with xdet].")
    ] = None,
    blocks: Blocks = 5,
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
    json: Json = None,
    force: Force = False,
    describing: Describing,
) -> None:
    """Measure time, throughput and memory of models side by side."""
    from xdet.bench import BenchOptions, run_benchmark
    from xdet.bench.report import BENCHMARK_SCHEMA, benchmark_report, benchmark_to_json
    from xdet.bench.run import SAMPLES
    from xdet.pictures.images import find_images
    from xdet.writing.files import require_outputs, with_sidecars

    inputs = chain(with_sidecars(models), describing.files(), find_images([SAMPLES if images is None else images]))
    require_outputs(json_outputs(json, BENCHMARK_SCHEMA), inputs, force=force)
    options = BenchOptions(
        threads=_read_numbers(threads), blocks=blocks, score_threshold=score_threshold, profile=profile
    )
    if targets is not None:
        wanted: Any = tuple(word.strip() for word in targets.split(","))  # BenchOptions refuses others
        few = FEW_PICTURES if images is None else options.pictures_per_block
        options = replace(options, targets=wanted, memory=False, pictures_per_block=few)
    with progress_bar("measuring") as advance:
        benchmark = run_benchmark(
            models,
            runtimes=runtimes,
            images=images,
            options=options,
            source_options=describing.options(),
            progress=advance,
        )
    print_result(benchmark, json, benchmark_to_json, benchmark_report)


def _read_numbers(text: str) -> tuple[int, ...]:
    """``--threads 1,2`` as numbers."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--threads must be numbers such as 1 or 1,2, got {text!r}")
    return tuple(map(int, words))


CARD_EPILOG = """\b
Examples:
  xdet card m.tflite m.onnx --images photos --annotations coco.json
  xdet card m.tflite m.onnx float.h5 --images photos \\
      --annotations coco.json --notes limits.md
"""


def card(
    source: Annotated[Path, typer.Argument(help="The source model; differences and ratios refer to it.")],
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.onnx...", help="Finished models, and others to compare, such as the float file."),
    ],
    images: Images,
    annotations: Annotations,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.md", help="Where to write it; pictures go beside it.")
    ] = Path("model-card.md"),
    samples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photographs to draw boxes on [default: the first three of --images]."),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.md", help="Hand-written Markdown: its beginning opens the card, its sections close it."
        ),
    ] = None,
    runtimes: Runtimes = None,
    threads: ThreadCounts = "1",
    blocks: Blocks = 5,
    protocol: Annotated[Protocol, typer.Option(help="Of the average precision, as in xdet eval.")] = "coco",
    force: Force = False,
    describing: Describing,
) -> None:
    """Write a model card, filled for this machine.

    It holds network, memory, time, accuracy, pictures and provenance.
    """
    from xdet.bench import BenchOptions
    from xdet.card import CardRequest, make_card

    request = CardRequest(
        source=source,
        models=tuple(models),
        images=images,
        annotations=annotations,
        samples=() if samples is None else (samples,),
        notes="" if notes is None else _read_notes(notes),
        notes_name="" if notes is None else notes.name,
        runtimes=runtimes,
        protocol=protocol,
        bench=BenchOptions(threads=_read_numbers(threads), blocks=blocks),
        source_options=describing.options(),
    )
    inputs = (*describing.files(), *(() if notes is None else (notes,)))
    content = make_card(request, output, _print_stage, inputs=inputs, force=force)
    print_line(f"wrote {output} and {len(content.pictures)} pictures beside it")


def _read_notes(path: Path) -> str:
    from converters.files import read_regular

    try:
        return read_regular(path, LARGEST_NOTES).decode("utf-8")
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(f"cannot read the notes '{path}': {reason(error)}; give a Markdown file in UTF-8") from error


def _print_stage(stage: str) -> None:
    """On a terminal, not in a pipe."""
    if sys.stderr.isatty():
        print_line(f"{stage} ...", err=True)
