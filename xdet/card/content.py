"""What a model card says: inspected, evaluated, timed and drawn by the functions that the commands call, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converters.sources import SOURCES
from xdet.bench import BenchOptions, run_benchmark
from xdet.detection.detector import Detector
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.evaluation.evaluate import evaluate
from xdet.inspection import inspect
from xdet.model.file import read_model_file
from xdet.pictures.images import find_images, read_image
from xdet.pictures.render import draw_detections, picture_paths, save_picture
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, open_runtime, parse_runtimes, runtimes_for
from xdet.writing.text import format_score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from converters.description.statements import SourceOptions
    from xdet.bench import Benchmark
    from xdet.detections import Detections
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

    def said_of(self, path: Path) -> SourceOptions | None:
        """What is said of a file: of sources alone, since finished models describe themselves."""
        return None if self.source_options is None or read_model_file(path).is_finished else self.source_options

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
    """All that a card says.

    Attributes:
        request: what was asked.
        inspections: of source and models, in order.
        evaluation: of the same files.
        benchmark: of those of them that the timed runtimes take.
        skipped: runtimes that could not run a model here, and why.
        pictures: photographs with the boxes of the first model.
    """

    request: CardRequest
    inspections: tuple[Inspection, ...]
    evaluation: Evaluation
    benchmark: Benchmark
    skipped: tuple[str, ...]
    pictures: tuple[Picture, ...]


def gather(request: CardRequest, pictures: Path, report: Callable[[str], object] = lambda _: None) -> CardContent:
    """Inspect, draw, evaluate and measure.

    Args:
        request: what the card is made from.
        pictures: existing folder for annotated photographs.
        report: called with one line before each stage.

    Raises:
        XdetError: as ``inspect``, ``Detector``, ``evaluate`` and ``run_benchmark`` raise.
    """
    report("inspecting")
    inspections = tuple(
        inspect(path, layers=_loads(path), source_options=request.said_of(path)) for path in request.files
    )
    runtimes, skipped = _usable_runtimes(request)
    report("drawing")
    drawn = _draw(request, pictures)
    report("evaluating")
    evaluation = evaluate(
        request.files,
        request.images,
        request.annotations,
        protocol=request.protocol,
        source_options=request.source_options,
    )
    report("measuring")
    timed = _timed_files(request.files, runtimes)
    benchmark = run_benchmark(
        timed,
        runtimes=runtimes,
        images=request.images,
        options=request.bench,
        source_options=_said_of_any(request, timed),
    )
    return CardContent(request, inspections, evaluation, benchmark, skipped, drawn)


def sample_images(request: CardRequest) -> list[Path]:
    """The photographs to draw boxes on."""
    return find_images(list(request.samples)) if request.samples else find_images([request.images])[:SAMPLES]


def _usable_runtimes(request: CardRequest) -> tuple[str, tuple[str, ...]]:
    """The runtimes to time, as ``--runtimes`` takes them, and a sentence for each that cannot run one of the models."""
    if request.runtimes is not None:
        parse_runtimes(request.runtimes)
        return request.runtimes, ()
    usable: dict[str, None] = {}
    skipped = []
    for path in request.files:
        for name in _candidates(path):
            kind, _, provider = name.partition(":")
            try:
                open_runtime(
                    path, RuntimeChoices(kind, provider or None, threads=1, source_options=request.source_options)
                ).close()
            except (ModelError, RuntimeUnavailableError) as error:
                skipped.append(f"{name}: {error}")
            else:
                usable[name] = None
    refused = {line.partition(": ")[0] for line in skipped}  # one that takes only some of the files is left out
    return ",".join(name for name in usable if name not in refused), tuple(skipped)


def _said_of_any(request: CardRequest, files: Sequence[Path]) -> SourceOptions | None:
    return next((source_options for source_options in map(request.said_of, files) if source_options is not None), None)


def _timed_files(files: Sequence[Path], runtimes: str) -> list[Path]:
    """The files that one of the runtimes takes."""
    named = [RUNTIMES[str(choice.runtime)] for choice in parse_runtimes(runtimes)]
    formats = {found for kind in named for found in kind.formats}
    return [path for path in files if read_model_file(path).format in formats]


def _loads(path: Path) -> bool:
    """Whether a file tells its costs when it is loaded, which evaluating does anyway."""
    found = read_model_file(path).format
    return found is not None and found in SOURCES and SOURCES[found].loads


def _candidates(path: Path) -> list[str]:
    """The runtimes of a card where none are named: those of products, without kernels that take minutes per picture."""
    found = read_model_file(path).format
    shown = []
    for name in () if found is None else runtimes_for(found):
        runtime, _, provider = name.partition(":")
        if RUNTIMES[runtime].deployed and provider not in RUNTIMES[runtime].slow:
            shown.append(name)
    return shown


def _draw(request: CardRequest, folder: Path) -> tuple[Picture, ...]:
    images = sample_images(request)
    with Detector(request.models[0], source_options=request.said_of(request.models[0])) as detector:
        return tuple(
            _draw_one(detector(image), image, path)
            for image, path in zip(images, picture_paths(images, folder), strict=True)
        )


def _draw_one(found: Detections, image: Path, path: Path) -> Picture:
    save_picture(path, draw_detections(read_image(image, honour_exif=True), found))
    listed = ", ".join(f"{one.class_name} {format_score(one.score)}" for one in found)
    return Picture(path, f"{image.name}: {listed or 'nothing found'}")
