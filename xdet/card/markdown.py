"""A card's content as Markdown: network, inputs and outputs, memory, time, accuracy, pictures, provenance, commands.

A card and its pictures, on disk.
"""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from xdet.bench.report import HEADERS, benchmark_rows, machine_text, noise_lines
from xdet.card.content import CardContent, CardRequest, gather, sample_images
from xdet.evaluation.evaluate import evaluated_files
from xdet.evaluation.report import difference_text
from xdet.inspection.report import COLORS, head_lines
from xdet.pictures.names import picture_paths
from xdet.writing.files import PICTURE_MARK, Output, make_folder, require_apart, require_outputs, write_text
from xdet.writing.markdown import code, escaped, table
from xdet.writing.text import format_count, format_kib, format_share, format_size, image_names, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdet.inspection import Inspection, TensorSummary

TIMED = (
    "model",
    "runtime",
    "threads",
    "network",
    "head",
    "boxes",
    "ratio",
    "images/s",
    "peak memory",
    "integer",
)


def card_text(content: CardContent, folder: Path) -> str:
    """The whole card, with a final newline; ``folder`` is where it will lie, for the links to its pictures."""
    opening, closing = split_notes(content.request.notes)
    parts = [
        f"# Model card: {escaped(content.request.source.stem)}",
        opening,
        *_section("Network information", _network_lines(content)),
        *_section("Inputs and outputs", _tensor_lines(content)),
        *_section("Memory footprint", _memory_lines(content)),
        *_section("Inference time", _time_lines(content)),
        *_section("Accuracy", _accuracy_lines(content)),
        *_section("Pictures", _picture_lines(content, folder)),
        closing,
        *_section("Provenance", _provenance_lines(content)),
        *_section("How to reproduce", _command_lines(content)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def split_notes(notes: str) -> tuple[str, str]:
    """Hand-written Markdown in front of its first heading, and from there on."""
    heading = re.search(r"^#{1,6} ", notes, re.MULTILINE)
    position = len(notes) if heading is None else heading.start()
    return notes[:position].strip(), notes[position:].strip()


def _section(title: str, lines: Iterator[str]) -> tuple[str, str]:
    return f"## {title}", "\n\n".join(lines)


def _names(content: CardContent) -> list[str]:
    return image_names([str(path) for path in content.request.files])


def _network_lines(content: CardContent) -> Iterator[str]:
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
    spec = next((found.spec for found in content.inspections if found.spec is not None), None)
    if spec is not None:
        rescaling = spec.image.rescaling
        rows += [
            (
                "image",
                f"{spec.image.height} x {spec.image.width} {COLORS[spec.image.color]}, {spec.image.resize}",
            ),
            ("rescaling", f"pixel x {rescaling.scale:.9g} + {rescaling.offset:.9g}"),
            *((title.lower(), text) for title, text in head_lines(spec)),
            ("classes", ", ".join(spec.class_names) or "not told"),
        ]
    yield table(("network", ""), rows)


def _tensor_lines(content: CardContent) -> Iterator[str]:
    rows = [
        (name, direction, code(tensor.name), _tensor_text(tensor))
        for name, found in zip(_names(content), content.inspections, strict=True)
        for direction, tensors in (("in", found.inputs), ("out", found.outputs))
        for tensor in tensors
    ]
    yield table(("file", "", "name", "type"), rows)


def _tensor_text(tensor: TensorSummary) -> str:
    shape = f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
    return (
        shape
        if tensor.scale is None
        else f"{shape}, scale {tensor.scale:.9g}, zero-point {tensor.zero_point}"
    )


def _memory_lines(content: CardContent) -> Iterator[str]:
    rows = [
        (name, *_memory_cells(found), format_size(found.size_bytes))
        for name, found in zip(_names(content), content.inspections, strict=True)
    ]
    yield table(("file", "Weights Flash", "activations, plain", "activations, best", "file size"), rows)
    yield (
        "Weights Flash: weights and biases as stored. Activations: the most that is alive at once, with a buffer per tensor in "
        "the file's order (plain), and at best, in place and with convolutions fused with pools."
    )


def _memory_cells(found: Inspection) -> tuple[str, str, str]:
    if found.totals is None:
        return "not counted", "", ""
    totals = found.totals
    sizes = (totals.weight_bytes, totals.peak_plain_bytes, totals.peak_best_bytes)
    first, second, third = map(format_kib, sizes)
    return first, second, third


def _time_lines(content: CardContent) -> Iterator[str]:
    benchmark = content.benchmark
    yield f"On {escaped(machine_text(benchmark))}."
    places = [HEADERS.index(name) for name in TIMED]
    rows = [[row[place] for place in places] for row in benchmark_rows(benchmark)]
    yield table(TIMED, rows)
    yield (
        f"Medians of {benchmark.options.blocks} alternating blocks, one session at a time. boxes = network + head, per image "
        f"(a head below zero: noise, or a network that compiles to something slower when alone); "
        f"ratio: the first row's boxes time with as many threads, divided by the row's; images/s from JPEG file to boxes; "
        f"integer: MACs in integer kernels."
    )
    yield from noise_lines(benchmark)
    left_out = [f"- {escaped(line)}" for line in (*content.skipped, *benchmark.notes)]
    if left_out:
        yield "\n".join(["Not measured:", "", *left_out])


def _accuracy_lines(content: CardContent) -> Iterator[str]:
    evaluation = content.evaluation
    options, limits = evaluation.options, evaluation.options.thresholds
    crowds = f", {evaluation.num_crowds} crowds ignored" if evaluation.num_crowds else ""
    yield (
        f"Protocol {options.protocol}: {evaluation.num_images} photographs, {evaluation.num_truths} boxes of "
        f"{escaped(', '.join(evaluation.class_names))}{crowds}; score > {limits.score}, suppression at IoU > {limits.iou}, at "
        f"most {limits.max_detections} detections per image. In per cent; figures of other protocols are not comparable."
    )
    metrics = [name for name in evaluation.results[0].score.metrics if "_" not in name]
    kinds = [found.quantization or "not told" for found in content.inspections]
    rows = [
        (name, kind, result.runtime, *(_percent(result.score.metrics[metric]) for metric in metrics))
        for name, kind, result in zip(_names(content), kinds, evaluation.results, strict=True)
    ]
    yield table(("model", "weights", "runtime", *metrics), rows)
    if evaluation.comparisons:
        names = _names(content)
        lines = [
            f"- {escaped(names[one.index])}: {one.metric} {difference_text(one.difference)}"
            for one in evaluation.comparisons
        ]
        yield "\n".join(
            [f"Against {escaped(names[0])}, with the 95 % interval over drawn photographs:", "", *lines]
        )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f}"


def _picture_lines(content: CardContent, folder: Path) -> Iterator[str]:
    yield f"Boxes of {escaped(content.request.models[0].name)} at its own thresholds."
    for picture in content.pictures:
        link = picture.path.relative_to(folder).as_posix()
        yield f"![{escaped(picture.caption)}]({quote(link)})\n\n{escaped(picture.caption)}"


def _provenance_lines(content: CardContent) -> Iterator[str]:
    evaluation = content.evaluation
    rows = [(name, found.sha256) for name, found in zip(_names(content), content.inspections, strict=True)]
    rows.append((content.request.annotations.name, evaluation.annotations_sha256))
    yield table(("file", "SHA-256"), [(name, code(digest)) for name, digest in rows])
    yield from _conversion_lines(content)
    versions = ", ".join(f"{name} {version}" for name, version in content.benchmark.machine.versions.items())
    yield f"Versions: {escaped(versions)}."
    if evaluation.ignored:
        counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in evaluation.ignored.items())
        yield f"Left out of the evaluation: {counts}."


