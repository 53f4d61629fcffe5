"""The commands about a file or this host: ``inspect``, ``describe``, ``selftest``, ``providers``, ``demo``."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xdet.cli import console, options
from xdet.writing.blocks import Items, Report, Section, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 44  # of a value in the table


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
        source: A source model: TFLite or Keras.
        output FILE.json: Write the facts as a sidecar; as <stem>.xdet.json beside the model every command finds them.

    Examples:
        xdet describe person.tflite       what is known of it, and who says so
        xdet describe net.tflite --config net.cfg --classes person \
            --resize letterbox -o net.xdet.json
        xdet describe net.tflite --anchors "0.9,3.3 2.1,5.3" --anchor-unit cell \
            -o net.xdet.json
    """
    from converters.description.sidecar import sidecar_data
    from converters.errors import IncompleteError
    from xdet.conversion import describe as describe_model

    stated, files = describing.options(), describing.files()
    try:
        description = describe_model(source, source_options=stated, output=output, force=force, inputs=files)
    except IncompleteError as error:
        _print_facts((name, "" if value is None else _shorten(value), who) for name, value, who in error.known)
        raise
    data = sidecar_data(description, Path() if output is None else output.parent)
    _print_facts((name, _shorten(value), description.stated_by.get(name, "")) for name, value in data.items())
    for note in (*description.spec.assumptions, *description.notes):
        console.print_line(f"note: {note}", err=True)
    if output is not None:
        console.print_line(f"wrote {output}")


def _print_facts(rows: Iterable[tuple[str, str, str]]) -> None:
    console.print_report(Report("xdet describe", (Section("", (Table(("fact", "value", "said by"), tuple(rows)),)),)))


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
    from xdet.checking.placement import find_placement
    from xdet.checking.report import placement_text
    from xdet.errors import ModelError
    from xdet.model.file import read_model_file

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
    from xdet.detection.demo import run_demo

    run_demo(output, console.print_line, force=force)
