"""The sidecar: ``<stem>.xdet.json`` beside a source model says what the model file cannot.

::

    {"head": "yolo_v2" or another of docs/heads.md, or "none", "class_names": ["person"],
     "anchors": [[w, h], ...], "anchor_unit": "cell" | "image" | "pixel", "scale_x_y": [1.05, 1.05],
     "rescaling": {"scale": 0.00392157, "offset": 0.0},
     "resize": "nearest" | "bilinear" | "bilinear-antialias" | "letterbox",
     "priors": "file.npy" | "coco-ssd", "prior_format": "yxhw" | "xywh" | "xyxy" | "yxyx", "variances": [0.1, 0.1, 0.2,
     0.2], "score_activation": "none" | "sigmoid" | "softmax",
     "color": "rgb" | "bgr" | "grey", "licence": "...", "source": "..."}

Every key may be missing; an unknown, repeated or null one is an error, because a misspelt key would otherwise
be a silent guess. ``xdet describe`` writes only what somebody states, never a default; a quantised input's rescaling is
the file's own and stays out.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from converters.description.priors import PriorFormat, PriorStatement, ScoreActivation, require_variances
from converters.description.values import (
    ASSUMED,
    INPUT,
    SizesWh,
    StatedUnit,
    check_class_names,
    finite_float,
    located,
    read_small_text,
    sizes_from_values,
)
from converters.errors import LISTED, SourceFileError, list_some, quote_some
from converters.heads import HEADS
from converters.heads.grids import AnchorHead, row_of
from converters.heads.yolo_v2 import YoloV2
from converters.spec import SIDECAR_SUFFIX, Anchors, Color, Rescaling, ResizeRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.description.statements import SourceDescription

SUFFIX = SIDECAR_SUFFIX
LONGEST_SLIP = 40  # no longer key is a slip of the pen


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar states, key by key; None = not stated.

    ``file`` is its name in messages; a file of ``priors`` stands beside it; ``anchor_unit`` without anchors is that of
    a list from elsewhere; ``xy_scales`` are YOLO v4's ``scale_x_y``, the finest grid's first.
    """

    file: str
    head: str | None = None
    class_names: tuple[str, ...] | None = None
    anchors: SizesWh | None = None
    anchor_unit: StatedUnit | None = None
    xy_scales: tuple[float, ...] = ()
    rescaling: Rescaling | None = None
    resize: ResizeRule | None = None
    color: Color | None = None
    priors: PriorStatement = field(default_factory=PriorStatement)
    licence: str | None = None
    source: str | None = None


def sidecar_path(model: Path) -> Path:
    """Where the sidecar of ``model`` would be."""
    return model.parent / f"{model.stem}{SUFFIX}"


def find_sidecar(model: Path) -> Sidecar | None:
    """The sidecar beside ``model``, or None when there is no such file."""
    try:
        path = sidecar_path(model)
        exists = path.exists()
    except ValueError:  # a path without a file name, or with a NUL character: nothing can be beside it
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise SourceFileError(f"sidecar of '{model}' cannot be read: {error.strerror or error}") from error
    return read_sidecar(path) if exists else None


def read_sidecar(path: Path) -> Sidecar:
    """Read and check one sidecar."""
    where = f"sidecar '{path.name}'"
    data = _json_object(read_small_text(path, "sidecar"), where)
    _refuse_unknown(data, KEYS, where)
    values: dict[str, Any] = {}
    for key in filter(data.__contains__, READERS):
        with located(f"{where}: {key}"):
            values[key] = READERS[key](data[key])
    if values.get("anchor_unit") == "image" and "anchors" in values:
        with located(f"{where}: anchor_unit"):
            Anchors(values["anchors"], "image")
    named, *others = (values.pop(key, None) for key in ("priors", "prior_format", "variances", "score_activation"))
    if named is not None and not named.startswith("coco-ssd"):
        named = str(path.parent / named)
    if "rescaling" in values:
        values["rescaling"] = _rescaling(values["rescaling"], f"{where}: rescaling")
    xy_scales = values.pop("scale_x_y", ())
    return Sidecar(path.name, xy_scales=xy_scales, priors=PriorStatement(named, *others), **values)


