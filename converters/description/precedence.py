"""Who states what: every fact of a description with all that state it, in the order in which they are followed.

An option is followed before the yaml, the yaml before the sidecar, the sidecar before the model file's own metadata.
Two finer rules:

- A unit of anchors belongs to the list it stands beside. Only ``--anchor-unit``, and a sidecar that has a
  unit but no anchors, speak about a list from elsewhere.
- A zoo family's default anchors are nobody's statement: they are used when the yaml names the family and
  neither an option, the yaml nor the sidecar gives a list.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from converters.description.config import ZooConfig, read_config
from converters.description.priors import Priors, read_priors
from converters.description.sidecar import Sidecar, find_sidecar
from converters.description.values import (
    ASSUMED,
    INPUT,
    StatedAnchors,
    are_alike,
    can_only_be_cells,
    resolve_rescaling,
    settle_unit,
)
from converters.errors import OptionError, counted
from converters.heads import HEADS, recognise
from converters.spec import SIDECAR_SUFFIX, Anchors, Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.description.priors import PriorStatement
    from converters.description.statements import SourceOptions
    from converters.description.values import StatedUnit
    from converters.facts import SourceFacts
    from converters.heads.base import Head
    from converters.spec import Color

Fact = tuple[str, Any, str]  # name, value as JSON would have it, who states it
MISSING = "missing"
OPTIONS = {"class_names": "--classes", "resize": "--resize", "color": "--color", "rescaling": "--rescaling"}
DEFAULTS = {"class_names": ["class_0", "..."], "resize": "nearest", "color": "rgb"}
ONE_CHANNEL = "the input's one channel"
TITLES = {name: name.replace("_", " ") for name in ("head", "anchors", "anchor_unit", *OPTIONS)}


@dataclass(frozen=True, slots=True)
class AllStatements:
    """Everything that is stated about one source."""

    facts: SourceFacts  # what the model file itself tells
    options: SourceOptions  # what the caller says
    sidecar: Sidecar  # an empty one where there is none
    config: ZooConfig  # the yaml or cfg, likewise
    notes: tuple[str, ...] = ()  # what is left out, one sentence each

    @classmethod
    def of_file(cls, path: Path, facts: SourceFacts, options: SourceOptions) -> Self:
        """Read the sidecar beside a model's file, and the configuration that the options name."""
        config = ZooConfig(file="") if options.config is None else read_config(options.config)
        return cls(facts, options, find_sidecar(path) or Sidecar(file=""), config)

    def values(self, name: str) -> list[tuple[Any, str]]:
        """The values of one of ``OPTIONS``, each with who states it; the first is followed."""
        statements = [
            (getattr(self.options, name), OPTIONS[name]),
            (getattr(self.config, name), self._where_config),
            (getattr(self.sidecar, name), self.where_sidecar),
            *((getattr(part, name), part.where) for part in self.facts.metadata),
        ]
        return [(value, where) for value, where in statements if value is not None]

    def value(self, name: str) -> Any:
        """What is followed; None where nobody states it."""
        return next((value for value, _ in self.values(name)), None)

    @property
    def is_quantised(self) -> bool:
        """Whether the input's quantisation states the rescaling, whatever metadata say of the float network."""
        return self.facts.input_dtype != "float32"

    @property
    def kind(self) -> str:
        """The head that is stated, ``"none"`` for raw outputs, ``"auto"`` where nobody states one."""
        if self.options.head != "auto":
            return self.options.head
        return self.config.head_of_family() or self.sidecar.head or "auto"

    @property
    def anchors(self) -> StatedAnchors | None:
        """The list that is followed; None where nobody states one."""
        if self.options.anchors is not None:
            return StatedAnchors(self.options.anchors, None, "--anchors")
        for place, where in ((self.config, self._where_config), (self.sidecar, self.where_sidecar)):
            if place.anchors is not None:
                return StatedAnchors(place.anchors, place.anchor_unit, where)
        return None

    @property
    def anchors_or_default(self) -> StatedAnchors | None:
        """The list that is followed, else that of the named family."""
        defaults = self.config.default_anchors()
        if self.anchors is not None or defaults is None:
            return self.anchors
        named = f"the default of {self.config.model_type}, named by '{self.config.file}'"
        return StatedAnchors(*defaults, where=named)

    @property
    def xy_scales(self) -> tuple[float, ...]:
        """YOLO v4's ``scale_x_y`` of each grid, the finest grid's first; empty where nobody states any."""
        return self.config.xy_scales or self.sidecar.xy_scales

    @property
    def priors(self) -> PriorStatement:
        """What is stated of an SSD head."""
        return self.options.priors.behind(self.sidecar.priors)

    def read_priors(self) -> Priors | None:
        """The priors that are stated, for a picture of the network's size, else a constant of the file; or None."""
        if self.priors.priors is not None:
            return read_priors(self.priors.priors, (self.facts.width, self.facts.height))
        constant = self.facts.priors
        return None if constant is None else Priors(np.array(constant), None, None, "its own priors")

    def unit_of(self, anchors: StatedAnchors) -> StatedUnit | None:
        """The unit of a list, from wherever it comes; None where nobody states it."""
        lone_unit = self.sidecar.anchor_unit if self.sidecar.anchors is None else None
        return self.options.anchor_unit or anchors.unit or lone_unit

    def settled_anchors(self, anchors: StatedAnchors, grid_hw: tuple[int, int]) -> Anchors | None:
        """A list with its unit; None where nobody states one, and it may be in several."""
        if self.unit_of(anchors) is None and not can_only_be_cells(anchors.sizes_wh, self.facts, grid_hw):
            return None
        return self.settle(anchors, grid_hw)

    def settle(self, anchors: StatedAnchors, grid_hw: tuple[int, int]) -> Anchors:
        """A list with its unit; OptionError where nobody states one, and it may be in several."""
        return settle_unit(anchors, self.unit_of(anchors), self.facts, grid_hw)

    def how_to_state_anchors(self, head: type[Head]) -> str:
        """What a message about a head without anchors advises."""
        return (
            f'give --anchors "w,h w,h ..."{head.anchor_lists} with --anchor-unit {"|".join(head.anchor_units)}, or '
            f"--config ZOO.yaml or NET.cfg, or a sidecar '{Path(self.facts.file).stem}{SIDECAR_SUFFIX}' beside it"
        )

    def rescaling(self) -> Rescaling | None:
        """What a quantised input fixes, which a statement must agree with, or what is stated for a float one."""
        keys = {self._where_config: ": preprocessing.rescaling", self.where_sidecar: ": rescaling"}
        for value, where in self.values("rescaling"):
            if not (self.is_quantised and self._is_inside(where)):
                return resolve_rescaling(self.facts, value, where + keys.get(where, ""))
        return resolve_rescaling(self.facts, None, "") if self.is_quantised else None

    def color(self) -> Color | None:
        """What the channels are; a picture of one channel is grey, whoever says nothing."""
        channels, color = self.facts.channels, self.value("color")
        if color is not None and (color == "grey") != (channels == 1):
            advice = "--color grey" if channels == 1 else "--color rgb or bgr"
            raise OptionError(
                f"'{self.facts.file}' takes pictures of {channels} channels, which are not {color}: give {advice}, or "
                "correct color where it is stated"
            )
        return "grey" if channels == 1 else color

    @property
    def names_of_people(self) -> tuple[str, ...] | None:
        """Class names that option, yaml or sidecar state, which must fit the head."""
        return self.options.class_names or self.config.class_names or self.sidecar.class_names

    def require_names(self, count: int) -> None:
        """Refuse names of another number than the classes that the output scores."""
        names = self.names_of_people
        if names is not None and len(names) != count:
            raise OptionError(
                f"'{self.facts.file}': its output scores {counted(count, 'class', 'classes')}, {len(names)} are named; "
                "check --classes"
            )

    def fitting(self, head: Head) -> AllStatements:
        """Without the file's own class names where the head has another number of classes."""
        names = self.value("class_names")
        if names is None or self.names_of_people is not None or len(names) == head.num_classes:
            return self
        where = self.values("class_names")[0][1]
        note = (
            f"{where}: {len(names)} class names, the head scores {head.num_classes}: they are left out; give --classes"
        )
        without = tuple(replace(part, class_names=None) for part in self.facts.metadata)
        return replace(self, facts=replace(self.facts, metadata=without), notes=(*self.notes, note))

    def all_notes(self) -> tuple[str, ...]:
        """What the file's metadata state, and where they contradict somebody else or the file."""
        of_metadata = (note for part in self.facts.metadata for note in part.notes)
        return (*of_metadata, *self._followed(), *self._sizes(), *self.notes)

    def stated_by(self) -> dict[str, str]:
        """Picture and classes: fact -> who states it, ``ASSUMED`` where nobody does."""
        who = {name: self.values(name)[0][1] if self.values(name) else ASSUMED for name in OPTIONS}
        if self.is_quantised:
            who["rescaling"] = INPUT
        if self.facts.channels == 1:
            who["color"] = ONE_CHANNEL
        return who

    def head_stated_by(self, anchors: StatedAnchors | None) -> dict[str, str]:
        """Who states head, anchors and their unit."""
        who = {"head": "its outputs"}
        if self.options.head != "auto":
            who["head"] = "--head"
        elif self.config.head_of_family() is not None:
            who["head"] = self._where_config
        elif self.sidecar.head is not None:
            who["head"] = self.where_sidecar
        if anchors is not None:
            who |= {"anchors": anchors.where, "anchor_unit": anchors.where if anchors.unit else ASSUMED}
        if self.options.anchor_unit is not None:
            who["anchor_unit"] = "--anchor-unit"
        return who

    @property
    def _where_config(self) -> str:
        return f"config '{self.config.file}'"

    @property
    def where_sidecar(self) -> str:
        """How messages name the sidecar."""
        return f"sidecar '{self.sidecar.file}'"

    def _is_inside(self, where: str) -> bool:
        return any(part.where == where for part in self.facts.metadata)

    def _followed(self) -> Iterator[str]:
        followed: dict[str, list[str]] = {}
        for name in OPTIONS:
            values = self.values(name)
            if not values or (name == "rescaling" and self.is_quantised):
                continue
            first, who = values[0]
            if self._is_inside(who):
                followed.setdefault(who, []).append(f"{TITLES[name]} {_shown(first)}")
            for value, where in values[1:]:
                if self._is_inside(where) and not _same(value, first):
                    yield f"{TITLES[name]}: {who} is followed, though {where} says {_shown(value)}"
        yield from (f"{where} says {', '.join(what)}" for where, what in followed.items())

    def _sizes(self) -> Iterator[str]:
        input_hw = (self.facts.height, self.facts.width)
        for part in self.facts.metadata:
            if part.size_hw is not None and part.size_hw != input_hw:
                height, width = part.size_hw
                takes = f"{input_hw[0]} x {input_hw[1]}"
                yield f"{part.where} says {height} x {width}, but the input takes {takes}, which is followed"


