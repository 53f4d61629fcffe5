"""What a model card says: inspected, evaluated, timed and drawn by the functions that the commands call, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converters.sources import FINISHED, SOURCES
from xdet.bench import BenchOptions, run_benchmark
from xdet.detection.detector import Detector
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.evaluation.evaluate import evaluate
from xdet.inspection import inspect
from xdet.model.file import read_model_file
from xdet.pictures.images import find_images, read_image
from xdet.pictures.render import draw_detections, picture_paths, save_picture
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, open_runtime, parse_runtimes, runtimes_for
from xdet.writing.text import format_score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from converters.description.statements import SourceOptions
    from xdet.bench import Benchmark
    from xdet.evaluation.protocols import ProtocolName
    from xdet.evaluation.results import Evaluation
    from xdet.inspection import Inspection

SAMPLES = 3


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


@dataclass(frozen=True, slots=True)
class Picture:
    """An annotated photograph: its file, and in words what was found."""

    path: Path
    caption: str


@dataclass(frozen=True, eq=False)
class CardContent:
    """All that a card says."""

    request: CardRequest
    inspections: tuple[Inspection, ...]  # of source and models, in order
    evaluation: Evaluation  # of the same files
    benchmark: Benchmark  # of those of them that the timed runtimes take
    skipped: tuple[str, ...]  # runtimes that could not run a model here, and why
    pictures: tuple[Picture, ...]  # photographs with the boxes of the first model


def gather(request: CardRequest, pictures: Path, report: Callable[[str], object] = lambda _: None) -> CardContent:
    """Inspect, draw, evaluate and measure.

    Args:
        request: what the card is made from.
        pictures: existing folder for annotated photographs.
        report: called with one line before each stage.

    Raises:
        XdetError: as ``inspect``, ``Detector``, ``evaluate`` and ``run_benchmark`` raise.
    """
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


def sample_images(request: CardRequest) -> list[Path]:
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
    images = sample_images(request)
    drawn = []
    with Detector(request.models[0], source_options=source_options) as detector:
        for image, path in zip(images, picture_paths(images, folder), strict=True):
            detections = detector(image)
            save_picture(path, draw_detections(read_image(image, honour_exif=True), detections))
            listed = ", ".join(f"{one.class_name} {format_score(one.score)}" for one in detections)
            drawn.append(Picture(path, f"{image.name}: {listed or 'nothing found'}"))
    return tuple(drawn)