def _json_object(text: str, where: str) -> Mapping[str, object]:
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        msg = f"{where}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        raise SourceFileError(msg) from error
    except (ValueError, RecursionError) as error:
        raise SourceFileError(f"{where}: {error}") from error
    if not isinstance(data, dict):
        raise SourceFileError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return data


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = sorted(key for key, count in counts.items() if count > 1)
        raise ValueError(f"repeated keys: {quote_some(repeated)}")
    return data


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _refuse_unknown(data: Mapping[str, object], keys: Sequence[str], where: str) -> None:
    unknown = [key for key in data if key not in keys]
    if unknown:
        listed = list_some([*map(partial(_complain, keys=keys), unknown[:LISTED]), *unknown[LISTED:]])
        raise SourceFileError(f"{where}: unknown keys {listed}; known are {', '.join(keys)}")


def _complain(key: str, keys: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, keys, n=1) if len(key) < LONGEST_SLIP else []
    return f"{key!r:.80}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _one_of(allowed: Sequence[str]) -> Callable[[object], Any]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}, found {value!r}")
        return value

    return read


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r}")  # noqa: TRY004 - one error type for malformed values
    return value


def _pairs(value: object) -> SizesWh:
    """``[[w, h], ...]``; a flat list of numbers is for options and yaml only."""
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 2 for row in value):
        raise ValueError(f"expected [[width, height], ...], found {value!r}")
    return sizes_from_values(value)


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f'expected {{"scale": ..., "offset": ...}}, found {value!r}')  # noqa: TRY004 - as above
    return value


def _scales(value: object) -> tuple[float, ...]:
    scales = value if isinstance(value, list) else []
    if not scales or any(type(scale) not in (int, float) or not 1 <= scale <= 2 for scale in scales):
        raise ValueError(f"expected a list of numbers in 1..2, one of each grid, found {value!r}")
    return tuple(map(float, scales))


READERS: Mapping[str, Callable[[object], Any]] = {
    "head": _one_of((*HEADS, "none")),
    "class_names": check_class_names,
    "anchors": _pairs,
    "anchor_unit": _one_of(get_args(StatedUnit)),
    "scale_x_y": _scales,
    "rescaling": _object,
    "resize": _one_of(get_args(ResizeRule)),
    "color": _one_of(get_args(Color)),
    "licence": _text,
    "source": _text,
    "priors": _text,
    "prior_format": _one_of(get_args(PriorFormat)),
    "variances": require_variances,
    "score_activation": _one_of(get_args(ScoreActivation)),
}
KEYS = tuple(READERS)


def _rescaling(numbers: Mapping[str, object], where: str) -> Rescaling:
    _refuse_unknown(numbers, ("scale", "offset"), where)
    scale, offset = (_number(numbers, key, where) for key in ("scale", "offset"))
    with located(where):
        return Rescaling(scale, offset)


def _number(data: Mapping[str, object], key: str, where: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = repr(value) if key in data else "nothing"
        raise SourceFileError(f"{where}.{key}: expected a number, found {shown}")
    with located(f"{where}.{key}"):
        return finite_float(value)


def sidecar_data(description: SourceDescription, folder: Path) -> dict[str, Any]:
    """The keys and values of a sidecar."""
    spec, stated = description.spec, description.stated_by
    data: dict[str, Any] = {"head": "none" if spec.head is None or not spec.gives_boxes else row_of(spec.head)}
    if spec.class_names and stated["class_names"] != ASSUMED:
        data["class_names"] = list(spec.class_names)
    if isinstance(spec.head, YoloV2):
        data["anchors"] = [list(pair) for pair in spec.head.anchors.sizes_wh]
        data["anchor_unit"] = spec.head.anchors.unit
    if isinstance(spec.head, AnchorHead):
        finest_first = sorted(spec.head.grids, key=lambda grid: -grid.rows * grid.columns)
        data["anchors"] = [list(pair) for grid in finest_first for pair in grid.anchors_px]
        data["anchor_unit"] = "pixel"
        if any(grid.xy_scale != 1 for grid in finest_first):
            data["scale_x_y"] = [grid.xy_scale for grid in finest_first]
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
