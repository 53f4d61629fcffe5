"""Which unit anchors are in: every reading that is possible, on photographs, as numbers and as pictures side by side.

No file says the unit, and no number decides it: scores are the same under every reading, and training makes up for any
size. People see at once which boxes fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError, counted
from converters.files import FINISHED
from converters.heads.nms import decode_head, detect_from_head
from converters.options import ConvertOptions
from converters.sources import describe, open_source
from xdet.detections import Detections
from xdet.errors import DataError
from xdet.model.file import ModelFile
from xdet.pictures.images import find_images, read_image
from xdet.pictures.preparation import Preparation, prepare
from xdet.pictures.render import draw_detections, picture_paths, save_picture
from xdet.runtimes.table import open_model, usual_runtime
from xdet.writing.blocks import Report, Section, Table, Text
from xdet.writing.files import PICTURE_MARK, Output, make_folder, require_apart, require_outputs, with_sidecars
from xdet.writing.text import format_score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.description.values import StatedUnit
    from converters.spec import DetectorSpec
    from xdet.pictures.preparation import Prepared

UNITS: dict[StatedUnit, str] = {"cell": "grid cells", "image": "image fractions", "pixel": "pixels"}
MOST_PHOTOGRAPHS = 24
USUAL_SCORE = 0.3  # lower than a product's: a wrong reading loses boxes to each other, not scores
SHOWN = 10  # boxes of a picture
PANEL_HEIGHT, TITLE_HEIGHT, GAP = 420, 24, 6


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """What one unit makes of the photographs: boxes of each, and how many there were before suppression."""

    unit: StatedUnit
    detections: tuple[Detections, ...]
    candidates: int


@dataclass(frozen=True, eq=False, slots=True)
class UnitTrial:
    """All readings of one list of anchors."""

    readings: tuple[Reading, ...]
    refused: dict[StatedUnit, str]  # the other units, and why not
    photographs: int
    score: float  # boxes score above it
    pictures: tuple[Path, ...]  # the readings side by side, one per photograph


def try_units(
    source: str | Path,
    photographs: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    source_options: SourceOptions | None = None,
    force: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> UnitTrial:
    """Decode photographs under every unit that the anchors can have, and draw the boxes side by side.

    Args:
        source: the model whose anchors lack a unit.
        photographs: a folder, or files; the first 24 are looked at.
        folder: where the pictures go, not among the photographs.
        source_options: what the caller says of the source; its unit is not used.
        force: replace existing pictures that xdet did not make, too.
        progress: called with 1 after each photograph.

    Raises:
        OptionError: no anchors are stated, or the head has none.
        ConversionError: the source cannot be converted.
        DataError: no photographs.
        ImageError: one of them cannot be read.
        OutputError: a picture cannot be written.
    """
    source, folder, source_options = Path(source), Path(folder), source_options or SourceOptions()
    named = [photographs] if isinstance(photographs, str | Path) else list(photographs)
    images = find_images([Path(name) for name in named])[:MOST_PHOTOGRAPHS]
    if not images:
        raise DataError("no photographs to try the units on; name a folder or files")
    require_apart(folder, images)
    pictures = picture_paths(images, folder)
    outputs = [Output(path, PICTURE_MARK, in_new_folder=True) for path in pictures]
    require_outputs(outputs, [*with_sidecars([source]), *images], force=force)
    specs, refused = _possible(source, source_options)
    score = USUAL_SCORE if source_options.score_threshold is None else source_options.score_threshold
    first = replace(source_options, anchor_unit=next(iter(specs)))
    model = convert_to_bytes(source, ConvertOptions(source=first)).model
    detections: dict[StatedUnit, list[Detections]] = {unit: [] for unit in specs}
    candidates = dict.fromkeys(specs, 0)
    make_folder(folder)
    with open_model(ModelFile(source, model, FINISHED), usual_runtime(FINISHED)) as runtime:
        for image, target in zip(images, pictures, strict=True):
            ready = prepare(image, Preparation(runtime.spec.image))
            head = runtime.head(ready.pixels[None])
            for unit, spec in specs.items():
                decoded, count = _decode(head, spec, ready, score)
                detections[unit].append(decoded)
                candidates[unit] += count
            save_picture(target, side_by_side(image, {unit: each[-1] for unit, each in detections.items()}))
            progress(1)
    readings = tuple(Reading(unit, tuple(detections[unit]), candidates[unit]) for unit in specs)
    return UnitTrial(readings, refused, len(images), score, tuple(pictures))


def _possible(
    source: Path, source_options: SourceOptions
) -> tuple[dict[StatedUnit, DetectorSpec], dict[StatedUnit, str]]:
    """The detector under every unit that fits, and why the others do not."""
    opened = open_source(source)
    specs: dict[StatedUnit, DetectorSpec] = {}
    refused: dict[StatedUnit, OptionError] = {}
    for unit in UNITS:
        try:
            specs[unit] = describe(opened, replace(source_options, anchor_unit=unit)).spec
        except OptionError as error:
            refused[unit] = error
    if not specs:
        raise next(iter(refused.values()))
    if len({spec.head for spec in specs.values()}) == 1 and len(specs) == len(UNITS):
        raise OptionError(f"'{source}': its head has no anchors whose unit could be tried; leave `try_units` out")
    return specs, {unit: error.lines[0] for unit, error in refused.items()}


def _decode(head: NDArray[np.float32], spec: DetectorSpec, ready: Prepared, score: float) -> tuple[Detections, int]:
    """The detections of one photograph, and how many boxes were above the threshold."""
    batch = detect_from_head(head, spec, replace(spec.thresholds, score=score))
    _, scores = decode_head(head, spec)
    candidates = int((scores > np.float32(score)).sum())
    return Detections.from_batch(batch, 0, ready, spec.class_names), candidates


def side_by_side(image: Path, readings: dict[StatedUnit, Detections]) -> NDArray[np.uint8]:
    """The photograph once per reading, with its title and its best boxes: uint8 ``(height, width, 3)``, RGB."""
    photo = Image.fromarray(read_image(image, honour_exif=True))
    photo.thumbnail((2 * PANEL_HEIGHT, PANEL_HEIGHT))
    width, height = photo.size
    canvas = Image.new("RGB", ((width + GAP) * len(readings) - GAP, height + TITLE_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (unit, detections) in enumerate(readings.items()):
        left = place * (width + GAP)
        drawn = draw_detections(np.array(photo), replace(detections, width=width, height=height)[:SHOWN])
        canvas.paste(Image.fromarray(drawn), (left, TITLE_HEIGHT))
        title, font = f"{unit}: {counted(len(detections), 'box', 'boxes')}", ImageFont.load_default(14)
        draw.text((left + 4, 4), title, fill="black", font=font)
    return np.array(canvas)


def trial_report(trial: UnitTrial) -> Report:
    """The readings as a table, why others are not possible, and what to do."""
    headers = ("anchors in", "boxes", "images", "best score", "median box", "at edge", "suppressed")
    table = Table(headers, tuple(_row(reading, trial) for reading in trial.readings))
    refused = tuple(Text(f"not {UNITS[unit]}: {why}") for unit, why in trial.refused.items())
    options = " or ".join(f"--anchor-unit {reading.unit}" for reading in trial.readings)
    return Report(
        "units of anchors",
        (Section("", (table,)), Section("", refused)),
        lead=(f"{counted(trial.photographs, 'photograph', 'photographs')}, boxes that score above {trial.score:g}:",),
        verdict=f"Look at the pictures in '{trial.pictures[0].parent}': the reading whose boxes fit is right; then "
        f"give {options}",
    )


def _row(reading: Reading, trial: UnitTrial) -> tuple[str, ...]:
    boxes = np.concatenate([each.boxes_xyxy for each in reading.detections])
    if not len(boxes):
        return UNITS[reading.unit], "0", f"0 of {trial.photographs}", "", "", "", ""
    sizes = [each.boxes_xyxy_px[:, 2:] - each.boxes_xyxy_px[:, :2] for each in reading.detections]
    width, height = np.median(np.concatenate(sizes), axis=0)
    best = [float(each.scores.max()) for each in reading.detections if len(each)]
    touching = ((boxes[:, :2] <= 0) | (boxes[:, 2:] >= 1)).any(axis=1).mean()
    return (
        UNITS[reading.unit],
        str(len(boxes)),
        f"{len(best)} of {trial.photographs}",
        format_score(float(np.median(best))),
        f"{width:.0f} x {height:.0f} px",
        f"{touching:.0%}",
        f"{1 - len(boxes) / reading.candidates:.0%}",
    )
