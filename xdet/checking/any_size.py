"""A file for photographs of any size beside the fixed file inside it: the same picture, head and boxes?

The parts of a check judge the fixed file (``xdet.model.surgery.at_network_size``), which gets what xdet's own
preparation makes of a photograph, as the source does. Here the file itself gets the photograph as decoded, on the same
runtime. Its picture (``network_image``) is compared with xdet's value by value, its raw head with the fixed file's
where the picture is equal, and its boxes with the fixed file's, mapped to the photograph, where the head is equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import counted
from converters.spec import NETWORK_IMAGE
from xdet.checking.result import Finding
from xdet.checking.runs import copies_at
from xdet.pictures.preparation import Preparation, prepare_many
from xdet.runtimes.table import has_rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from xdet.checking.runs import AllRuns, CheckInputs, Run
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

MOST_LEVELS = 1  # of 255, where a runtime does not round every step of float32 arithmetic
BOX_ROOM = 1e-6  # of the photograph: exp's last bits differ between kernels for fixed and for dynamic shapes


def compare_any_size(inputs: CheckInputs, runs: AllRuns) -> dict[str, str]:
    """What runtimes do with the photographs as decoded, each a note; what is wrong is among the faults of ``runs``."""
    notes: dict[str, str] = {}
    if inputs.pair.any_size is None:
        return notes
    for choices, run in runs.opened:
        with runs.gaps.noting(f"{run.name}, photographs of any size"):
            notes[run.name], problems = _compare(inputs, inputs.pair.any_size, choices, run)
            if problems:
                more = f"; {len(problems) - 1} more" if len(problems) > 1 else ""
                message = f"{run.name}: {problems[0]}{more}"
                runs.gaps.faults.append(Finding("head", "resize", message, runtime=run.name))
    return notes


def _compare(inputs: CheckInputs, model: ModelFile, choices: RuntimeChoices, run: Run) -> tuple[str, list[str]]:
    """Give a file for any size the photographs of ``run``, which the fixed file gave: a note, and what is wrong.

    Raises:
        XdetError: it cannot be opened, or fails.
    """
    count, compared = len(run.heads), run.boxes[:1]
    own = tuple(thresholds for thresholds, _ in compared)
    ((file, _),) = copies_at(model, choices, own, inputs.runtimes)
    pixels_off = levels = heads_off = 0
    problems: list[str] = []
    with inputs.runtimes.opened(file, choices) as runtime:
        how = Preparation(runtime.spec.image)
        for index, photograph in enumerate(prepare_many(inputs.photographs[:count], how)):
            image = photograph.pixels[None]
            (picture,) = runtime.tensors(image, [NETWORK_IMAGE]).values()
            off = np.abs(picture[0].astype(np.int16) - inputs.pixels[index])
            pixels_off, levels = pixels_off + int((off > 0).sum()), max(levels, int(off.max()))
            if off.any():
                continue
            head_off = int((runtime.head(image)[0] != run.heads[index]).sum())
            heads_off += head_off
            where = f"image {index + 1}, {photograph.size_wh[0]} x {photograph.size_wh[1]}"
            if head_off and has_rule(run.name, "rounds_steps"):
                problems.append(f"{where}: {_head_words(head_off)}, though the picture is equal")
            elif compared and not head_off:
                thresholds, boxes = compared[0]
                wanted = boxes.boxes_xyxy[index, : boxes.num_detections[index]]
                wanted = inputs.placements[index].to_photograph(wanted)
                message = _moved(runtime.detect(image, thresholds), wanted, boxes.anchors[index])
                problems += [f"{where}: {message}"] if message else []
    values = inputs.pixels[:count].size
    allowed = 0 if has_rule(run.name, "rounds_steps") else MOST_LEVELS
    if levels > allowed:
        expected = f"at most {allowed}" if allowed else "none"
        differing = f"in {pixels_off:,} of {values:,} values, by up to {levels} of 255, expected {expected}"
        problems.insert(0, f"the picture inside the file differs from xdet's {differing}")
    return _note(count, pixels_off, values, levels, heads_off), problems


def _moved(detections: BatchDetections, boxes_xyxy: NDArray[np.float32], anchors: NDArray[np.int32]) -> str | None:
    """How a photograph's boxes differ from those that belong to it; None where they do not."""
    rows = int(detections.num_detections[0])
    if rows != len(boxes_xyxy):
        return f"{counted(rows, 'box', 'boxes')}, expected {len(boxes_xyxy)} as in the prepared picture"
    if not np.array_equal(detections.anchors[0], anchors):
        return "other boxes than in the prepared picture, though the raw head is equal"
    apart = float(np.abs(detections.boxes_xyxy[0, :rows] - boxes_xyxy).max(initial=0))
    return f"a box is {apart:.3g} of the photograph away from where it belongs" if apart > BOX_ROOM else None


def _note(count: int, pixels_off: int, values: int, levels: int, heads_off: int) -> str:
    shown = f"{counted(count, 'photograph', 'photographs')} as decoded"
    if not pixels_off:
        head = "head and boxes, too" if not heads_off else _head_words(heads_off)
        return f"made the prepared picture of {shown}: 0 of {values:,} values differ; {head}"
    return f"made another picture of {shown}: {pixels_off:,} of {values:,} values differ, by at most {levels} of 255"


def _head_words(differing: int) -> str:
    return f"{counted(differing, 'value', 'values')} of the raw head {'differs' if differing == 1 else 'differ'}"
