"""A card's content as Markdown, and on disk with its pictures."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.bench.report import HEADERS, benchmark_rows, machine_text, noise_lines
from xdet.card.content import CardContent, CardRequest, gather, sample_images
from xdet.evaluation.evaluate import evaluated_files
from xdet.evaluation.report import comparison_blocks, metrics_table
from xdet.inspection.report import COLORS, head_lines, rescaling_text, tensor_text
from xdet.pictures.render import picture_paths
from xdet.writing.blocks import Code, Commands, Items, Picture, Pictures, Report, Section, Table, Text, Written
from xdet.writing.files import PICTURE_MARK, Output, make_folder, require_apart, require_outputs, write_text
from xdet.writing.markdown import report_markdown
from xdet.writing.text import format_count, format_kib, format_share, format_size, image_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from converters.spec import ModelDocument
    from xdet.writing.blocks import Block

MEMORY = (
    "Weights Flash: weights and biases as stored. Activations: the most that is alive at once, with a buffer per "
    "tensor in the file's order (plain), and at best, in place and with convolutions fused with pools."
)
TIMED = ("model", "runtime", "threads", "network", "head", "boxes", "ratio", "images/s", "peak memory", "integer")


def card_text(content: CardContent, folder: Path) -> str:
    """The whole card, with a final newline; ``folder`` is where it will lie, for the links to its pictures."""
    opening, closing = split_notes(content.request.notes)
    sections = (
        Section("", (Written(opening),)),
        Section("Network information", (_network_table(content),)),
        Section("Inputs and outputs", (_tensor_table(content),)),
        Section("Memory footprint", (_memory_table(content), Text(MEMORY))),
        Section("Inference time", tuple(_time_blocks(content))),
        Section("Accuracy", tuple(_accuracy_blocks(content))),
        Section("Pictures", tuple(_picture_blocks(content, folder))),
        Section("", (Written(closing),)),
        Section("Provenance", tuple(_provenance_blocks(content))),
        Section("How to reproduce", (Commands(tuple(_commands(content))),)),
    )
    return report_markdown(Report(f"Model card: {content.request.source.stem}", sections))


def split_notes(notes: str) -> tuple[str, str]:
    """Hand-written Markdown in front of its first heading, and from there on."""
    heading = re.search(r"^#{1,6} ", notes, re.MULTILINE)
    position = len(notes) if heading is None else heading.start()
    return notes[:position].strip(), notes[position:].strip()


def _names(content: CardContent) -> list[str]:
    return image_names([str(path) for path in content.request.files])


def _network_table(content: CardContent) -> Table:
    source = content.inspections[0]
    rows = [
        ("source", f"{source.file}, {source.format}, {format_size(source.size_bytes)}"),
        ("producer", source.producer or "not told"),
        ("operators", ", ".join(f"{name} x{count}" for name, count in source.operators.items())),
        ("quantisation", source.quantization or "not told"),
    ]
    if source.totals is not None:
        totals = source.totals
        share = format_share(totals.macs_integer, totals.macs)
        rows += [
            ("parameters", f"{totals.parameters:,}"),
            ("MACs per image", f"{format_count(totals.macs)} ({totals.macs:,}), {share} on integer codes"),
        ]
    spec = next((one.spec for one in content.inspections if one.spec is not None), None)
    if spec is not None:
        image = spec.image
        inside = ", made in the file of a photograph of any size" * image.any_size
        rows += [
            ("image", f"{image.height} x {image.width} {COLORS[image.color]}, {image.resize}{inside}"),
            ("rescaling", rescaling_text(image)),
            *((title.lower(), text) for title, text in head_lines(spec)),
            ("classes", ", ".join(spec.class_names) or "not told"),
        ]
    return Table(("network", ""), tuple(rows))


def _tensor_table(content: CardContent) -> Table:
    rows = (
        (name, direction, Code(tensor.name), tensor_text(tensor))
        for name, found in zip(_names(content), content.inspections, strict=True)
        for direction, tensors in (("in", found.inputs), ("out", found.outputs))
        for tensor in tensors
    )
    return Table(("file", "", "name", "type"), tuple(rows))


def _memory_table(content: CardContent) -> Table:
    rows = []
    for name, found in zip(_names(content), content.inspections, strict=True):
        cells = ["not counted", "", ""]
        if found.totals is not None:
            totals = found.totals
            cells = list(map(format_kib, (totals.weight_bytes, totals.peak_plain_bytes, totals.peak_best_bytes)))
        rows.append((name, *cells, format_size(found.size_bytes)))
    return Table(("file", "Weights Flash", "activations, plain", "activations, best", "file size"), tuple(rows))


def _time_blocks(content: CardContent) -> Iterator[Block]:
    benchmark = content.benchmark
    yield Text(f"On {machine_text(benchmark)}.")
    places = [HEADERS.index(name) for name in TIMED]
    yield Table(TIMED, tuple(tuple(row[i] for i in places) for row in benchmark_rows(benchmark)), keys=3)
    yield Text(
        f"Medians of {benchmark.options.blocks} alternating blocks, one session at a time. boxes = network + head, per "
        "image (a head below zero: noise, or a network that compiles to something slower when alone); ratio: the first "
        "row's boxes time with as many threads, divided by the row's; images/s from JPEG file to boxes; integer: MACs "
        "in integer kernels."
    )
    yield from map(Text, noise_lines(benchmark))
    left_out = (*content.skipped, *benchmark.notes)
    if left_out:
        yield Items(left_out, title="Not measured:")


def _accuracy_blocks(content: CardContent) -> Iterator[Block]:
    evaluation = content.evaluation
    options, limits = evaluation.options, evaluation.options.thresholds
    crowds = f", {evaluation.num_crowds} crowds ignored" if evaluation.num_crowds else ""
    yield Text(
        f"Protocol {options.protocol}: {evaluation.num_images} photographs, {evaluation.num_truths} boxes of "
        f"{', '.join(evaluation.class_names)}{crowds}; score > {limits.score}, suppression at IoU > {limits.iou}, at "
        f"most {limits.max_detections} detections per image. In per cent; figures of other protocols are not "
        "comparable."
    )
    found = metrics_table(evaluation)
    kinds = [inspection.quantization or "not told" for inspection in content.inspections]
    rows = ((name, kind, *row[1:]) for name, kind, row in zip(_names(content), kinds, found.rows, strict=True))
    yield Table(("model", "weights", *found.headers[1:]), tuple(rows), keys=3)
    yield from comparison_blocks(evaluation)


def _picture_blocks(content: CardContent, folder: Path) -> Iterator[Block]:
    yield Text(f"Boxes of {content.request.models[0].name} at its own thresholds.")
    drawn = ((picture.caption, picture.path.relative_to(folder)) for picture in content.pictures)
    yield Pictures(tuple(Picture(caption, caption, link=link) for caption, link in drawn))


def _provenance_blocks(content: CardContent) -> Iterator[Block]:
    evaluation = content.evaluation
    rows = [(name, found.sha256) for name, found in zip(_names(content), content.inspections, strict=True)]
    rows.append((content.request.annotations.name, evaluation.annotations_sha256))
    yield Table(("file", "SHA-256"), tuple((name, Code(digest)) for name, digest in rows))
    yield from _conversion_texts(content)
    versions = ", ".join(f"{name} {version}" for name, version in content.benchmark.machine.versions.items())
    yield Text(f"Versions: {versions}.")
    if evaluation.ignored:
        counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in evaluation.ignored.items())
        yield Text(f"Left out of the evaluation: {counts}.")


def _conversion_texts(content: CardContent) -> Iterator[Text]:
    for name, found in zip(_names(content), content.inspections, strict=True):
        document = found.document
        if document is not None:
            passes = ", ".join(document.passes) or "none"
            how = f"target {document.target}, {document.activations} activations; passes: {passes}"
            source = document.source
            yield Text((f"{name} was converted from {source.name} (", Code(source.sha256), f"): {how}."))
            stated = (("Licence", document.licence), ("Origin", document.origin))
            lines = [f"{what}: {text}".rstrip(".") + "." for what, text in stated if text]
            if lines:
                yield Text(" ".join(lines))


def _commands(content: CardContent) -> Iterator[str]:
    request = content.request
    source, *models = (shlex.quote(path.name) for path in request.files)
    data = f"--images photos --annotations {shlex.quote(request.annotations.name)}"
    files = " ".join([source, *models])
    for document_source, name, options in _conversions(content):
        yield f"xdet convert {document_source} -o {name}{options}"
    timed = " ".join(dict.fromkeys(shlex.quote(Path(one.model).name) for one in content.benchmark.results))
    runtimes = ",".join(dict.fromkeys(one.runtime for one in content.benchmark.results))
    how = f"--runtimes {runtimes} --threads {','.join(map(str, request.bench.threads))} --blocks {request.bench.blocks}"
    yield f"xdet inspect {source} --layers"
    yield f"xdet eval {files} {data} --protocol {request.protocol}"
    yield f"xdet bench {timed} --images photos {how}"
    yield f"xdet card {files} {data}{_own_material(request)} --protocol {request.protocol} {how}"


def _own_material(request: CardRequest) -> str:
    """The options that name pictures to draw on, and notes by hand; folders are not told, only their names."""
    options = f" --samples {shlex.quote(request.samples[0].name)}" if request.samples else ""
    return options + (f" --notes {shlex.quote(request.notes_name)}" if request.notes else "")


def _conversions(content: CardContent) -> Iterator[tuple[str, str, str]]:
    """Source, name and options of every finished model."""
    weights = {inspection.sha256: inspection.quantization for inspection in content.inspections}
    for path, inspection in zip(content.request.files, content.inspections, strict=True):
        document = inspection.document
        if document is not None:
            of_float = weights.get(document.source.sha256) == "float32"
            options = "".join(f" {option}" for option in _conversion_options(document, of_float=of_float))
            yield shlex.quote(document.source.name), shlex.quote(path.name), options


def _conversion_options(document: ModelDocument, *, of_float: bool) -> Iterator[str]:
    if document.target != "portable":
        yield f"--target {document.target}"
    if document.activations == "int8" and not document.symmetric:
        yield "--activations int8"
    if document.dequantize:
        yield "--dequantize"
    if document.float16:
        yield "--float16"
    if document.symmetric or (of_float and document.quantization.startswith("int8 ")):
        yield f"--quantize {document.quantization.split()[1]}{' --symmetric' * document.symmetric} --calibration DIR"
    if document.spec.image.any_size:
        yield "--any-size"
    if document.leaky_relu != "litert":
        yield f"--leaky-relu {document.leaky_relu}"
    if document.arithmetic != "litert":
        yield f"--arithmetic {document.arithmetic}"
    if document.freeze_thresholds:
        yield "--freeze-thresholds"


def make_card(
    request: CardRequest,
    output: Path,
    report: Callable[[str], object] = lambda _: None,
    *,
    inputs: Sequence[Path] = (),
    force: bool = False,
) -> CardContent:
    """Measure and write a model card; its pictures go to ``<stem>-pictures`` beside it.

    Args:
        request: what the card is made from.
        output: the Markdown file.
        report: called with one line before each stage.
        inputs: further files that are read and may not be replaced, such as the notes.
        force: replace an existing card, and pictures that no card made.

    Returns:
        All that the card says.

    Raises:
        UsageError: a file exists already and ``force`` is not set, or is an input.
        OutputError: a file cannot be written.
        XdetError: a model cannot be read, run, evaluated or timed.
    """
    pictures = output.parent / f"{output.stem}-pictures"
    samples = sample_images(request)
    drawn = [Output(path, PICTURE_MARK, in_new_folder=True) for path in picture_paths(samples, pictures)]
    read = chain(inputs, samples, evaluated_files(request.files, request.images, request.annotations))
    require_outputs([Output(output), *drawn], read, force=force)
    require_apart(pictures, samples)
    make_folder(pictures)
    content = gather(request, pictures, report)
    write_text(output, card_text(content, output.parent))
    return content
