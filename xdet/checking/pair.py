"""The two files of a check, read once: the finished model, its graph and document; the source and its description.

Which runtimes a check runs: those that were named, or the default ones; and what could be added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.heads.yolo_v2 import YoloV2
from converters.sources import SOURCES
from converters.spec import THRESHOLD_INPUTS
from xdet.checking.other_cpus import IMAGES
from xdet.checking.result import MissingRuntime
from xdet.errors import UsageError, converter_errors
from xdet.model.file import ModelFile, hash_model, read_document, read_model_file
from xdet.model.graph import FinishedGraph, load_onnx
from xdet.model.surgery import at_network_size
from xdet.runtimes.base import Runtime, RuntimeChoices
from xdet.runtimes.table import RUNTIMES, most_images, parse_runtimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from converters.description.statements import SourceOptions, Statements
    from converters.facts import SourceFacts
    from converters.spec import ModelDocument
    from xdet.checking.numbers.comparison import CheckedSource


@dataclass(frozen=True, eq=False)
class OpenedPair:
    """A finished model and its source."""

    model: ModelFile  # the ONNX file; of one that takes photographs of any size the fixed file inside it
    document: ModelDocument  # what its metadata says
    graph: FinishedGraph  # its operators and constants
    source: ModelFile  # the source file, with its SHA-256
    source_sha256: str
    origin: CheckedSource  # what the source holds
    stated: Statements  # what options, sidecar and the source itself state of the detector
    any_size: ModelFile | None = None  # the ONNX file as it is where it takes photographs of any size

    @property
    def file(self) -> ModelFile:
        """The finished model as it was given."""
        return self.any_size or self.model

    @property
    def no_yardstick(self) -> str | None:
        """Why other runtimes have no limit: one runtime alone computes the codes of an ONNX source."""
        if self.origin.nodes is None or self.document.activations == "float32":
            return None
        return "runtimes round a quantised ONNX source's integers in ways of their own: compare accuracy with xdet eval"

    @property
    def has_thresholds(self) -> bool:
        """Whether both thresholds stand in the graph by their names: a simplifier may merge or rename frozen ones."""
        return all(self.graph.constant(name) is not None and self.graph.readers(name) for name in THRESHOLD_INPUTS)


def open_pair(model: Path | ModelFile, source: Path, source_options: SourceOptions | None = None) -> OpenedPair:
    """Read both files.

    Raises:
        ModelError: one of them is missing, damaged, or no such model.
        UsageError: they are not an ONNX file and a source, in this order.
    """
    finished = model if isinstance(model, ModelFile) else read_model_file(model)
    source_file = read_model_file(source)
    if not finished.is_finished:
        raise UsageError(
            f"'{finished.file}' is {finished.format or 'no model'}, expected an ONNX file made by xdet convert; "
            f"the source goes behind `source`"
        )
    if source_file.format is None or source_file.format not in SOURCES:
        known = ", ".join(row.title for row in SOURCES.values())
        raise UsageError(
            f"'{source}' is {source_file.format or 'no model'}, "
            f"expected the source that '{finished.file}' was made of ({known})"
        )
    document, any_size = read_document(finished.data, file=finished.file), None
    if document.spec.image.any_size:
        any_size = finished
        finished = replace(finished, data=at_network_size(finished.data, finished.file))
        document = read_document(finished.data, file=finished.file)
    origin = SOURCES[source_file.format].compare(source_file, document)
    return OpenedPair(
        model=finished,
        document=document,
        graph=FinishedGraph(load_onnx(finished.data, finished.file), file=finished.file),
        source=source_file,
        source_sha256=hash_model(source_file.data),
        origin=origin,
        stated=_stated(source_file, origin.facts, source_options, document),
        any_size=any_size,
    )


def _stated(
    source: ModelFile, facts: SourceFacts, source_options: SourceOptions | None, document: ModelDocument
) -> Statements:
    from converters.description.statements import SourceOptions, find_statements

    head = document.spec.head
    grid_hw = (head.grid_h, head.grid_w) if isinstance(head, YoloV2) else None
    with converter_errors():
        return find_statements(source.path, facts, source_options or SourceOptions(), grid_hw)


Asked = str | Runtime


def planned_images(
    runtimes: str | Sequence[Asked] | None, source_format: str | None, images: int, cpus: Sequence[str] = ()
) -> int:
    """How many images all runtimes together, and other processors, will be given: the length of a progress bar."""
    finished, sources = split_runtimes(runtimes, source_format, None)
    counts = count_images(finished, sources, images)
    return sum(counts[runtime.name] for runtime in (*finished, *sources)) + len(cpus) * min(images, IMAGES)


def count_images(
    finished: Sequence[RuntimeChoices | Runtime], sources: Sequence[RuntimeChoices], images: int
) -> dict[str, int]:
    """How many images each runtime is given: slow ones few, but for those of the source that the yardstick needs.

    It is the distance of two of the source's runtimes, on all images.
    """
    names = [runtime.name for runtime in (*finished, *sources)]
    counts = {name: min(images, most_images(name) or images) for name in names}
    of_source = names[len(finished) :]
    if sum(counts[name] == images for name in of_source) < 2:
        counts |= dict.fromkeys(of_source, images)
    return counts


def split_runtimes(
    runtimes: str | Sequence[Asked] | None, source_format: str | None, threads: int | None
) -> tuple[list[RuntimeChoices | Runtime], list[RuntimeChoices]]:
    """Runtimes of the finished model, and those of the source."""
    own = _checked(source_format, installed=False)  # one that is not installed is told
    if runtimes is None:
        runtimes = [*_checked("onnx", installed=True), *own]
    named = runtimes.split(",") if isinstance(runtimes, str) else list(runtimes)
    texts = [name for name in named if isinstance(name, str)]
    choices = parse_runtimes(",".join(texts), threads=threads) if texts else ()
    chosen = [replace(c, provider=c.provider or RUNTIMES[str(c.runtime)].usual) for c in choices]
    sources = [c for c in chosen if source_format in RUNTIMES[str(c.runtime)].formats]
    foreign = [c for c in chosen if c not in sources and "onnx" not in RUNTIMES[str(c.runtime)].formats]
    if foreign:
        listed = ", ".join(c.name for c in foreign)
        raise UsageError(f"{listed} runs neither ONNX files nor {source_format} sources; leave it out")
    finished = [c for c in chosen if c not in sources]
    if not sources:
        sources = list(parse_runtimes(",".join(own), threads=threads)) if own else []
    return [*finished, *(r for r in named if not isinstance(r, str))], sources


def with_options(
    finished: Sequence[RuntimeChoices | Runtime], provider_options: Mapping[str, str], device: str | None
) -> list[RuntimeChoices | Runtime]:
    """The runtimes of a finished model, where execution providers besides the CPU's get options and device.

    Raises:
        UsageError: there are some, and no such provider was named.
    """
    if not provider_options and device is None:
        return list(finished)
    given = [
        replace(chosen, provider_options=provider_options, device=device)
        if isinstance(chosen, RuntimeChoices)
        and RUNTIMES[str(chosen.runtime)].takes_options
        and str(chosen.provider).lower() != "cpu"
        else chosen
        for chosen in finished
    ]
    if given == list(finished):
        raise UsageError(
            "options and devices are those of ONNX Runtime's execution providers, and `runtimes` names none besides "
            "the CPU's; add one, such as onnxruntime:cuda"
        )
    return given


def _checked(model_format: str | None, *, installed: bool) -> list[str]:
    """The runtimes of a format that a check runs by default; ``installed``: without those that an extra brings."""
    return [
        f"{name}:{provider}"
        for name, row in RUNTIMES.items()
        if model_format in row.formats and (row.installed or not installed or row.extra is None)
        for provider in row.checked
    ]


def suggest_runtimes(finished: Sequence[RuntimeChoices | Runtime]) -> list[MissingRuntime]:
    """What could be added, and how."""
    named = {runtime.name.split(":")[0] for runtime in finished}
    found = []
    for name, row in RUNTIMES.items():
        if name in named or "onnx" not in row.formats:
            continue
        how = f"name it in --runtimes (slow: {row.most_images} images)" if row.most_images else None
        if row.extra and not row.installed:
            how = f'pip install "xdet[{row.extra}]"'
        if how is not None:
            found.append(MissingRuntime(f"{name}:{row.usual}", how, asked=False))
    return found
