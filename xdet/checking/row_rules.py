"""What a result's rows must be by themselves, whatever the head: the contract's rules that need no decoder to be checked.

Boxes are those of the head; scores lie above the threshold and fall; rows of equal score stand in the order of their (anchor,
class) index; no box stands twice; rows behind the count are padding. All exact: each rule compares numbers that one runtime
computed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.causes import has_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.spec import DetectorSpec, Thresholds
    from xdet.detections import BatchDetections


def broken_rules(found: BatchDetections, image: int, thresholds: Thresholds, spec: DetectorSpec) -> list[str]:
    """The rules that one image's rows break, in words; empty where they keep all."""
    return list(_broken(found, image, thresholds, spec))


def _broken(found: BatchDetections, image: int, thresholds: Thresholds, spec: DetectorSpec) -> Iterator[str]:
    count, most = int(found.num_detections[image]), found.scores.shape[1]
    if not 0 <= count <= most:
        yield f"{count} rows are counted, there are {most}"
        return
    scores = found.scores[image, :count]
    keys = list(
        zip(found.anchors[image, :count].tolist(), found.classes[image, :count].tolist(), strict=True)
    )
    strange = [key for key in keys if not has_box(spec, key)]
    if strange:
        yield f"box {strange[0][0]} of class {strange[0][1]} is none of the head's"
    low = np.flatnonzero(~(scores > np.float32(thresholds.score)))
    if low.size:
        yield f"box {keys[low[0]][0]} is kept at score {scores[low[0]]:.7g}, which is not above the threshold"
    if (scores[1:] > scores[:-1]).any():
        yield "the rows are not sorted by score"
    for row, (before, after) in enumerate(pairwise(keys)):
        if scores[row] == scores[row + 1] and before > after:
            yield f"box {before[0]} stands before box {after[0]} at the same score, {scores[row]:.7g}"
            break
    if len(set(keys)) < count:
        yield "a box stands in two rows"
    behind = slice(count, None)
    padding = (
        (found.boxes_xyxy[image, behind], 0),
        (found.scores[image, behind], 0),
        (found.classes[image, behind], -1),
        (found.anchors[image, behind], -1),
    )
    if any((values != fill).any() for values, fill in padding):
        yield f"the rows behind the first {count} are not padding"
