"""A description as a sidecar: what ``xdet describe`` writes, so that nobody has to say it again.

Only what somebody states is written, never a default; a quantised input's rescaling is the file's own and stays out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.description.precedence import ASSUMED, INPUT
from converters.heads.grids import AnchorHead
from converters.heads.yolo_v2 import YoloV2

if TYPE_CHECKING:
    from converters.description.priors import PriorStatement
    from converters.description.statements import SourceDescription


def sidecar_data(description: SourceDescription, folder: Path) -> dict[str, Any]:
    """The keys and values of a sidecar.

    Args:
        description: of the source.
        folder: where the sidecar will stand, which its file names start from.
    """
    spec, stated = description.spec, description.stated_by
    data: dict[str, Any] = {"head": "none" if spec.head is None or not spec.gives_boxes else spec.head.kind}
    if spec.class_names and stated["class_names"] != ASSUMED:
        data["class_names"] = list(spec.class_names)
    if isinstance(spec.head, YoloV2):
        data["anchors"] = [list(pair) for pair in spec.head.anchors.sizes_wh]
        data["anchor_unit"] = spec.head.anchors.unit
    if isinstance(spec.head, AnchorHead):
        finest_first = sorted(spec.head.grids, key=lambda grid: -grid.rows * grid.columns)
        data["anchors"] = [list(pair) for grid in finest_first for pair in grid.anchors_px]
        data["anchor_unit"] = "pixel"
    if stated["rescaling"] not in (ASSUMED, INPUT):
        data["rescaling"] = {"scale": spec.image.rescaling.scale, "offset": spec.image.rescaling.offset}
    for name in ("resize", "color"):
        if stated[name] != ASSUMED:
            data[name] = getattr(spec.image, name)
    data |= _prior_data(description.priors, folder)
    texts = {"licence": description.licence, "source": description.origin}
    return data | {name: text for name, text in texts.items() if text is not None}


def sidecar_text(data: dict[str, Any]) -> str:
    """JSON text with a line per key and a final newline."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    return "{" + ",\n ".join(lines) + "}\n"


def _prior_data(priors: PriorStatement, folder: Path) -> dict[str, Any]:
    named = priors.priors
    if named is not None and Path(named).is_file():
        named = os.path.relpath(named, folder).replace(os.sep, "/")
    values = {
        "priors": named,
        "prior_format": priors.format,
        "variances": None if priors.variances is None else list(priors.variances),
        "score_activation": priors.activation,
    }
    return {name: value for name, value in values.items() if value is not None}
