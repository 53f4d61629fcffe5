"""A detector's description, from all that is stated: options, zoo yaml, sidecar, and the model file's own words.

Where nobody says anything: resize ``nearest`` (the zoo's own), thresholds 0.5 and 0.5, 100 boxes (a yaml's
thresholds tell how its training was evaluated, ``ZooConfig.evaluation``, and never end up here), class names
``class_0``, ...; the last two are named in ``DetectorSpec.assumed``, which every command that opens the model tells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from converters.description.precedence import AllStatements, Fact
from converters.description.priors import PriorStatement, require_option
from converters.description.values import StatedUnit, check_class_names, located
from converters.errors import OptionError, SourceFileError, attempt_all
from converters.heads import HEADS, recognise, require_fit
from converters.heads.base import lists_to_tuples
from converters.heads.grids import AnchorHead, row_of
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
    from collections.abc import Mapping

    from converters.description.config import ZooConfig
    from converters.description.values import StatedAnchors
    from converters.facts import PostProcess, SourceFacts
    from converters.heads.base import Head

UNSETTLED = ImageInput(1, 1, Rescaling(1.0, 0.0))  # the picture, as long as only the head is described


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a caller may say about a source model; None = not said."""

    config: Path | None = None  # a zoo yaml of either layout
    anchors: tuple[tuple[float, float], ...] | None = None  # (width, height) pairs
    anchor_unit: StatedUnit | None = None  # unit of the anchors, wherever they come from
    class_names: tuple[str, ...] | None = None  # one name per class
    resize: ResizeRule | None = None  # how photographs get the network's size
    color: Color | None = None  # what the channels of the picture are
    rescaling: Rescaling | None = None  # pixel to real number
    input_size: tuple[int, int] | None = None  # rows and columns of the picture, for files that leave them open
    head: str = "auto"  # a row of ``HEADS``, or ``"none"``; ``"auto"`` takes what yaml or sidecar say, or outputs show
    score_threshold: float | None = None  # default score threshold of the finished model
    iou_threshold: float | None = None  # default suppression threshold of the finished model
    max_detections: int | None = None  # rows of the finished model's output
    class_agnostic: bool = False  # boxes suppress each other across classes
    priors: PriorStatement = field(default_factory=PriorStatement)  # what is said of an SSD head

    def __post_init__(self) -> None:
        if self.head not in (choices := ("auto", *HEADS, "none")):
            raise OptionError(f"--head must be one of {', '.join(choices)}, got {self.head!r}")
        if self.anchor_unit is not None and self.anchor_unit not in get_args(StatedUnit):
            raise OptionError(f"--anchor-unit must be 'cell', 'image' or 'pixel', got {self.anchor_unit!r}")
        require_option("--resize", self.resize, ResizeRule)
        require_option("--color", self.color, Color)
        if self.anchors is not None:
            try:
                Anchors(self.anchors, "cell")
            except (TypeError, ValueError) as error:
                raise OptionError(f"--anchors: expected (width, height) pairs: {error}") from error
        if self.class_names is not None:
            with located("--classes", OptionError):
                check_class_names(self.class_names)
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
        values = {name: lists_to_tuples(value) for name, value in data.items()}
        config, rescaling, priors = values["config"], values["rescaling"], values["priors"]
        values["config"] = None if config is None else Path(config)
        values["rescaling"] = None if rescaling is None else Rescaling(**rescaling)
        values["priors"] = PriorStatement(**{name: lists_to_tuples(value) for name, value in priors.items()})
        return cls(**values)


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """What all statements about a source model amount to."""

    spec: DetectorSpec  # the detector
    notes: tuple[str, ...] = ()  # what was stated and not used, one sentence each
    # with what the yaml evaluates its training; None where no yaml states anything
    evaluation: EvaluationSettings | None = None
    licence: str | None = None  # the sidecar's words; None where it has none
    origin: str | None = None  # where the model comes from, in the sidecar's words (its key ``source``); None likewise
    priors: PriorStatement = field(default_factory=PriorStatement)  # what is stated of an SSD head
    # fact -> who states it, as messages name it; ``"assumed"`` where nobody does
    stated_by: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()  # all that ``xdet.describe`` tells: name, value as JSON would have it, who says it


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
    return describe(AllStatements.of_file(path, facts, options))


@dataclass(frozen=True, slots=True)
class Statements:
    """What is stated of a detector, complete or not; None where nobody states it.

    Anchors have a unit, and are those of a YOLO v2 head; what is stated of other anchors, or of priors, is read as a
    ``head``. A quantised input states its rescaling by itself.
    """

    anchors: Anchors | None
    lacks_unit: bool  # anchors are stated, but not in which unit
    head: Head | None
    class_names: tuple[str, ...] | None
    rescaling: Rescaling | None
    resize: ResizeRule | None
    color: Color | None