def known_facts(path: Path, facts: SourceFacts, options: SourceOptions) -> tuple[Fact, ...]:
    """Every fact of a source: each with who states it, ``MISSING`` where nobody does and it must be stated."""
    known = _known_facts(AllStatements.of_file(path, facts, options))
    return tuple((name, value, MISSING if value is None else who) for name, value, who in known)


def _known_facts(statements: AllStatements) -> Iterator[Fact]:
    facts, anchors, kind = statements.facts, statements.anchors_or_default, statements.kind
    yield "input", f"{facts.height} x {facts.width} x {facts.channels}, {facts.input_dtype}", "the file"
    for output in facts.outputs:
        yield "output", f"{output.name} {[1, *output.shape]}", "the file"
    who = statements.head_stated_by(anchors)
    if kind == "auto":
        try:
            kind = recognise(facts)
        except OptionError:  # none fits, or several do: what is raised beside these facts says so
            kind = ""
    yield "head", kind or None, who["head"]
    head = HEADS.get(kind)
    if anchors is not None or (head is not None and head.anchor_units):
        yield "anchors", None if anchors is None else list(map(list, anchors.sizes_wh)), who.get("anchors", "")
        yield "anchor_unit", None if anchors is None else statements.unit_of(anchors), who.get("anchor_unit", "")
    for name, value in asdict(statements.priors).items():
        if value is not None or (name == "priors" and head is not None and head.asks_for_priors(facts)):
            yield name, value, "options or sidecar"
    for name, stated_by in statements.stated_by().items():
        value = statements.value(name)
        fixed = {INPUT: "of the codes", ONE_CHANNEL: "grey", ASSUMED: DEFAULTS.get(name)}
        if stated_by in fixed:
            value = fixed[stated_by]
        yield name, asdict(value) if isinstance(value, Rescaling) else value, stated_by
    for name, text in (("licence", statements.sidecar.licence), ("source", statements.sidecar.source)):
        if text is not None:
            yield name, text, statements.where_sidecar


def _shown(value: object) -> str:
    if isinstance(value, Rescaling):
        return f"p * {value.scale:.6g} + {value.offset:.6g}"
    if isinstance(value, tuple):
        return ", ".join(value) if len(value) < 5 else f"{value[0]}, {value[1]}, ... {value[-1]} ({len(value)})"
    return str(value)


def _same(one: object, other: object) -> bool:
    if isinstance(one, Rescaling) and isinstance(other, Rescaling):
        return are_alike(other, one)
    return one == other
