"""Running one runtime over the photographs: its raw heads, and its boxes at every pair of thresholds.

What stays open over a whole check.

Runtimes that the table does not trust (other vendors' compilers, drivers) run in a subprocess: they may crash there
without hiding what the others found.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from converters.heads.base import BatchDetections
from converters.spec import Thresholds
from xdet.checking.placement import PlacementRecording, open_recorded
from xdet.errors import RuntimeCrashedError
from xdet.model.file import ModelFile, read_document
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.checking.pair import OpenedPair
    from xdet.runtimes.base import Runtime


CHUNK = 4  # photographs between two steps of the progress bar
FIELDS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")


@dataclass(frozen=True, eq=False)
class Run:
    """What one runtime gave."""

    name: str  # as ``--runtimes`` takes it
    exact: bool  # whether its kernels are exact integers (``Capabilities.exact``)
    heads: NDArray[np.float32]  # ``(N, grid_h, grid_w, channels)``
    # per pair of thresholds, its detections; empty for runtimes of the source, whose boxes are the oracle's
    boxes: tuple[tuple[Thresholds, BatchDetections], ...] = ()
    probes: tuple[str, ...] = ()  # what the heads are where they were crafted, by name; empty for photographs

    def label(self, image: int) -> str:
        """What a head is, for messages: image 1, 2, ... or a probe's name."""
        return f"probe {self.probes[image]!r}" if self.probes else f"image {image + 1}"


@dataclass(frozen=True, eq=False)
class Work:
    """What a runtime is asked for: uint8 pictures at network size; boxes at pairs of thresholds, if any.

    ``progress`` is called with the number of images that were done since the last call.
    """

    pixels: NDArray[np.uint8]
    thresholds: tuple[Thresholds, ...] = ()
    progress: Callable[[int], None] = lambda _: None


