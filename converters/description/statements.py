"""Where a detector's description comes from: options, then zoo yaml, then sidecar, then the model file's own metadata.

Each value is taken from the first place that states it. Two finer rules:

- A unit of anchors belongs to the list it stands beside. Only ``--anchor-unit``, and a sidecar that has a
  unit but no anchors, speak about a list from elsewhere.
- A zoo family's default anchors are nobody's statement: they are used when the yaml names the family and
  neither an option, the yaml nor the sidecar gives a list.

Where nobody says anything: resize ``nearest`` (the zoo's own), thresholds 0.5 and 0.5, 100 boxes (a yaml's
thresholds tell how its training was evaluated, ``ZooConfig.evaluation``, and never end up here), class names
``class_0``, ...; the last two are named in ``DetectorSpec.assumed``, which every command that opens the model tells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from converters.description.darknet import read_config
from converters.description.precedence import (
    Told,
    default_anchors,
    gather,
    stated_anchors,
    stated_kind,
    stated_rescaling,
    unit_of,
    who_says,
)
from converters.description.priors import PriorStatement
from converters.description.recognition import RECOGNITIONS, Stated, recognise, require_fit
from converters.description.sidecar import SUFFIX, Sidecar, find_sidecar
from converters.description.values import (
    StatedAnchors,
    StatedUnit,
    can_only_be_cells,
    check_class_names,
    resolve_rescaling,
    settle_unit,
)
from converters.description.zoo_yaml import ZooConfig
from converters.errors import OptionError, SourceFileError, attempt_all
from converters.facts import SourceFacts
from converters.heads.base import default_class_names
from converters.heads.yolo_v2 import Anchors, YoloV2, describe_fit, fitting_counts, grid_of
from converters.spec import (
    Color,
    DetectorSpec,
    EvaluationSettings,
    ImageInput,
    Rescaling,
    ResizeRule,
    Suppression,
    Thresholds,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from converters.facts import PostProcess
    from converters.heads.base import Head

__all__ = ["SourceDescription", "SourceFacts", "SourceOptions", "describe_source", "resolve_spec"]

HeadChoice = str  # a kind of ``RECOGNITIONS``, or "auto" or "none"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a caller may say about a source model; None = not said.

    Attributes:
        config: a zoo yaml of either layout.
        anchors: (width, height) pairs.
        anchor_unit: unit of the anchors, wherever they come from.
        class_names: one name per class.
        resize: how photographs get the network's size.
        color: what the channels of the picture are.
        rescaling: pixel to real number.
        input_size: rows and columns of the picture, for files that leave them open.
        head: ``"auto"`` takes what the yaml or sidecar says, else what the outputs show.
        score_threshold: default score threshold of the finished model.
        iou_threshold: default suppression threshold of the finished model.
        max_detections: rows of the finished model's output.
        class_agnostic: boxes suppress each other across classes.
        priors: what is said of an SSD head.
    """

    config: Path | None = None
    anchors: tuple[tuple[float, float], ...] | None = None
    anchor_unit: StatedUnit | None = None
    class_names: tuple[str, ...] | None = None
    resize: ResizeRule | None = None
    color: Color | None = None
    rescaling: Rescaling | None = None
    input_size: tuple[int, int] | None = None
    head: HeadChoice = "auto"
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    class_agnostic: bool = False
    priors: PriorStatement = field(default_factory=PriorStatement)

    def __post_init__(self) -> None:
        if self.head not in (choices := ("auto", *RECOGNITIONS, "none")):
            raise OptionError(f"--head must be one of {', '.join(choices)}, got {self.head!r}")
        if self.anchor_unit is not None and self.anchor_unit not in get_args(StatedUnit):
            raise OptionError(f"--anchor-unit must be 'cell', 'image' or 'pixel', got {self.anchor_unit!r}")
        for option, value, rule in (("resize", self.resize, ResizeRule), ("color", self.color, Color)):
            if value is not None and value not in get_args(rule):
                raise OptionError(f"--{option} must be one of {', '.join(get_args(rule))}, got {value!r}")
        if self.anchors is not None:
            try:
                Anchors(self.anchors, "cell")
            except (TypeError, ValueError) as error:
                raise OptionError(f"--anchors: expected (width, height) pairs: {error}") from error
        if self.class_names is not None:
            try:
                check_class_names(self.class_names)
            except ValueError as error:
                raise OptionError(f"--classes: {error}") from error
        if self.config is not None and not isinstance(self.config, Path):
            raise OptionError(f"--config must be a path, got {self.config!r}")
        if not isinstance(self.class_agnostic, bool):
            raise OptionError(f"--class-agnostic must be true or false, got {self.class_agnostic!r}")
        _resolve_thresholds(self, None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a process of our own."""
        return {**asdict(self), "config": None if self.config is None else str(self.config)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SourceOptions:
        """Read what ``to_dict`` wrote."""
        config, anchors, rescaling, priors = (data[name] for name in ("config", "anchors", "rescaling", "priors"))
        names, variances = data["class_names"], priors["variances"]
        return cls(
            **{
                **data,
                "config": None if config is None else Path(config),
                "anchors": None if anchors is None else tuple((w, h) for w, h in anchors),
                "class_names": None if names is None else tuple(names),
                "rescaling": None if rescaling is None else Rescaling(**rescaling),
                "input_size": None if data["input_size"] is None else tuple(data["input_size"]),
                "priors": PriorStatement(**{**priors, "variances": None if variances is None else tuple(variances)}),
            }
        )


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """What all statements about a source model amount to.

    Attributes:
        spec: the detector.
        notes: what was stated and not used, one sentence each.
        evaluation: with what the yaml evaluates its training; None where no yaml states anything.
        licence: the sidecar's words; None where it has none.
        origin: where the model comes from, in the sidecar's words (its key ``source``); None likewise.
        priors: what is stated of an SSD head.
        stated_by: fact -> who states it, as messages name it; ``"assumed"`` where nobody does.
    """

    spec: DetectorSpec
    notes: tuple[str, ...] = ()
    evaluation: EvaluationSettings | None = None
    licence: str | None = None
    origin: str | None = None
    priors: PriorStatement = field(default_factory=PriorStatement)
    stated_by: Mapping[str, str] = field(default_factory=dict)


def describe_source(path: Path, facts: SourceFacts, options: SourceOptions) -> SourceDescription:
    """Describe the detector in a source model of any format.

    Args:
        path: the model's file, which tells where its sidecar is.
        facts: what the model itself tells.
        options: what the caller says.

    Raises:
        OptionError: the options are incomplete or contradict the model.
        SourceFileError: the sidecar or yaml is missing, damaged or contradicts the model.
        UnsupportedModelError: the model's input cannot take pixels.
    """
    config = None if options.config is None else read_config(options.config)
    sidecar = find_sidecar(path)
    spec, notes, told = _resolve(facts, options, sidecar or Sidecar(file=""), config or ZooConfig(file=""))
    return SourceDescription(
        spec=spec,
        notes=(*told.all_notes(), *notes),
        priors=options.priors if sidecar is None else options.priors.behind(sidecar.priors),
        stated_by=told.stated_by(),
        evaluation=None if config is None or config.evaluation == EvaluationSettings() else config.evaluation,
        licence=None if sidecar is None else sidecar.licence,
        origin=None if sidecar is None else sidecar.source,
    )


@dataclass(frozen=True, slots=True)
class Statements:
    """What is stated of a detector, complete or not; None where nobody states it.

    Attributes:
        anchors: the list with its unit; None where either is stated nowhere, and for heads without a grid.
        class_names: one name per class.
        rescaling: pixel to real number; a quantised input states it by itself.
        resize: how photographs get the network's size.
        color: what the channels of the picture are.
    """

    anchors: Anchors | None
    class_names: tuple[str, ...] | None
    rescaling: Rescaling | None
    resize: ResizeRule | None
    color: Color | None


def find_statements(
    path: Path, facts: SourceFacts, options: SourceOptions, grid_hw: tuple[int, int] | None
) -> Statements:
    """What options, yaml, sidecar and model file state, to compare it with a detector that is known.

    Args:
        path: the model's file, which tells where its sidecar is.
        facts: what the model itself tells.
        options: what the caller says.
        grid_hw: rows and columns of the head that the anchors belong to; None where it has none.

    Raises:
        SourceFileError: the sidecar or yaml is missing, damaged or contradicts the model.
        UnsupportedModelError: the model's input cannot take pixels.
    """
    config = ZooConfig(file="") if options.config is None else read_config(options.config)
    sidecar = find_sidecar(path) or Sidecar(file="")
    _check_input_shape(facts, config)
    listed = stated_anchors(options, sidecar, config) or default_anchors(config)
    unit = None if listed is None else unit_of(listed, options, sidecar)
    anchors = None
    if listed is not None and grid_hw is not None and (unit or can_only_be_cells(listed.sizes_wh, facts, grid_hw)):
        anchors = settle_unit(listed, unit, facts, grid_hw)
    told = gather(facts, options, sidecar, config)
    rescaling = stated_rescaling(facts, options, sidecar, config)
    is_fixed = facts.input_dtype != "float32"
    return Statements(
        anchors=anchors,
        class_names=told.of("class_names"),
        rescaling=resolve_rescaling(facts, rescaling) if is_fixed or rescaling is not None else None,
        resize=told.of("resize"),
        color=_stated_color(facts, told),
    )


def resolve_spec(
    facts: SourceFacts, options: SourceOptions, sidecar: Sidecar | None, config: ZooConfig | None
) -> DetectorSpec:
    """Merge everything that is stated into one description, by the rules in the module's docstring.

    Raises:
        OptionError: something needed is stated nowhere, or anchors and classes do not fit the head.
        SourceFileError: the yaml or sidecar contradicts the model.
        UnsupportedModelError: the model's input cannot take pixels.
    """
    return _resolve(facts, options, sidecar or Sidecar(file=""), config or ZooConfig(file=""))[0]


def _resolve(
    facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig
) -> tuple[DetectorSpec, tuple[str, ...], Told]:
    """The description, notes on what was stated and not used, and who states what; all that is in the way at once."""
    told = gather(facts, options, sidecar, config)
    resize: ResizeRule | None = told.of("resize")
    rescaling, color, described, *_ = attempt_all(
        lambda: resolve_rescaling(facts, stated_rescaling(facts, options, sidecar, config)),
        lambda: _stated_color(facts, told) or "rgb",
        lambda: _resolve_head(facts, options, sidecar, config, told),
        lambda: _check_input_shape(facts, config),
        lambda: _check_resize(options, config),
    )
    image = ImageInput(facts.height, facts.width, rescaling, resize or "nearest", color)
    make, notes, told = described
    if config.foreign_resize is not None:
        notes += (f"--resize {resize} is followed; {config.foreign_resize}",)
    return make(image), notes, told


def _resolve_head(
    facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig, told: Told
) -> tuple[Callable[[ImageInput], DetectorSpec], tuple[str, ...], Told]:
    """The description but for the picture, notes, and who states what."""
    kind, resize = stated_kind(options, sidecar, config), told.of("resize")
    thresholds = _resolve_thresholds(options, facts.postprocess)
    if kind == "none":
        head, notes = _known_head(facts, options, sidecar, config, told.names_of_people())
        raw = facts.raw_outputs() if head is None else head.raw_outputs()
        told = told if head is None else told.fitting(head)
        names, assumed = told.of("class_names") or (), () if resize else ("resize",)
        return lambda image: DetectorSpec(image, head, names, thresholds, raw, assumed), notes, told
    notes = () if kind == "auto" else require_fit(facts, kind, asked=options.head == kind)
    kind = recognise(facts) if kind == "auto" else kind
    recognition = RECOGNITIONS[kind]
    anchors = stated_anchors(options, sidecar, config)
    if anchors is not None and not recognition.anchors:
        notes = (*notes, f"the anchors ({anchors.where}) are left out, since this head has none")
    anchors = anchors or default_anchors(config)
    unit = None if anchors is None else unit_of(anchors, options, sidecar)
    priors, people = options.priors.behind(sidecar.priors), told.names_of_people()
    stated = Stated(anchors, unit, people, _how_to_state_anchors(facts, kind), priors, config.xy_scales)
    known = recognition.build(facts, stated)
    told = replace(told.fitting(known), others=who_says(anchors, options, sidecar, config))
    notes += _compare_with(config, facts, known)
    names = told.of("class_names")
    assumed = (*(() if names else ("class_names",)), *(() if resize else ("resize",)))
    if anchors is not None and recognition.anchors:
        notes += _doubts(anchors, unit, sidecar)
    if facts.postprocess is not None:
        notes += (_told_of_postprocess(facts.postprocess),)
    suppression = _resolve_suppression(options, facts.postprocess)
    called = names or default_class_names(known.num_classes)
    return (
        lambda image: DetectorSpec(image, known, called, thresholds, assumed=assumed, suppression=suppression),
        notes,
        told,
    )


def _check_input_shape(facts: SourceFacts, config: ZooConfig) -> None:
    if config.input_shape not in (None, (facts.height, facts.width, facts.channels)):
        msg = (
            f"config '{config.file}': input_shape is {config.input_shape}, but '{facts.file}' takes "
            f"({facts.height}, {facts.width}, {facts.channels}): use the yaml that belongs to this model"
        )
        raise SourceFileError(msg)


def _check_resize(options: SourceOptions, config: ZooConfig) -> None:
    """Refuse a configuration's way to resize that no rule equals, unless the caller states a rule."""
    if config.foreign_resize is not None and options.resize is None:
        raise SourceFileError(f"{config.foreign_resize}; state with --resize what photographs get instead")


def _stated_color(facts: SourceFacts, told: Told) -> Color | None:
    """What the channels are; a picture of one channel is grey, whoever says nothing.

    Raises:
        OptionError: a picture of so many channels cannot be what is stated.
    """
    stated: Color | None = told.of("color")
    if stated is not None and (stated == "grey") != (facts.channels == 1):
        wanted = "--color grey" if facts.channels == 1 else "--color rgb or bgr"
        raise OptionError(
            f"'{facts.file}' takes pictures of {facts.channels} channels, which are not {stated}: give {wanted}, or correct "
            "color where it is stated"
        )
    return "grey" if facts.channels == 1 else stated


def _compare_with(config: ZooConfig, facts: SourceFacts, head: Head) -> tuple[str, ...]:
    """Refuse a configuration of another number of classes; a note on another size, which a network may have."""
    if config.num_classes not in (None, head.num_classes):
        raise SourceFileError(
            f"config '{config.file}' has {config.num_classes} classes, the head of '{facts.file}' scores "
            f"{head.num_classes}: use the one that belongs to this model"
        )
    if config.size_hw in (None, (facts.height, facts.width)):
        return ()
    return (
        f"config '{config.file}' was trained at {config.size_hw}, '{facts.file}' takes {(facts.height, facts.width)}",
    )


def _known_head(
    facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig, class_names: tuple[str, ...] | None
) -> tuple[YoloV2 | None, tuple[str, ...]]:
    """The head behind raw outputs, where anchors are stated and fit; notes where they are not used."""
    stated = stated_anchors(options, sidecar, config)
    grid = grid_of(facts.outputs[0].shape) if len(facts.outputs) == 1 else None
    if stated is None:
        return None, ()
    why = f"the anchors ({stated.where}) are left out, since"
    if grid is None:
        return None, (f"{why} the output is no grid; raw outputs need none",)
    unit = unit_of(stated, options, sidecar)
    if unit is None and not can_only_be_cells(stated.sizes_wh, facts, grid[:2]):
        return None, (f"{why} nobody states their unit; a raw head needs none",)
    anchors = settle_unit(stated, unit, facts, grid[:2])
    count = len(anchors.sizes_wh)
    shape = facts.outputs[0].shape
    classes = dict(fitting_counts(shape)).get(count)
    if classes is None or len(class_names or ()) not in (0, classes):
        told = describe_fit(shape)
        return None, (f"{why} with the classes they do not make the head's {grid[2]} channels; {told}",)
    return YoloV2(grid[0], grid[1], anchors, classes), _doubts(stated, unit, sidecar)


def _doubts(stated: StatedAnchors, unit: StatedUnit | None, sidecar: Sidecar) -> tuple[str, ...]:
    """What speaks against a unit that is followed: the sidecar's own."""
    theirs = sidecar.anchor_unit if sidecar.anchors == stated.sizes_wh else None
    if theirs is None or unit is None or unit == theirs:
        return ()
    return (
        f"--anchor-unit {unit} is followed, though sidecar '{sidecar.file}' states these anchors with unit "
        f"'{theirs}': correct whichever is wrong",
    )


def _how_to_state_anchors(facts: SourceFacts, kind: str) -> str:
    lists = " (or tiny_yolo_v2, st_yolo_lc_v1: the ST zoo's default lists)" if kind == "yolo_v2" else ""
    units = {"yolo_v2": "cell|image|pixel", "st_yolo_x": "cell"}.get(kind, "pixel|image")
    return (
        f'give --anchors "w,h w,h ..."{lists} with --anchor-unit {units}, or --config ZOO.yaml or NET.cfg, or a sidecar '
        f"'{Path(facts.file).stem}{SUFFIX}' beside it"
    )


def _resolve_suppression(options: SourceOptions, behind: PostProcess | None) -> Suppression:
    across = options.class_agnostic or (behind is not None and behind.across_classes)
    if behind is None or across:
        several = 1 if behind is None or options.class_agnostic else behind.classes_per_box
        return Suppression(across_classes=across, unclipped=behind is not None, classes_per_box=several)
    return Suppression(unclipped=True, class_first=True, per_class=behind.per_class)


def _told_of_postprocess(behind: PostProcess) -> str:
    how = "across classes" if behind.across_classes else "class by class"
    if behind.classes_per_box > 1:
        how += f", {behind.classes_per_box} classes of each box"
    return (
        f"the file's own post-processing is replaced by the head ssd; its thresholds are the defaults unless told otherwise: "
        f"score {behind.score_threshold:g} (which counts there, so the number below it is written), "
        f"IoU {behind.iou_threshold:g}, {behind.rows} rows, suppression {how}"
    )


def _resolve_thresholds(options: SourceOptions, behind: PostProcess | None) -> Thresholds:
    default = Thresholds()
    if behind is not None:
        below = float(str(np.nextafter(np.float32(behind.score_threshold), np.float32(0))))
        rows = behind.max_detections if options.class_agnostic else behind.rows
        default = Thresholds(below, behind.iou_threshold, rows)
    try:
        return Thresholds(
            score=default.score if options.score_threshold is None else options.score_threshold,
            iou=default.iou if options.iou_threshold is None else options.iou_threshold,
            max_detections=default.max_detections if options.max_detections is None else options.max_detections,
        )
    except ValueError as error:
        raise OptionError(str(error)) from error
