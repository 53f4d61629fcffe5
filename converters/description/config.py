"""What ``--config`` names: the zoo's training yaml, or Darknet's ``.cfg``.

The zoo's yaml states model family, input shape, classes, pixel encoding, anchors, evaluation settings. Two layouts
exist: ``general.model_type`` (zoo 2.x and 3.x) and ``model.model_type`` (4.x). Every key may be missing and unknown
keys are left alone, since the file belongs to a training run; what is read must be sound, though.

A list of anchors is often left out of the yaml because the zoo's code holds a default per family
(``FAMILIES``). In the 4.x layout that list is meant in grid cells. The older layout serves two releases with
two units: there the unit stays open.

Of ``preprocessing.resizing`` only ``aspect_ratio: fit`` is a rule of ours. Source of what the two others do: the
loaders of pictures in STMicroelectronics/stm32ai-modelzoo (object_detection, 4.x), which read ``crop`` and ``padding``
alike.

Yaml as data: a mapping from text, a value by its key path, numbers such as ``1/127.5``, shapes.

Nothing is evaluated. Aliases are refused, since a kilobyte of them can unfold into gigabytes, and so are tags
(``!!int``), and nesting, lengths of numbers and numbers of values that no training yaml has: the parser's time grows
with the square of some.

A ``.cfg`` states size, channels, classes and anchors of a YOLO detector, in the order in which heads take them.
``[region]`` (v2) lists anchors in cells of its grid. Each ``[yolo]`` (v3, v4) picks its anchors out of one list by
``mask``, in pixels of the network's picture; the grids are ordered finest first here, by their smallest anchors.
Nothing else of the file is read, and its weights are none of its business. Source of the keys: ``src/parser.c`` of
AlexeyAB/darknet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from converters.description.values import (
    SizesWh,
    check_class_names,
    finite_float,
    located,
    read_small_text,
    sizes_from_text,
    sizes_from_values,
)
from converters.errors import OptionError, SourceFileError
from converters.spec import Color, EvaluationSettings, Rescaling, ResizeRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import yaml

    from converters.description.values import StatedUnit
    from converters.heads.yolo_v2 import AnchorUnit

MAX_DEPTH = 32
MAX_EVENTS = 20_000  # values, keys, and ends and starts of lists
MAX_NUMBER = 64  # characters
_DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(rf"\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL})\s*)?")
_SHAPE = re.compile(r"\s*[\[(]\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,?\s*[\])]\s*")


def load_mapping(text: str, where: str) -> Mapping[str, object]:
    """Load one yaml document that must be a mapping."""
    import yaml  # 7 ms, in conversions of which few read a yaml

    try:
        _refuse_what_explodes(text, where)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SourceFileError(f"{where}{line}: not yaml: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        raise SourceFileError(f"{where}: not yaml: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise SourceFileError(f"{where}: expected a yaml mapping, found {type(data).__name__}")
    return data


def _refuse_what_explodes(text: str, where: str) -> None:
    import yaml

    depth = 0
    resolver = yaml.resolver.Resolver()
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1
        if count > MAX_EVENTS:
            raise SourceFileError(f"{where}, line {line}: more than {MAX_EVENTS} values: is it the right file?")
        if getattr(event, "tag", None) is not None:
            raise SourceFileError(f"{where}, line {line}: yaml tag {event.tag!r:.60}: leave it out")
        if _is_long_number(event, resolver):
            raise SourceFileError(
                f"{where}, line {line}: a number of {len(event.value)} characters: quote it if it is text"
            )
        if isinstance(event, yaml.AliasEvent):
            raise SourceFileError(f"{where}, line {line}: yaml alias *{event.anchor}: write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SourceFileError(f"{where}, line {line}: nested more than {MAX_DEPTH} levels deep")


def _is_long_number(event: yaml.Event, resolver: yaml.resolver.Resolver) -> bool:
    """Whether the parser would make more of a long text than a text."""
    import yaml

    if not isinstance(event, yaml.ScalarEvent) or not event.implicit[0] or len(event.value) <= MAX_NUMBER:
        return False
    return str(resolver.resolve(yaml.ScalarNode, event.value, (True, False))) != "tag:yaml.org,2002:str"


def lookup(data: Mapping[str, object], key_path: str, where: str) -> object:
    """The value at ``a.b.c``, None where any part is missing or empty."""
    value: object = data
    walked: list[str] = []
    for key in key_path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise SourceFileError(f"{where}: {'.'.join(walked)}: expected keys below it, found {value!r}")
        value = value.get(key)
        walked.append(key)
    return value


def number_from_yaml(value: object) -> float:
    """A number, or text like ``"1/127.5"``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return finite_float(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        shown = "nothing" if value is None else repr(value)
        raise ValueError(f"expected a number or a fraction like 1/255, found {shown}")
    numerator, denominator = float(match[1]), float(match[2] or 1)
    if denominator == 0:
        raise ValueError(f"{value!r} divides by zero")
    return finite_float(numerator / denominator)


def count_from_yaml(value: object) -> int:
    """A whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number above 0, found {value!r}")
    return value


def shape_from_yaml(value: object) -> tuple[int, int, int]:
    """Height, width, channels from ``"(192, 192, 3)"`` or ``[192, 192, 3]``."""
    if isinstance(value, str) and (match := _SHAPE.fullmatch(value)):
        return int(match[1]), int(match[2]), int(match[3])
    if isinstance(value, list) and len(value) == 3:
        return count_from_yaml(value[0]), count_from_yaml(value[1]), count_from_yaml(value[2])
    raise ValueError(f"expected (height, width, channels), found {value!r}")


Layout = Literal["general", "model"]
Section = tuple[str, "Mapping[str, str]"]
_SECTION = re.compile(r"\[([A-Za-z0-9_]+)\]\s*")
_NET = re.compile(r"^\s*\[(net|network)\]\s*$", re.MULTILINE | re.IGNORECASE)
T = TypeVar("T")

_TINY_YOLO_V2: SizesWh = (
    (0.076023, 0.258508),
    (0.163031, 0.413531),
    (0.234769, 0.702585),
    (0.427054, 0.715892),
    (0.748154, 0.857092),
)
_ST_YOLO_LC_V1: SizesWh = ((0.0252, 0.06), (0.0772, 0.1829), (0.1696, 0.4167), (0.3339, 0.6559), (0.7226, 0.7348))
FAMILIES: Mapping[str, SizesWh] = {
    "tiny_yolo_v2": _TINY_YOLO_V2,
    "yolov2t": _TINY_YOLO_V2,
    "st_yolo_lc_v1": _ST_YOLO_LC_V1,
    "st_yololcv1": _ST_YOLO_LC_V1,
}
_DEFAULT_UNIT: Mapping[Layout, AnchorUnit | None] = {"general": None, "model": "cell"}
_SHAPE_KEYS = ("model.input_shape", "general.input_shape", "training.model.input_shape")
_RESIZE: Mapping[str, ResizeRule] = {"nearest": "nearest", "bilinear": "bilinear"}
_NOT_FIT = ("crop", "padding")
_NO_SCALING = (
    "takes pixels as they are, without scaling: the middle of a larger photograph, black bars around a smaller one; no "
    "rule of xdet does that (letterbox scales, with grey bars)"
)
_COLORS: Mapping[str, Color] = {"rgb": "rgb", "bgr": "bgr", "grayscale": "grey"}


@dataclass(frozen=True, slots=True)
class ZooConfig:
    """What a zoo yaml or a Darknet cfg states; None = not stated."""

    file: str  # its name in messages
    layout: Layout | None = None  # which key named the family: ``"general"`` (2.x, 3.x) or ``"model"`` (4.x)
    model_type: str | None = None  # the family, in lower case; a cfg names a ``head`` instead, and a number of classes
    input_shape: tuple[int, int, int] | None = None  # height, width, channels
    class_names: tuple[str, ...] | None = None
    rescaling: Rescaling | None = None
    resize: ResizeRule | None = None
    color: Color | None = None
    anchors: SizesWh | None = None  # (width, height) pairs, the finest grid's first; a yaml states no unit
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)  # thresholds of the training run
    anchor_unit: StatedUnit | None = None
    head: Literal["yolo_v2", "yolo_v3"] | None = None
    num_classes: int | None = None
    size_hw: tuple[int, int] | None = None  # rows and columns in training, which the network need not have
    xy_scales: tuple[float, ...] = ()  # YOLO v4's ``scale_x_y`` of each grid
    # why no rule is what the file states instead of ``resize``, in words; None for nothing
    foreign_resize: str | None = None

    def head_of_family(self) -> Literal["yolo_v2", "yolo_v3"] | None:
        """The head that is named, or that of the named family; None when there is neither."""
        if self.model_type is None:
            return self.head
        if self.model_type not in FAMILIES:
            raise OptionError(
                f"--config '{self.file}': model_type '{self.model_type}' is not supported; supported are "
                f"{', '.join(FAMILIES)}. --head none converts the model without a decoder"
            )
        return "yolo_v2"

    def default_anchors(self) -> tuple[SizesWh, AnchorUnit | None] | None:
        """The family's list and its unit where the layout settles it; None unless a known family is named."""
        if self.layout is None or self.model_type is None or self.model_type not in FAMILIES:
            return None
        return FAMILIES[self.model_type], _DEFAULT_UNIT[self.layout]


def zoo_config(text: str, file: str) -> ZooConfig:
    """What a training yaml of either layout states."""
    where = f"config '{file}'"
    data = load_mapping(text, where)
    layout, model_type = _family(data, where)
    color = _require(data, "preprocessing.color_mode", tuple(_COLORS), where)
    resize, foreign_resize = _resizing(data, where)
    shapes = (_read(data, key, where, shape_from_yaml) for key in _SHAPE_KEYS)
    return ZooConfig(
        file=file,
        layout=layout,
        model_type=model_type,
        input_shape=next((shape for shape in shapes if shape is not None), None),
        class_names=_read(data, "dataset.class_names", where, check_class_names),
        rescaling=_rescaling(data, where),
        resize=resize,
        foreign_resize=foreign_resize,
        color=None if color is None else _COLORS[color],
        anchors=_read(data, "postprocessing.yolo_anchors", where, _sizes),
        evaluation=EvaluationSettings(
            score_threshold=_read(data, "postprocessing.confidence_thresh", where, _fraction),
            nms_iou_threshold=_read(data, "postprocessing.NMS_thresh", where, _fraction),
            evaluation_iou=_read(data, "postprocessing.IoU_eval_thresh", where, _fraction),
            max_detections=_read(data, "postprocessing.max_detection_boxes", where, count_from_yaml),
        ),
    )


def _read(data: Mapping[str, object], key: str, where: str, reader: Callable[[object], T]) -> T | None:
    """What a reader makes of the value under a key; None where there is none."""
    value = lookup(data, key, where)
    if value is None:
        return None
    with located(f"{where}: {key}"):
        return reader(value)


def _sizes(value: object) -> SizesWh:
    return sizes_from_text(value) if isinstance(value, str) else sizes_from_values(value)


def _fraction(value: object) -> float:
    number = number_from_yaml(value)
    if not 0 <= number <= 1:
        raise ValueError(f"expected 0..1, found {number}")
    return number


def _family(data: Mapping[str, object], where: str) -> tuple[Layout | None, str | None]:
    old = _word(data, "general.model_type", where)
    new = _word(data, "model.model_type", where)
    if old is not None and new is not None:
        raise SourceFileError(f"{where}: both general.model_type and model.model_type are set: keep one layout")
    if new is not None:
        return "model", new
    return (None, None) if old is None else ("general", old)


def _word(data: Mapping[str, object], key: str, where: str) -> str | None:
    return _read(data, key, where, _word_from_yaml)


def _word_from_yaml(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a word, found {value!r}")  # noqa: TRY004 - one error type for malformed values
    return value.strip().lower()


def _require(data: Mapping[str, object], key: str, allowed: tuple[str, ...], where: str) -> str | None:
    """The word under ``key``; any but the allowed ones would need pixels this project does not make."""
    word = _word(data, key, where)
    if word is not None and word not in allowed:
        raise SourceFileError(f"{where}: {key}: '{word}' is not supported, expected {' or '.join(allowed)}")
    return word


def _resizing(data: Mapping[str, object], where: str) -> tuple[ResizeRule | None, str | None]:
    """The rule that is stated, or why none of ours is."""
    key = "preprocessing.resizing"
    ratio = _require(data, f"{key}.aspect_ratio", ("fit", *_NOT_FIT), where)
    word = _word(data, f"{key}.interpolation", where)
    if ratio in _NOT_FIT:
        return None, f"{where}: {key}.aspect_ratio: '{ratio}' {_NO_SCALING}"
    if word is not None and word not in _RESIZE:
        ours = " and ".join(_RESIZE)
        return (None, f"{where}: {key}.interpolation: '{word}' is none of the zoo's rules that xdet has ({ours})")
    return None if word is None else _RESIZE[word], None


def _rescaling(data: Mapping[str, object], where: str) -> Rescaling | None:
    key = "preprocessing.rescaling"
    scale, offset = lookup(data, f"{key}.scale", where), lookup(data, f"{key}.offset", where)
    if scale is None and offset is None:
        return None
    with located(f"{where}: {key}.scale"):
        scale_number = number_from_yaml(scale)
    with located(f"{where}: {key}.offset"):
        offset_number = number_from_yaml(offset)
    with located(f"{where}: {key}"):
        return Rescaling(scale_number, offset_number)


def is_darknet(text: str) -> bool:
    """Whether a text is such a file, and no yaml: its first section is ``[net]``."""
    return _NET.search(text) is not None


def read_config(path: Path) -> ZooConfig:
    """Read what ``--config`` names: a zoo yaml or a Darknet cfg."""
    text = read_small_text(path, "config")
    return read_darknet(text, path.name) if is_darknet(text) else zoo_config(text, path.name)


def read_darknet(text: str, file: str) -> ZooConfig:
    """What a cfg states, as a configuration."""
    where = f"config '{file}'"
    sections = _sections(text, where)
    net = next(values for name, values in sections if name in ("net", "network"))
    yolo = [values for name, values in sections if name == "yolo"]
    region = [values for name, values in sections if name == "region"]
    if not yolo and len(region) != 1:
        raise SourceFileError(f"{where}: expected a [region] section or several [yolo] sections, found neither")
    if any(values.get("new_coords", "0") != "0" for values in yolo):
        raise SourceFileError(
            f"{where}: new_coords (scaled YOLO v4) is another head, which has no decoder here; --head none"
        )
    grids = sorted((_masked(values, where), _scale(values, where)) for values in yolo)  # the finest first
    return ZooConfig(
        file=file,
        head="yolo_v3" if yolo else "yolo_v2",
        size_hw=(_whole(net, "height", where, default=416), _whole(net, "width", where, default=416)),
        color="grey" if _whole(net, "channels", where, default=3) == 1 else "rgb",
        num_classes=_whole((yolo or region)[0], "classes", where, default=20),
        anchors=tuple(anchor for anchors, _ in grids for anchor in anchors) or _anchors(region[0], where),
        anchor_unit="pixel" if yolo else "cell",
        xy_scales=tuple(scale for _, scale in grids),
    )


def _sections(text: str, where: str) -> Sequence[Section]:
    sections: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].split(";")[0].strip()
        section = _SECTION.fullmatch(content)
        if section:
            sections.append((section[1].lower(), {}))
        elif content:
            key, equals, value = content.partition("=")
            if not equals or not sections:
                raise SourceFileError(
                    f"{where}, line {number}: expected [section] or key = value, found {content!r:.60}"
                )
            sections[-1][1][key.strip()] = value.strip()
    return sections


def _whole(values: Mapping[str, str], key: str, where: str, default: int = 0) -> int:
    text = values.get(key, str(default))
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise SourceFileError(f"{where}: {key}: expected a whole number, found {text!r:.40}")
    return int(text)


def _scale(values: Mapping[str, str], where: str) -> float:
    with located(f"{where}: scale_x_y"):
        return number_from_yaml(values.get("scale_x_y", "1"))


def _anchors(values: Mapping[str, str], where: str) -> SizesWh:
    with located(f"{where}: anchors"):
        return sizes_from_text(values.get("anchors", ""))


def _masked(values: Mapping[str, str], where: str) -> SizesWh:
    """The anchors of one grid."""
    listed, mask = _anchors(values, where), values.get("mask", "")
    places = [int(place) for place in re.findall(r"[0-9]{1,4}", mask)]
    if not places or max(places) >= len(listed):
        raise SourceFileError(f"{where}: mask: expected places in a list of {len(listed)} anchors, found {mask!r:.40}")
    return tuple(listed[place] for place in places)
