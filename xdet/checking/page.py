"""The page: a summary to sign, the report of the check, and what only a page can show.

Charts, photographs on which detections differ (the source's boxes and the runtime's side by side), surroundings,
meanings, the command.
"""

from __future__ import annotations

import io
import math
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from converters.errors import counted
from xdet.checking.report import CHANGE_CAUSES, TITLES, check_report, status_of
from xdet.checking.tolerance import tolerance_text
from xdet.detections import Detections
from xdet.pictures.images import read_image
from xdet.pictures.render import draw_detections
from xdet.writing.blocks import Bars, Blanks, Commands, Facts, Folded, Picture, Pictures, Section, Table, Text
from xdet.writing.html import report_page
from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdet.bench.records import Machine
    from xdet.checking.result import CheckResult, DetectionChange, HistogramBar
    from xdet.pictures.preparation import Photograph
    from xdet.writing.blocks import Block

MEANINGS = (
    ("LSB", "one quantisation step of the source's raw head; for float heads distances are fractions of its largest "
     "value"),
    ("differ", "head values that are not equal bit for bit, over all photographs"),
    ("max, mean", "the largest difference, and the mean over all values, zeros included"),
    ("nearest", "the source's runtime from which the mean difference is smallest"),
    ("yardstick", "the two LiteRT kernels that are furthest apart: any other runtime may be as far from the nearest"),
    ("boxes", "whether a run's boxes are those of the numpy decoder applied to its own head, and how many probes it "
     "followed"),
    ("probes", "crafted heads, a question each: overlaps at the threshold, ties, classes, too many boxes, extreme "
     "values"),
    ("accumulated", "what ONNX Runtime holds in a layer, against what the source holds there; earlier layers' drift "
     "is inside"),
    ("local", "the layer on the source's own values in front of it, against the source's result: shows a fault of "
     "the file"),
    ("kernel", "ONNX Runtime's result against exact arithmetic on its own integers there: shows a fault of the "
     "runtime"),
    ("integer coverage", "multiply-accumulates that a provider runs on integers, and the rule that blocked the others"),
)  # fmt: skip
CPU_MEANINGS = (
    ("emulated", "the same programs, children included, on an emulated processor: kernels are chosen by its "
     "instructions"),
    ("instruction sets", "what numpy found in the process there"),
    ("self-test", "head values that differ from the golden vector inside the model, which is the same on every "
     "processor"),
    ("without a session entry", "what any other program gets there that opens the model and does not set the entry"),
    ("on another processor", "distances are from the nearest LiteRT kernel there, over fewer photographs: emulation "
     "is slow"),
)  # fmt: skip
CHANGE_HEADERS = (
    "photograph", "runtime", "box", "class", "what", "score there", "score of the source", "cause", "numbers",
)  # fmt: skip
MOST_PICTURES = 6
MOST_NAMES = 5  # of photographs, in the summary
FAULTS = frozenset({"layer", "head", "iou-rule"})  # causes that are no rounding
LONGEST_SIDE = 420  # pixels
QUALITY = 80
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and how a check was made; ``command`` repeats it, ``threads`` None is each runtime's default."""

    machine: Machine
    threads: int | None
    command: str


def check_to_html(result: CheckResult, photographs: Sequence[Photograph], where: Surroundings) -> str:
    """The check as one page of HTML.

    Args:
        result: the check.
        photographs: what it ran on, in its order: files or uint8 RGB arrays.
        where: what the page says of the computer and the command.

    Raises:
        ImageError: a photograph with changes cannot be read any more.
    """
    pictures = tuple(_changes(result, photographs)) if result.changes else ()
    report = check_report(result, pictures=pictures)
    meanings = (*MEANINGS, *CPU_MEANINGS) if result.other_cpus else MEANINGS
    sections = (
        Section("Summary", tuple(_summary(result, where)), alone=True),
        *report.sections,
        Section("Differences of the head", tuple(_histograms(result))),
        Section("Differences on purpose, proven", tuple(_proven(result))),
        Section("Where it ran", (_surroundings(result, where),)),
        Section("What the numbers mean", (Facts(meanings),)),
        Section("Repeat it", (Commands((where.command,)),)),
    )
    return report_page(replace(report, sections=sections))


