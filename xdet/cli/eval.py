"""``xdet eval``."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xdet.cli.describing import Said, describes_source
from xdet.cli.options import (
    Device,
    Force,
    Provider,
    ProviderOption,
    RuntimeName,
    counted_progress_bar,
    json_outputs,
    print_line,
    print_report,
    read_provider_options,
    write_json,
)

if TYPE_CHECKING:
    from xdet.evaluation.results import Evaluation

EPILOG = """\b
Examples:
  xdet eval person.onnx --images photos --annotations annotations.json
  xdet eval float.onnx int8.onnx int8.tflite --images photos --annotations annotations.json --plot curves.png
  xdet eval person.tflite --images photos --annotations annotations.json --protocol zoo-4 --json -
  xdet eval found.parquet --images photos --annotations annotations.json   (detected with --score-threshold 0.001)
  xdet eval person.tflite --images photos --annotations annotations.json --protocol zoo-3 --eval-iou 0.4
"""


@describes_source
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX files of xdet convert, source files, or results of xdet detect (.jsonl, .parquet).",
        ),
    ],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the photographs.")],
    annotations: Annotated[Path, typer.Option(metavar="COCO.json", help="Their boxes, in COCO format.")],
    *,
    protocol: Annotated[
        Literal["coco", "zoo-3", "zoo-4"],
        typer.Option(help="coco: as pycocotools; zoo-3, zoo-4: as the ST model zoo, by services version."),
    ] = "coco",
    crowd: Annotated[
        Literal["ignore", "drop", "keep"] | None,
        typer.Option(help="Crowd boxes [default: ignore for coco, keep for zoo-3 and zoo-4]."),
    ] = None,
    max_gt: Annotated[int | None, typer.Option(metavar="N", help="Leave out images with more ground truths.")] = None,
    eval_iou: Annotated[
        float | None,
        typer.Option(metavar="F", help="IoU from which on a detection is a hit, for zoo-3 and zoo-4 [default: 0.5]."),
    ] = None,
    truncate_input: Annotated[
        bool, typer.Option("--truncate-input", help="Truncate in the input's quantisation, as the zoo evaluates.")
    ] = False,
    score_threshold: Annotated[float, typer.Option(help="Detections score above this.")] = 0.001,
    iou_threshold: Annotated[float, typer.Option(help="Suppress neighbours that overlap more.")] = 0.5,
    max_detections: Annotated[int, typer.Option(help="Detections per image.")] = 100,
    runtime: RuntimeName = None,
    provider: Provider = None,
    device: Device = None,
    provider_option: ProviderOption = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads inside an operator [default: processors / workers].")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Photographs worked on at the same time [default: one per processor, at most 8]."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw precision over recall (extra: eval).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep each photograph's result there; go on where it stopped.")
    ] = None,
    force: Force = False,
    source_options: Said,
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
    inputs = []
    if resume is not None:
        require_target(resume)
        if resume.exists():
            inputs.append(resume)
        else:
            outputs.append(Output(resume))
    require_outputs(
        outputs, chain(inputs, source_options.files(), evaluated_files(models, images, annotations)), force=force
    )
    with counted_progress_bar("evaluating") as advance:
        evaluation = evaluate_models(
            models,
            images,
            annotations,
            protocol=protocol,
            crowd=crowd,
            max_gt=max_gt,
            eval_iou=eval_iou,
            truncate_input=truncate_input,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            runtime=runtime,
            provider=provider,
            device=device,
            provider_options=read_provider_options(provider_option),
            threads=threads,
            workers=workers,
            resume=resume,
            source_options=source_options.options(),
            progress=advance,
        )
    if json is not None:
        write_json(json, evaluation_to_json(evaluation))
    if plot is not None:
        _draw(plot, evaluation)
    if json != Path("-"):
        print_report(evaluation_report(evaluation))
    if evaluation.warning is not None:
        print_line(f"xdet: warning: {evaluation.warning}", err=True)
    for line in problem_lines(evaluation.problems):
        print_line(f"xdet: error: {line}", err=True)
    if evaluation.problems:
        raise typer.Exit(3)


def _draw(path: Path, evaluation: Evaluation) -> None:
    from xdet.evaluation.report import model_names, save_precision_plot

    labels = [
        f"{name} ({result.runtime})" for name, result in zip(model_names(evaluation), evaluation.results, strict=True)
    ]
    curves = [result.score.precision for result in evaluation.results]
    iou = evaluation.options.eval_iou or 0.5
    title = f"Protocol {evaluation.options.protocol}, IoU {iou:g}, {evaluation.num_images} images"
    save_precision_plot(path, list(zip(labels, curves, strict=True)), title=title)