def find_statements(path: Path, facts: SourceFacts, options: SourceOptions, head: Head | None) -> Statements:
    """What options, yaml, sidecar and model file state, to compare it with a detector whose head is known.

    Raises OptionError where the options' anchors or priors do not fit the head; SourceFileError and
    UnsupportedModelError as ``describe_source``.
    """
    statements = AllStatements.of_file(path, facts, options)
    _check_input_shape(facts, statements.config)
    anchors, settled = statements.anchors_or_default, None
    if isinstance(head, YoloV2) and anchors is not None:
        settled = statements.settled_anchors(anchors, (head.grid_h, head.grid_w))
    return Statements(
        anchors=settled,
        lacks_unit=isinstance(head, YoloV2) and anchors is not None and settled is None,
        head=_stated_head(statements, head),
        class_names=statements.value("class_names"),
        rescaling=statements.rescaling(),
        resize=statements.value("resize"),
        color=statements.color(),
    )


def _stated_head(statements: AllStatements, head: Head | None) -> Head | None:
    """Anchors of several grids, or priors, as they are stated, in a head of this one's kind; None where they are not.

    What sidecar and yaml state may be half of it, and the conversion's options were the other; half of it from the
    caller is refused, with what it lacks.
    """
    if head is None or (row := HEADS[row_of(head)]).misfit(statements.facts, by_name=True) is not None:
        return None
    has_anchors = isinstance(head, AnchorHead) and statements.anchors_or_default is not None
    has_priors = head.asks_for_priors(statements.facts) and statements.priors.priors is not None
    if not (has_anchors or has_priors):
        return None
    try:
        return row.from_statements(statements)
    except OptionError:
        if statements.options.anchors is not None or statements.options.priors != PriorStatement():
            raise
        return None


def describe(statements: AllStatements) -> SourceDescription:
    """Merge everything that is stated into one description; raises as ``describe_source``, all that is in the way."""
    facts = statements.facts
    rescaling, color, description, *_ = attempt_all(
        lambda: _require_rescaling(statements),
        lambda: statements.color() or "rgb",
        lambda: _describe_head(statements),
        lambda: _check_input_shape(facts, statements.config),
        lambda: _check_resize(statements.options, statements.config),
    )
    image = ImageInput(facts.height, facts.width, rescaling, statements.value("resize") or "nearest", color)
    described: SourceDescription = replace(description, spec=replace(description.spec, image=image))
    return described


def _require_rescaling(statements: AllStatements) -> Rescaling:
    rescaling = statements.rescaling()
    if rescaling is None:
        raise OptionError(
            f"'{statements.facts.file}' takes float pixels and does not say how they are scaled; give "
            "--rescaling 1/255 (0..1), 1/127.5,-1 (-1..1) or 1 (0..255), or --config ZOO.yaml, or write a sidecar "
            'with {"rescaling": {"scale": 0.00392156862745098, "offset": 0.0}} for 1/255'
        )
    return rescaling


def _describe_head(statements: AllStatements) -> SourceDescription:
    """The description but for the picture."""
    facts, config, kind = statements.facts, statements.config, statements.kind
    if kind == "none":
        return _describe_raw(statements)
    notes = () if kind == "auto" else require_fit(facts, kind, by_name=statements.options.head == kind)
    kind = recognise(facts) if kind == "auto" else kind
    anchors, takes_anchors = statements.anchors, bool(HEADS[kind].anchor_units)
    if anchors is not None and not takes_anchors:
        notes += (f"the anchors ({anchors.where}) are left out, since this head has none",)
    anchors = statements.anchors_or_default
    head = HEADS[kind].from_statements(statements)
    statements = statements.fitting(head)
    notes += _compare_with(config, facts, head)
    if anchors is not None and takes_anchors:
        notes += _doubts(statements, anchors)
    if facts.postprocess is not None:
        notes += (_note_on_postprocess(facts.postprocess),)
    names = statements.value("class_names")
    spec = DetectorSpec(
        UNSETTLED,
        head,
        names or tuple(f"class_{index}" for index in range(head.num_classes)),
        _resolve_thresholds(statements.options, facts.postprocess),
        assumed=tuple(name for name in ("class_names", "resize") if statements.value(name) is None),
        suppression=_resolve_suppression(statements.options, facts.postprocess),
    )
    return _description(statements, spec, notes, statements.head_stated_by(anchors))


def _describe_raw(statements: AllStatements) -> SourceDescription:
    """A detector that ends at its raw outputs, with the head behind them where anchors are stated and fit."""
    head, notes = _head_behind(statements)
    if head is not None:
        statements = statements.fitting(head)
    spec = DetectorSpec(
        UNSETTLED,
        head,
        statements.value("class_names") or (),
        _resolve_thresholds(statements.options, statements.facts.postprocess),
        statements.facts.raw_outputs() if head is None else head.raw_outputs(),
        () if statements.value("resize") else ("resize",),
    )
    return _description(statements, spec, notes, {})