def _summary(result: CheckResult, where: Surroundings) -> Iterator[Block]:
    """What a reader of one page needs: the verdict, what was compared and what was not, the figures, lines to sign."""
    says = {
        "passed": "The file computes what its source computes, in all that was compared here.",
        "tolerated": "The file does not compute exactly what its source computes; it stays within the tolerance below.",
        "failed": "The file, or a runtime, does not compute what the source computes. Do not ship it as it is.",
        "incomplete": "Nothing failed, but something that was asked for gave no result: "
        "this proves less than was asked.",
    }
    yield Text(says[status_of(result)])
    ran = [part for part in result.parts if part.status != "skipped"]
    compared = [f"{part.part} ({TITLES[part.part]}): {part.status}" for part in ran]
    left_out = [f"the output ({result.output_uncompared})"] if result.output_uncompared else []
    left_out += [f"{part.part} ({part.summary})" for part in result.parts if part.status == "skipped"]
    left_out += [*result.uncompared, *(f"{m.name} ({m.reason})" for m in result.missing if m.is_gap)]
    counts = {kind: sum(change.kind == kind for change in result.changes) for kind in ("lost", "new", "moved")}
    versions = {**where.machine.versions, **result.versions}
    yield Facts(
        (
            ("Model", result.model),
            ("Source", result.source),
            ("Compared", "; ".join(compared) or "nothing"),
            ("Not compared", "; ".join(left_out) or "nothing of what was asked for"),
            ("Tolerance", _tolerance(result)),
            ("Photographs", _named_images(result.images)),
            ("Runtimes of the model", ", ".join(run.name for run in result.runs) or "none"),
            ("Runtimes of the source", ", ".join(result.source_runs) or "none"),
            ("Largest difference of the raw head", _largest(result)),
            ("Detections against the source's", ", ".join(f"{count} {kind}" for kind, count in counts.items())),
            ("Processor", where.machine.cpu or "not told by the system"),
            ("Made with", ", ".join(f"{name} {version}" for name, version in versions.items() if name == "xdet")),
        )
    )
    yield Blanks(("Date", "Place", "Name", "Signature"))


def _named_images(names: Sequence[str]) -> str:
    """How many, and which: a signature under a check of two photographs should know them."""
    return f"{len(names)}: {', '.join(names[:MOST_NAMES])}{', ...' if len(names) > MOST_NAMES else ''}"


def _tolerance(result: CheckResult) -> str:
    if result.tolerance is None:
        return "none beyond what the parts allow by themselves"
    deviations = [f"{d.runtime} {d.box:.3g} px, {d.score:.3g} of score" for d in result.deviations]
    message = "; ".join(deviations) or "not measured"
    return f"{tolerance_text(result.tolerance, result.unit)}; detections deviate: {message}"


def _largest(result: CheckResult) -> str:
    """Of each runtime from the source's nearest."""
    near = [(run.name, run.nearest) for run in result.runs if run.nearest is not None]
    distances = [
        f"{name} {format_distance(d.max_steps)} {result.unit}" if d.differing else f"{name} none" for name, d in near
    ]
    return ", ".join(distances) or "not measured: no runtime of the source ran"


def _histograms(result: CheckResult) -> Iterator[Bars]:
    """Head values by their difference from the nearest kernel of the source."""
    unit = "in LSB" if result.unit == "LSB" else f"as a share {result.unit}"
    for run in result.runs:
        if run.histogram and run.nearest is not None:
            bars = tuple((_range(run.histogram, i), bar.values) for i, bar in enumerate(run.histogram))
            yield Bars(f"{run.name} from {run.nearest.second}, {unit}", bars)


def _range(bars: Sequence[HistogramBar], index: int) -> str:
    end = bars[index].up_to
    if math.isinf(end):
        return f"> {bars[index - 1].up_to:g}"
    return "equal" if end == 0 else f"≤ {end:g}"  # one sign says both ends: the bar before ends where it does


def _proven(result: CheckResult) -> Iterator[Block]:
    if result.proven:
        rows = tuple((p.tensor, p.kind, p.source, p.written, p.proof) for p in result.proven)
        table = Table(("tensor", "what", "source", "written", "proof"), rows)
        yield Folded(counted(len(rows), "number", "numbers"), (table,))


