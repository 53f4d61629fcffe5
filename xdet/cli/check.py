"""``xdet check``."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING

import typer

from xdet.cli import console, options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.layer_records import LayerComparison

UNAVAILABLE = 3


def check(
    model: Path,
    *,
    source: Path,
    images: list[Path],
    runtimes: str | None = None,
    threads: options.Threads = None,
    device: options.Device = None,
    provider_option: options.ProviderOption = None,
    layers: bool = False,
    repro: Path | None = None,
    cpus: str | None = None,
    report: Path | None = None,
    junit: Path | None = None,
    tolerance: str | None = None,
    json: options.Json = None,
    force: options.Force = False,
    describing: options.Describing,
) -> None:
    r"""Prove that a model is its source, on every runtime at hand.

    The exit code is 1 where it is not.

    Options:
        model MODEL.onnx: A file of xdet convert.
        source SRC: The file it was made of.
        images DIR|IMAGE: Photographs: a folder or a file; repeatable.
        runtimes LIST: Names with commas between them [default: onnxruntime:cpu, openvino if installed, all of the
            source's].
        layers: Compare every tensor of the source with its twin on two photographs, too.
        repro FILE.onnx: Write the first layer at fault as a model, its values beside it; implies --layers.
        cpus LIST: Repeat it on emulated processors, such as Haswell,Nehalem,cortex-a72 (Linux: apt-get install
            qemu-user).
        report FILE.html: Write it as one page with charts and pictures.
        junit FILE.xml: Write it as JUnit XML, for GitLab, Jenkins, GitHub.
        tolerance LIST: Accept deviations, such as head=1,box=0.5,score=0.01 (LSB, pixels, scores) [default: none].

    Examples:
        xdet check m.onnx --source m.tflite --images photos
        xdet check m.onnx --source m.tflite --images photos \
            --runtimes onnxruntime:cpu,openvino:cpu --json check.json
        xdet check m.onnx --source m.tflite --images photos --layers --report c.html
        xdet check m.onnx --source m.tflite --images photos \
            --cpus Haswell,Nehalem,cortex-a72 --report check.html
        xdet check m.onnx --source m.tflite --images photos --junit check.xml \
            --tolerance head=1,box=0.5,score=0.01
        xdet check m.onnx --source m.tflite --images photos \
            --runtimes onnxruntime:cpu,onnx-reference,onnxruntime-web
        xdet check m.onnx --source m.tflite --images photos \
            --runtimes onnxruntime:cuda --provider-option device_id=1
    """
    from xdet.checking.check import check as check_model
    from xdet.checking.emulated import split_cpus
    from xdet.checking.junit import JUNIT_MARK, check_to_junit
    from xdet.checking.pair import planned_images
    from xdet.checking.report import CHECK_SCHEMA, check_report, check_to_json
    from xdet.checking.repro import values_path
    from xdet.checking.tolerance import read_tolerance
    from xdet.model.file import read_model_file
    from xdet.pictures.images import find_images
    from xdet.writing.files import PAGE_MARK, Output, require_outputs, with_sidecars, write_text

    photographs = find_images(images)
    outputs = console.json_outputs(json, CHECK_SCHEMA)
    outputs += [] if report is None else [Output(report, PAGE_MARK)]
    outputs += [] if junit is None else [Output(junit, JUNIT_MARK)]
    accepted = None if tolerance is None else read_tolerance(tolerance)
    outputs += [] if repro is None else [Output(repro), Output(values_path(repro))]
    inputs = [*with_sidecars([model, source]), *photographs, *describing.files()]
    require_outputs(outputs, inputs, force=force)
    others = () if cpus is None else split_cpus(cpus)
    planned = planned_images(runtimes, read_model_file(source).format, len(photographs), others)
    with console.progress_bar("checking", planned) as advance:
        result = check_model(
            model,
            source,
            photographs,
            runtimes=runtimes,
            threads=threads,
            source_options=describing.options(),
            layers=layers or repro is not None,
            cpus=others,
            tolerance=accepted,
            provider_options=options.read_provider_options(provider_option),
            device=device,
            progress=lambda _, n: advance(n),
        )
    if junit is not None:
        write_text(junit, check_to_junit(result))
    if report is not None:
        from xdet.bench.machine import describe_machine
        from xdet.checking.page import Surroundings, check_to_html

        where = Surroundings(describe_machine(), threads, shlex.join(["xdet", *sys.argv[1:]]))
        write_text(report, check_to_html(result, photographs, where))
    console.print_result(result, json, check_to_json, partial(check_report, repro=repro is not None))
    if repro is not None and result.layers is not None:
        _write_repro(repro, result.layers, model, source, photographs)
    if not result.passed:
        raise typer.Exit(1)
    if not result.complete:
        raise typer.Exit(UNAVAILABLE)


def _write_repro(target: Path, layers: LayerComparison, model: Path, source: Path, photographs: Sequence[Path]) -> None:
    """The first layer at fault, and what was written, on stderr."""
    from xdet.checking.blame import IMAGES
    from xdet.checking.repro import write_layer_repro

    if layers.first_fault is None:
        console.print_line(f"no layer is at fault: '{target}' is not written", err=True)
        return
    written = write_layer_repro(
        target, layers.first_fault, model=model, source=source, photographs=photographs[:IMAGES]
    )
    console.print_line(
        f"'{written.model}' and '{written.values}' hold {layers.first_fault.tensor!r}: "
        f"{written.differing:,} of {written.compared:,} values differ from the source's",
        err=True,
    )