def _description(
    statements: AllStatements, spec: DetectorSpec, notes: tuple[str, ...], head_stated_by: dict[str, str]
) -> SourceDescription:
    config, sidecar = statements.config, statements.sidecar
    if config.foreign_resize is not None:
        notes += (f"--resize {statements.value('resize')} is followed; {config.foreign_resize}",)
    return SourceDescription(
        spec=spec,
        notes=(*statements.all_notes(), *notes),
        evaluation=None if config.evaluation == EvaluationSettings() else config.evaluation,
        licence=sidecar.licence,
        origin=sidecar.source,
        priors=statements.priors,
        stated_by=head_stated_by | statements.stated_by(),
    )


def _check_input_shape(facts: SourceFacts, config: ZooConfig) -> None:
    if config.input_shape not in (None, (facts.height, facts.width, facts.channels)):
        raise SourceFileError(
            f"config '{config.file}': input_shape is {config.input_shape}, but '{facts.file}' takes "
            f"({facts.height}, {facts.width}, {facts.channels}): use the yaml that belongs to this model"
        )


def _check_resize(options: SourceOptions, config: ZooConfig) -> None:
    """Refuse a configuration's way to resize that no rule equals, unless the caller states a rule."""
    if config.foreign_resize is not None and options.resize is None:
        raise SourceFileError(f"{config.foreign_resize}; state with --resize what photographs get instead")


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


def _head_behind(statements: AllStatements) -> tuple[YoloV2 | None, tuple[str, ...]]:
    """The head behind raw outputs, where anchors are stated and fit; notes where they are not used."""
    facts, anchors = statements.facts, statements.anchors
    shape = facts.outputs[0].shape
    grid = grid_of(shape) if len(facts.outputs) == 1 else None
    if anchors is None:
        return None, ()
    why = f"the anchors ({anchors.where}) are left out, since"
    if grid is None:
        return None, (f"{why} the output is no grid; raw outputs need none",)
    settled = statements.settled_anchors(anchors, grid[:2])
    if settled is None:
        return None, (f"{why} nobody states their unit; a raw head needs none",)
    classes = dict(fitting_counts(shape)).get(len(settled.sizes_wh))
    if classes is None or len(statements.names_of_people or ()) not in (0, classes):
        fit = describe_fit(shape)
        return None, (f"{why} with the classes they do not make the head's {grid[2]} channels; {fit}",)
    return YoloV2(grid[0], grid[1], settled, classes), _doubts(statements, anchors)


def _doubts(statements: AllStatements, anchors: StatedAnchors) -> tuple[str, ...]:
    """What speaks against a unit that is followed: the sidecar's own."""
    unit, sidecar = statements.unit_of(anchors), statements.sidecar
    other = sidecar.anchor_unit if sidecar.anchors == anchors.sizes_wh else None
    if other is None or unit in (None, other):
        return ()
    return (
        f"--anchor-unit {unit} is followed, though sidecar '{sidecar.file}' states these anchors with unit "
        f"'{other}': correct whichever is wrong",
    )


def _resolve_suppression(options: SourceOptions, behind: PostProcess | None) -> Suppression:
    across = options.class_agnostic or (behind is not None and behind.across_classes)
    if behind is None or across:
        several = 1 if behind is None or options.class_agnostic else behind.classes_per_box
        return Suppression(across_classes=across, unclipped=behind is not None, classes_per_box=several)
    return Suppression(unclipped=True, class_first=True, per_class=behind.per_class)


def _note_on_postprocess(behind: PostProcess) -> str:
    how = "across classes" if behind.across_classes else "class by class"
    if behind.classes_per_box > 1:
        how += f", {behind.classes_per_box} classes of each box"
    return (
        "the file's own post-processing is replaced by the head ssd; its thresholds are the defaults unless told "
        f"otherwise: score {behind.score_threshold:g} (which counts there, so the number below it is written), "
        f"IoU {behind.iou_threshold:g}, {behind.rows} rows, suppression {how}"
    )


def _resolve_thresholds(options: SourceOptions, behind: PostProcess | None) -> Thresholds:
    default = Thresholds()
    if behind is not None:
        below = float(str(np.nextafter(np.float32(behind.score_threshold), np.float32(0))))
        rows = behind.max_detections if options.class_agnostic else behind.rows
        default = Thresholds(below, behind.iou_threshold, rows)
    changes: dict[str, Any] = {
        "score": options.score_threshold,
        "iou": options.iou_threshold,
        "max_detections": options.max_detections,
    }
    try:
        return replace(default, **{name: value for name, value in changes.items() if value is not None})
    except ValueError as error:
        raise OptionError(str(error)) from error