def _surroundings(result: CheckResult, where: Surroundings) -> Facts:
    machine = where.machine
    flags = "not told by the system"
    if machine.flags is not None:
        flags = " ".join(machine.flags) or "none of those that matter"
    versions = {**machine.versions, **result.versions}
    usable = f"{machine.usable_cpus} of {machine.logical_cpus} usable"
    return Facts(
        (
            ("processor", f"{machine.cpu or 'not told by the system'}, {usable}"),
            ("instruction sets", flags),
            ("8-bit kernels", "saturate here, exact ones are used" if machine.saturates else "do not saturate"),
            ("system", machine.system),
            ("threads", "each runtime's default" if where.threads is None else str(where.threads)),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
            ("model", f"{result.model}, SHA-256 {result.model_sha256}"),
            ("source", f"{result.source}, SHA-256 {result.source_sha256}"),
        )
    )


def _changes(result: CheckResult, photographs: Sequence[Photograph]) -> Iterator[Block]:
    """The photographs with the gravest and most changes, per runtime; and all changes in numbers."""
    groups: dict[tuple[str, str], list[DetectionChange]] = defaultdict(list)
    for change in result.changes:
        groups[change.image, change.runtime].append(change)
    by_name = dict(zip(result.images, photographs, strict=True))
    worst = sorted(groups.items(), key=lambda group: _gravity(group[1]), reverse=True)  # of equals, the first
    for (image, runtime), changes in worst[:MOST_PICTURES]:
        yield _side_by_side(by_name[image], image, runtime, changes)
    if len(worst) > MOST_PICTURES:
        more = f"{len(worst) - MOST_PICTURES} more pairs of photograph and runtime have changes"
        yield Text(f"These are the gravest. {more}; the table lists them.", soft=True)
    rows = tuple(
        (
            *(c.image, c.runtime, c.anchor, c.class_id, c.kind, c.runtime_score, c.source_score),
            *(CHANGE_CAUSES[c.cause], c.message),
        )
        for c in result.changes
    )
    yield Folded(f"All {len(rows)} in numbers", (Table(CHANGE_HEADERS, rows, keys=3),))


def _gravity(changes: Sequence[DetectionChange]) -> tuple[int, int, int]:
    """How bad a picture is: changes that a fault causes, detections lost or new, and changes in all."""
    faults = sum(change.cause in FAULTS for change in changes)
    return faults, sum(change.kind != "moved" for change in changes), len(changes)


def _side_by_side(photograph: Photograph, image: str, runtime: str, changes: Sequence[DetectionChange]) -> Pictures:
    """Only boxes that differ are drawn."""
    small = _shrink(_read(photograph))
    pair = (
        _side(small, image, changes, title="the source", absent="new", side="source"),
        _side(small, image, changes, title=runtime, absent="lost", side="runtime"),
    )
    notes = tuple(f"box {c.anchor} {c.kind}: {CHANGE_CAUSES[c.cause]}: {c.message}" for c in changes)
    return Pictures(pair, title=f"{image}, {runtime}", notes=notes)


def _side(
    small: Pixels, image: str, changes: Sequence[DetectionChange], *, title: str, absent: str, side: str
) -> Picture:
    """One picture; a box has its colour on both sides, and is left out where the side does not keep it."""
    height, width = small.shape[:2]
    kept = [i for i, change in enumerate(changes) if change.kind != absent]
    boxes = [getattr(changes[i], f"{side}_box_xyxy") for i in kept]
    detections = Detections(
        image=image,
        width=width,
        height=height,
        boxes_xyxy=np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, 1),
        scores=np.array([getattr(changes[i], f"{side}_score") for i in kept], np.float32),
        classes=np.array(kept, np.int32),
        anchors=np.array([changes[i].anchor for i in kept], np.int32),
        class_names=tuple(f"box {change.anchor}" for change in changes),
    )
    encoded = io.BytesIO()
    Image.fromarray(draw_detections(small, detections)).save(encoded, "JPEG", quality=QUALITY)
    count = f"{len(boxes)} of the boxes that differ" if boxes else "none of the boxes that differ"
    return Picture(f"{title}: {count}", f"{image}: {count}, {title}", encoded.getvalue(), (width, height))


def _read(photograph: Photograph) -> Pixels:
    if isinstance(photograph, str | os.PathLike):
        return read_image(Path(photograph), honour_exif=True)
    return photograph


def _shrink(picture: Pixels) -> Pixels:
    small = Image.fromarray(picture)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.array(small)
