"""A model card in Markdown, in the layout that engineers know from the ST model zoo, filled for the hardware at hand.

All it says is inspected, evaluated, timed and drawn by the functions that the commands call, too.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import counted
from converters.files import FINISHED
from converters.sources import SOURCES
from xdet.bench import BenchOptions, run_benchmark
from xdet.bench.report import HEADERS, benchmark_rows, machine_text, noise_lines
from xdet.detection.detector import Detector
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.evaluation.evaluate import evaluate, evaluated_files
from xdet.evaluation.report import comparison_blocks, crowds_words, metrics_table
from xdet.inspection import inspect
from xdet.inspection.report import COLORS, head_lines, rescaling_text, tensor_text
from xdet.model.file import read_model_file
from xdet.pictures.images import find_images, read_image
from xdet.pictures.render import draw_detections, picture_paths, save_picture
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, open_runtime, parse_runtimes, runtimes_for
from xdet.writing.blocks import Code, Commands, Items, Picture, Pictures, Report, Section, Table, Text, Written
from xdet.writing.files import PICTURE_MARK, Output, make_folder, require_apart, require_outputs, write_text
from xdet.writing.markdown import report_markdown
from xdet.writing.text import format_count, format_kib, format_score, format_share, format_size, image_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from converters.description.statements import SourceOptions
    from converters.spec import ModelDocument
    from xdet.bench import Benchmark
    from xdet.evaluation import ProtocolName
    from xdet.evaluation.evaluate import Evaluation
    from xdet.inspection import Inspection
    from xdet.writing.blocks import Block

SAMPLES = 3
MEMORY = (
    "Weights Flash: weights and biases as stored. Activations: the most that is alive at once, with a buffer per "
    "tensor in the file's order (plain), and at best, in place and with convolutions fused with pools."
)
TIMED = ("model", "runtime", "threads", "network", "head", "boxes", "ratio", "images/s", "peak memory", "integer")


@dataclass(frozen=True, slots=True)
class CardRequest:
    """What a card is made from.

    Attributes:
        source: the source model; ratios and differences refer to it.
        models: finished models, and others worth comparing (the float network as an H5 file, say).
        images: folder of the annotated photographs.
        annotations: their boxes, a COCO json.
        samples: photographs to draw boxes on, files or folders; empty takes the first ``SAMPLES`` of ``images``.
        notes: Markdown by hand: what stands before its first heading opens the card, the rest closes it.
        notes_name: name of the file that they were read from, for the command that repeats the card.
        runtimes: such as ``"litert:xnnpack,onnxruntime:cpu"``; None is every one that works here.
        protocol: of the average precision.
        bench: threads, blocks and the rest.
        source_options: what the files and sidecars of sources do not say.
    """

    source: Path
    models: tuple[Path, ...]
    images: Path
    annotations: Path
    samples: tuple[Path, ...] = ()
    notes: str = ""
    notes_name: str = "notes.md"
    runtimes: str | None = None
    protocol: ProtocolName = "coco"
    bench: BenchOptions = field(default_factory=BenchOptions)
    source_options: SourceOptions | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("a card needs the source and at least one finished model: xdet card SOURCE MODEL.onnx")

    @property
    def files(self) -> tuple[Path, ...]:
        """Source and models."""
        return (self.source, *self.models)


@dataclass(frozen=True, eq=False)
class CardContent:
    """All that a card says."""

    request: CardRequest
    inspections: tuple[Inspection, ...]  # of source and models, in order
    evaluation: Evaluation  # of the same files
    benchmark: Benchmark  # of those of them that the timed runtimes take
    skipped: tuple[str, ...]  # runtimes that could not run a model here, and why
    pictures: tuple[Picture, ...]  # photographs with the boxes of the first model; each links to its file


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
    samples = _sample_images(request)
    drawn = [Output(path, PICTURE_MARK, in_new_folder=True) for path in picture_paths(samples, pictures)]
    read = chain(inputs, samples, evaluated_files(request.files, request.images, request.annotations))
    require_outputs([Output(output), *drawn], read, force=force)
    require_apart(pictures, samples)
    make_folder(pictures)
    content = _gather(request, pictures, report)
    write_text(output, card_text(content, output.parent))
    return content


def _gather(request: CardRequest, pictures: Path, report: Callable[[str], object]) -> CardContent:
    """Inspect, draw into the folder ``pictures``, evaluate and measure."""
    formats = {path: str(read_model_file(path).format) for path in request.files}
    options = {path: None if kind == FINISHED else request.source_options for path, kind in formats.items()}
    report("inspecting")
    inspections = tuple(
        # a file that is loaded for its costs is loaded by evaluating, too
        inspect(path, layers=formats[path] in SOURCES and SOURCES[formats[path]].loads, source_options=options[path])
        for path in request.files
    )
    runtimes, skipped = _usable_runtimes(request, formats)
    report("drawing")
    drawn = _draw(request, pictures, options[request.models[0]])
    report("evaluating")
    evaluation = evaluate(
        request.files,
        request.images,
        request.annotations,
        protocol=request.protocol,
        source_options=request.source_options,
    )
    report("measuring")
    taken = {kind for choice in parse_runtimes(runtimes) for kind in RUNTIMES[str(choice.runtime)].formats}
    timed = [path for path in request.files if formats[path] in taken]
    benchmark = run_benchmark(
        timed,
        runtimes=runtimes,
        images=request.images,
        options=request.bench,
        source_options=next((options[path] for path in timed if options[path] is not None), None),
    )
    return CardContent(request, inspections, evaluation, benchmark, skipped, drawn)


def _sample_images(request: CardRequest) -> list[Path]:
    """The photographs to draw boxes on."""
    return find_images(list(request.samples)) if request.samples else find_images([request.images])[:SAMPLES]


def _usable_runtimes(request: CardRequest, formats: Mapping[Path, str]) -> tuple[str, tuple[str, ...]]:
    """The runtimes to time, as ``--runtimes`` takes them, and a sentence for each that cannot run one of the models.

    Where none are named: those of products, without kernels that take minutes per picture.
    """
    if request.runtimes is not None:
        parse_runtimes(request.runtimes)
        return request.runtimes, ()
    usable: dict[str, None] = {}
    refusals = []
    for path in request.files:
        for name in runtimes_for(formats[path]):
            kind, _, provider = name.partition(":")
            if not RUNTIMES[kind].deployed or provider in RUNTIMES[kind].slow:
                continue
            choices = RuntimeChoices(kind, provider or None, threads=1, source_options=request.source_options)
            try:
                open_runtime(path, choices).close()
            except (ModelError, RuntimeUnavailableError) as error:
                refusals.append((name, error))
            else:
                usable[name] = None
    refused = {name for name, _ in refusals}  # one that takes only some of the files is left out
    return ",".join(name for name in usable if name not in refused), tuple(f"{n}: {error}" for n, error in refusals)


def _draw(request: CardRequest, folder: Path, source_options: SourceOptions | None) -> tuple[Picture, ...]:
    images = _sample_images(request)
    drawn = []
    with Detector(request.models[0], source_options=source_options) as detector:
        for image, path in zip(images, picture_paths(images, folder), strict=True):
            detections = detector(image)
            save_picture(path, draw_detections(read_image(image, honour_exif=True), detections))
            listed = ", ".join(f"{one.class_name} {format_score(one.score)}" for one in detections)
            caption = f"{image.name}: {listed or 'nothing found'}"
            drawn.append(Picture(caption, caption, link=path))
    return tuple(drawn)


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


def _inspections(content: CardContent) -> list[tuple[str, Inspection]]:
    """With the names of their files."""
    return list(zip(image_names(list(map(str, content.request.files))), content.inspections, strict=True))


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
        for name, inspection in _inspections(content)
        for direction, tensors in (("in", inspection.inputs), ("out", inspection.outputs))
        for tensor in tensors
    )
    return Table(("file", "", "name", "type"), tuple(rows))


def _memory_table(content: CardContent) -> Table:
    rows = []
    for name, inspection in _inspections(content):
        cells, totals = ["not counted", "", ""], inspection.totals
        if totals is not None:
            cells = list(map(format_kib, (totals.weight_bytes, totals.peak_plain_bytes, totals.peak_best_bytes)))
        rows.append((name, *cells, format_size(inspection.size_bytes)))
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
    photographs = counted(evaluation.num_images, "photograph", "photographs")
    truths = counted(evaluation.num_truths, "box", "boxes")
    yield Text(
        f"Protocol {options.protocol}: {photographs}, {truths} of {', '.join(evaluation.class_names)}"
        f"{crowds_words(evaluation)}; score > {limits.score}, suppression at IoU > {limits.iou}, at most "
        f"{counted(limits.max_detections, 'detection', 'detections')} per image. In per cent; figures of other "
        "protocols are not comparable."
    )
    measured = metrics_table(evaluation)
    rows = (
        (name, inspection.quantization or "not told", *row[1:])
        for (name, inspection), row in zip(_inspections(content), measured.rows, strict=True)
    )
    yield Table(("model", "weights", *measured.headers[1:]), tuple(rows), keys=3)
    yield from comparison_blocks(evaluation)


def _picture_blocks(content: CardContent, folder: Path) -> Iterator[Block]:
    yield Text(f"Boxes of {content.request.models[0].name} at its own thresholds.")
    yield Pictures(tuple(replace(one, link=one.link and one.link.relative_to(folder)) for one in content.pictures))


def _provenance_blocks(content: CardContent) -> Iterator[Block]:
    evaluation = content.evaluation
    rows = [(name, Code(inspection.sha256)) for name, inspection in _inspections(content)]
    rows.append((content.request.annotations.name, Code(evaluation.annotations_sha256)))
    yield Table(("file", "SHA-256"), tuple(rows))
    yield from _conversion_texts(content)
    versions = ", ".join(f"{name} {version}" for name, version in content.benchmark.machine.versions.items())
    yield Text(f"Versions: {versions}.")
    if evaluation.ignored:
        counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in evaluation.ignored.items())
        yield Text(f"Left out of the evaluation: {counts}.")


def _conversion_texts(content: CardContent) -> Iterator[Text]:
    for name, inspection in _inspections(content):
        document = inspection.document
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
    weights = {inspection.sha256: inspection.quantization for inspection in content.inspections}
    for path, inspection in zip(request.files, content.inspections, strict=True):
        document = inspection.document
        if document is not None:
            of_float = weights.get(document.source.sha256) == "float32"
            options = "".join(f" {option}" for option in _conversion_options(document, of_float=of_float))
            yield f"xdet convert {shlex.quote(document.source.name)} -o {shlex.quote(path.name)}{options}"
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