def _conversion_lines(content: CardContent) -> Iterator[str]:
    for name, found in zip(_names(content), content.inspections, strict=True):
        document = found.document
        if document is not None:
            passes = escaped(", ".join(document.passes) or "none")
            source = f"{escaped(document.source.name)} ({code(document.source.sha256)})"
            yield (
                f"{escaped(name)} was converted from {source}: target {document.target}, "
                f"{document.activations} activations; passes: {passes}."
            )
            stated = [
                f"{what}: {escaped(text)}"
                for what, text in (("Licence", document.licence), ("Origin", document.origin))
                if text
            ]
            if stated:
                yield " ".join(f"{line.rstrip('.')}." for line in stated)


def _command_lines(content: CardContent) -> Iterator[str]:
    request = content.request
    source, *models = (shlex.quote(path.name) for path in request.files)
    data = f"--images photos --annotations {shlex.quote(request.annotations.name)}"
    files = " ".join([source, *models])
    converted = [
        f"xdet convert {document_source} -o {name}{options}"
        for document_source, name, options in _conversions(content)
    ]
    timed = " ".join(dict.fromkeys(shlex.quote(Path(one.model).name) for one in content.benchmark.results))
    runtimes = ",".join(dict.fromkeys(one.runtime for one in content.benchmark.results))
    how = f"--runtimes {runtimes} --threads {','.join(map(str, request.bench.threads))} --blocks {request.bench.blocks}"
    commands = [
        *converted,
        f"xdet inspect {source} --layers",
        f"xdet eval {files} {data} --protocol {request.protocol}",
        f"xdet bench {timed} --images photos {how}",
        f"xdet card {files} {data}{_own_material(request)} --protocol {request.protocol} {how}",
    ]
    yield "\n".join(["```sh", *map(printable, commands), "```"])


def _own_material(request: CardRequest) -> str:
    """The options that name pictures to draw on, and notes by hand; folders are not told, only their names."""
    options = f" --samples {shlex.quote(request.samples[0].name)}" if request.samples else ""
    return options + (f" --notes {shlex.quote(request.notes_name)}" if request.notes else "")


def _conversions(content: CardContent) -> Iterator[tuple[str, str, str]]:
    """Source, name and options of every finished model."""
    for path, found in zip(content.request.files, content.inspections, strict=True):
        document = found.document
        if document is not None:
            options = "" if document.target == "portable" else f" --target {document.target}"
            options += "" if document.activations != "int8" else " --activations int8"
            options += "" if document.leaky_relu == "litert" else f" --leaky-relu {document.leaky_relu}"
            options += "" if document.arithmetic == "litert" else f" --arithmetic {document.arithmetic}"
            options += " --freeze-thresholds" if document.freeze_thresholds else ""
            yield shlex.quote(document.source.name), shlex.quote(path.name), options


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