class OpenRuntimes:
    """The runtimes of one check: those that several parts ask stay open until its end, so each opens a file once.

    They are ONNX Runtime's CPU kernels for the model, and for the source the witness, its own runtime's usual kernels
    unless another is named. With ``record`` ONNX Runtime tells its optimised graph and where nodes run (``recorded``).
    """

    def __init__(
        self,
        pair: OpenedPair,
        threads: int | None = None,
        *,
        record: bool = False,
        witness: RuntimeChoices | None = None,
    ) -> None:
        takers = ((name, row) for name, row in RUNTIMES.items() if pair.source.format in row.formats)
        name, row = next(takers)  # every format has one
        self.main = RuntimeChoices("onnxruntime", "cpu", threads)
        self.witness = witness or RuntimeChoices(name, row.usual, threads)
        self.recorded: PlacementRecording | None = None
        self._pair, self._record = pair, record
        self._kept: dict[bool, Runtime] = {}

    def finished(self) -> AbstractContextManager[Runtime]:
        """ONNX Runtime's CPU kernels with the model."""
        return self.opened(self._pair.model, self.main)

    def source(self) -> AbstractContextManager[Runtime]:
        """The witness with the source."""
        return self.opened(self._pair.source, self.witness)

    def document_of(self, model: ModelFile) -> ModelDocument:
        """The document of the model, or of one made from it."""
        if model is self._pair.model:
            return self._pair.document
        return read_document(model.data, file=model.file)

    def is_witness(self, choices: RuntimeChoices) -> bool:
        """Whether this is the runtime of the source that stays open."""
        return (choices.runtime, choices.provider) == (self.witness.runtime, self.witness.provider)

    @contextmanager
    def opened(self, file: ModelFile, choices: RuntimeChoices) -> Iterator[Runtime]:
        """A file on a runtime, opened now or before; in a subprocess unless the table trusts it.

        Raises:
            XdetError: it cannot be opened; whoever uses it raises others, ``RuntimeCrashedError`` where its process
                ended.
        """
        of_source, name = file is self._pair.source, (choices.runtime, choices.provider)
        keeps = of_source and self.is_witness(choices)
        keeps |= file is self._pair.model and name == (self.main.runtime, self.main.provider)
        if not keeps:
            with self._open(file, choices) as runtime:
                yield runtime
            return
        if of_source not in self._kept:
            self._kept[of_source] = self._open(file, choices)
        try:
            yield self._kept[of_source]
        except RuntimeCrashedError:  # whoever asks next begins anew
            self._kept.pop(of_source).close()
            raise

    def _open(self, file: ModelFile, choices: RuntimeChoices) -> Runtime:
        if file is self._pair.source:  # described as its finished model is: it needs no sidecar
            return open_model(file, replace(choices, spec=self._pair.document.spec))
        trusted = runs_here(choices)
        if self._record and trusted and file is self._pair.model and choices.runtime == self.main.runtime:
            runtime, self.recorded = open_recorded(file, choices)
            return runtime
        return open_model(file, choices, subprocess=not trusted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for runtime in self._kept.values():
            runtime.close()
        self._kept.clear()


def runs_here(runtime: RuntimeChoices | Runtime) -> bool:
    """Whether a finished model's runtime runs in this process: the caller's own, or one that the table trusts."""
    return not isinstance(runtime, RuntimeChoices) or runtime.provider in RUNTIMES[str(runtime.runtime)].trusted


def run_finished(model: ModelFile, choices: RuntimeChoices, work: Work, runtimes: OpenRuntimes) -> Run:
    """Run a finished model, the check's or one made from it; raises as ``OpenRuntimes.opened``."""
    runs: list[Run] = []
    for file, at in copies_at(model, choices, work.thresholds, runtimes):
        with runtimes.opened(file, choices) as runtime:
            part = replace(work, thresholds=at)
            runs.append(run_open(runtime, part, head_of=runs[0] if runs else None))
    found = dict(pair for run in runs for pair in run.boxes)
    return replace(runs[0], boxes=tuple((at, found[at]) for at in work.thresholds))


def run_open(runtime: Runtime, work: Work, *, head_of: Run | None = None) -> Run:
    """Head and boxes of the same images; ``head_of`` is a run of the same work at other thresholds, if any."""
    chunks = [work.pixels[start : start + CHUNK] for start in range(0, len(work.pixels), CHUNK)]
    heads = []
    for chunk in chunks if head_of is None else []:
        heads.append(runtime.head(chunk))
        work.progress(len(chunk))
    # one pair of thresholds after the other: a runtime may keep a session for each
    boxes = [[runtime.detect(chunk, at) for chunk in chunks] for at in work.thresholds]
    joined = tuple((at, _joined(parts)) for at, parts in zip(work.thresholds, boxes, strict=True))
    if head_of is not None:
        return replace(head_of, boxes=joined)
    return Run(runtime.name, runtime.capabilities.exact, np.concatenate(heads), joined)


def run_source(source: ModelFile, choices: RuntimeChoices, work: Work, runtimes: OpenRuntimes) -> Run:
    """Raw heads of the source on one of its own runtimes."""
    with runtimes.opened(source, choices) as runtime:
        return run_open(runtime, work)


def copies_at(
    model: ModelFile, choices: RuntimeChoices, thresholds: tuple[Thresholds, ...], runtimes: OpenRuntimes
) -> Iterator[tuple[ModelFile, tuple[Thresholds, ...]]]:
    """The model as it is, with the thresholds that it can take there.

    Where the runtime can take none: for every other IoU threshold, or lower score, a copy frozen at it and at the
    lowest score.
    """
    document = runtimes.document_of(model)
    if not thresholds or (RUNTIMES[str(choices.runtime)].feeds_thresholds and not document.freeze_thresholds):
        yield model, thresholds
        return
    own = document.spec.thresholds
    for iou in sorted({at.iou for at in thresholds}, key=lambda iou: iou != own.iou):
        of_iou = tuple(at for at in thresholds if at.iou == iou)
        lowest = min(at.score for at in of_iou)
        if iou == own.iou and lowest >= own.score:
            yield model, of_iou
            continue
        frozen = freeze_thresholds(model.data, document, Thresholds(lowest, iou, own.max_detections))
        yield ModelFile(model.path, frozen, "onnx"), of_iou


def _joined(parts: list[BatchDetections]) -> BatchDetections:
    return BatchDetections(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
