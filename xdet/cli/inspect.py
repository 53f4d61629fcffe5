"""The commands about a file or this host: check, inspect, describe, selftest, providers, demo."""

from __future__ import annotations

import json as json_text
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xdet.cli import console, options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from converters.description.precedence import Fact
    from xdet.checking.result import LayerComparison
    from xdet.writing.blocks import Items, Table

LONGEST = 44  # of a value in the table
UNAVAILABLE = 3


def check(
    model: Path,
    *,
    source: Path,
    images: list[Path] | None = None,
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
        images DIR|IMAGE: Photographs: a folder or a file; repeatable [default: the two that come with xdet].
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
        xdet check m.onnx --source m.tflite
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
    from xdet.checking.check import planned_images
    from xdet.checking.junit import JUNIT_MARK, check_to_junit
    from xdet.checking.layers import values_path
    from xdet.checking.other_cpus import split_cpus
    from xdet.checking.report import CHECK_SCHEMA, check_report, check_to_json
    from xdet.checking.tolerance import read_tolerance
    from xdet.detection.embedded import PHOTOGRAPHS
    from xdet.model.file import read_model_file
    from xdet.pictures.images import find_images
    from xdet.writing.files import PAGE_MARK, Output, require_outputs, with_sidecars, write_text

    photographs = find_images(images or PHOTOGRAPHS)
    if not images:
        console.print_line("no --images: on the two photographs that come with xdet; your own say more", err=True)
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
        import shlex

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
    from xdet.checking.layers import write_layer_repro

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


def inspect(
    model: Path,
    *,
    layers: bool = False,
    json: options.Json = None,
    force: options.Force = False,
    describing: options.Describing,
) -> None:
    """Tell what a model file holds and costs, without running it.

    Options:
        model: A TFLite, ONNX, H5 or .keras file.
        layers: List every operator: shapes, MACs, bytes, scale and zero-point.

    Examples:
        xdet inspect person_224_int8.tflite
        xdet inspect person.onnx --layers
        xdet inspect person.onnx --json -
    """
    from xdet.inspection import inspect as inspect_file
    from xdet.inspection.report import INSPECTION_SCHEMA, inspection_report, inspection_to_json
    from xdet.writing.files import require_outputs, with_sidecars

    inputs = [*with_sidecars([model]), *describing.files()]
    require_outputs(console.json_outputs(json, INSPECTION_SCHEMA), inputs, force=force)
    inspection = inspect_file(model, layers=layers, source_options=describing.options())
    console.print_result(inspection, json, inspection_to_json, inspection_report)


def describe(
    source: Path, *, output: options.OptionalOutput = None, force: options.Force = False, describing: options.Describing
) -> None:
    r"""Tell what is known of a source, and who says it.

    Where facts are missing it tells what is known all the same, writes nothing, and exits with 3.

    Options:
        source: A source model: TFLite, Keras or ONNX.
        output FILE.json: Write the facts as a sidecar; as <stem>.xdet.json beside the model every command finds them.

    Examples:
        xdet describe person.tflite       what is known of it, and who says so
        xdet describe net.tflite --config net.cfg --classes person \
            --resize letterbox -o net.xdet.json
        xdet describe net.tflite --anchors "0.9,3.3 2.1,5.3" --anchor-unit cell \
            -o net.xdet.json
    """
    from converters.errors import IncompleteError
    from xdet.conversion import describe as describe_model

    source_options, files = describing.options(), describing.files()
    try:
        description = describe_model(source, source_options=source_options, output=output, force=force, inputs=files)
    except IncompleteError as error:
        _print_facts(error.known)
        raise
    _print_facts(description.facts)
    for note in (*description.spec.assumptions, *description.notes):
        console.print_line(f"note: {note}", err=True)
    if output is not None:
        console.print_line(f"wrote {output}")


def _print_facts(facts: Iterable[Fact]) -> None:
    from xdet.writing.blocks import Report, Section, Table

    rows = tuple((name, "" if value is None else _shorten(value), who) for name, value, who in facts)
    console.print_report(Report("xdet describe", (Section("", (Table(("fact", "value", "said by"), rows),)),)))


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else json_text.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def selftest(model: Path, *, running: options.Running, json: options.Json = None, force: options.Force = False) -> None:
    """Does this host compute what the conversion computed?

    The answer is exact, bounded, or broken (exit code 1).

    Options:
        model: An ONNX file made by xdet convert.

    Examples:
        xdet selftest person.onnx
        xdet selftest person.onnx --provider openvino --json -
    """
    from xdet.checking.selftest import SELFTEST_SCHEMA, run_selftest, selftest_report, selftest_to_json
    from xdet.writing.files import require_outputs, with_sidecars

    require_outputs(console.json_outputs(json, SELFTEST_SCHEMA), with_sidecars([model]), force=force)
    result = run_selftest(model, **running.keywords)
    console.print_result(result, json, selftest_to_json, selftest_report)
    if not result.passed:
        raise typer.Exit(1)


def providers(model: Path | None = None) -> None:
    """List the execution providers of ONNX Runtime here.

    Plug-ins and devices are listed, too.

    Options:
        model: An ONNX file: tell which of its nodes each provider takes, and which fall back.

    Examples:
        xdet providers
        xdet providers person.onnx    which provider takes which nodes of it
    """
    from xdet.runtimes.ort_session import available_providers, provider_problems
    from xdet.writing.blocks import Report, Section, Table

    available = available_providers()
    if model is None:
        rows = tuple((each.short, each.name, ", ".join(each.devices)) for each in available)
        shown: Items | Table = Table(("name", "provider", "devices"), rows)
    else:
        shown = _placement(model, [each.short for each in available])
    console.print_report(Report("xdet providers", (Section("", (shown,)),)))
    for problem in provider_problems():
        console.print_line(f"xdet: {problem}", err=True)


def _placement(model: Path, names: list[str]) -> Items:
    from xdet.checking.report import placement_text
    from xdet.checking.runtimes import find_placement
    from xdet.errors import ModelError
    from xdet.model.file import read_model_file
    from xdet.writing.blocks import Items

    file = read_model_file(model)
    if not file.is_finished:
        raise ModelError(f"'{model}' is no ONNX file; convert it with xdet convert")
    return Items(tuple(f"{name}: {placement_text(find_placement(file.data, name))}" for name in names))


def demo(*, output: options.OutputPath = Path("xdet-demo"), force: options.Force = False) -> None:
    """Convert, run and draw: the embedded detector and photographs.

    Options:
        output: Folder to write to.

    Examples:
        xdet demo
        xdet demo --output somewhere/else
    """
    from xdet.detection.embedded import run_demo

    run_demo(output, console.print_line, force=force)
