"""Who states what: every fact of a description with all that state it, in the order in which they are followed.

An option is followed before the yaml, the yaml before the sidecar, the sidecar before the model file's own metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from converters.description.values import StatedAnchors, StatedRescaling
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from converters.description.sidecar import Sidecar
    from converters.description.statements import SourceOptions
    from converters.description.values import StatedUnit
    from converters.description.zoo_yaml import ZooConfig
    from converters.facts import SourceFacts
    from converters.heads.base import Head

T = TypeVar("T")
ASSUMED = "assumed"
OPTIONS = {"class_names": "--classes", "resize": "--resize", "color": "--color", "rescaling": "--rescaling"}
INPUT = "the input's quantisation"
TITLES = {
    "head": "head",
    "anchors": "anchors",
    "anchor_unit": "anchor unit",
    "class_names": "class names",
    **{name: name for name in ("resize", "color", "rescaling")},
}


@dataclass(frozen=True, slots=True)
class Told:
    """All statements about one source.

    Attributes:
        facts: what the model file itself tells.
        values: fact -> its values, each with who states it; the first is followed.
        notes: what was stated and is left out.
        others: who states what is no value of its own: head, anchors.
    """

    facts: SourceFacts
    values: Mapping[str, tuple[tuple[Any, str], ...]]
    notes: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Any:
        """What is followed; None where nobody states it."""
        return self.values[name][0][0] if self.values[name] else None

    def names_of_people(self) -> tuple[str, ...] | None:
        """Class names that option, yaml or sidecar state, which must fit the head."""
        values = self.values["class_names"]
        return values[0][0] if values and not self._is_inside(values[0][1]) else None

    def fitting(self, head: Head) -> Told:
        """Without the file's own class names where the head has another number of classes."""
        names, people = self.of("class_names"), self.names_of_people()
        if names is None or people is not None or len(names) == head.num_classes:
            return self
        where = self.values["class_names"][0][1]
        note = (
            f"{where}: {len(names)} class names, the head scores {head.num_classes}: they are left out; give --classes"
        )
        return replace(self, values={**self.values, "class_names": ()}, notes=(*self.notes, note))

    def all_notes(self) -> tuple[str, ...]:
        """What the file's metadata state, and where they contradict somebody else or the file."""
        return (
            *(note for part in self.facts.metadata for note in part.notes),
            *self._followed(),
            *self._sizes(),
            *self.notes,
        )

    def stated_by(self) -> dict[str, str]:
        """Fact -> who states it, ``ASSUMED`` where nobody does."""
        found = {name: values[0][1] if values else ASSUMED for name, values in self.values.items()}
        if self.facts.input_dtype != "float32":
            found["rescaling"] = INPUT
        if self.facts.channels == 1:
            found["color"] = "the input's one channel"
        return {**self.others, **found}

    def _is_inside(self, where: str) -> bool:
        return any(part.where == where for part in self.facts.metadata)

    def _followed(self) -> Iterator[str]:
        followed: dict[str, list[str]] = {}
        for name, stated in self.values.items():
            if name == "rescaling" and self.facts.input_dtype != "float32":
                continue  # the quantisation is followed
            if stated and self._is_inside(stated[0][1]):
                followed.setdefault(stated[0][1], []).append(f"{TITLES[name]} {_shown(stated[0][0])}")
            for value, where in stated[1:]:
                if self._is_inside(where) and not _same(value, stated[0][0]):
                    yield f"{TITLES[name]}: {stated[0][1]} is followed, though {where} says {_shown(value)}"
        yield from (f"{where} says {', '.join(what)}" for where, what in followed.items())

    def _sizes(self) -> Iterator[str]:
        ours = (self.facts.height, self.facts.width)
        for part in self.facts.metadata:
            if part.size_hw not in (None, ours):
                height, width = part.size_hw or ours
                yield f"{part.where} says {height} x {width}, but the input takes {ours[0]} x {ours[1]}, which is followed"


def who_says(
    anchors: StatedAnchors | None, options: SourceOptions, sidecar: Sidecar, config: ZooConfig
) -> dict[str, str]:
    """Who states head, anchors and their unit."""
    named = (
        (options.head != "auto", "--head"),
        (config.head_of_family() is not None, f"config '{config.file}'"),
        (sidecar.head is not None, f"sidecar '{sidecar.file}'"),
    )
    found = {"head": next((who for is_stated, who in named if is_stated), "its outputs")}
    if anchors is not None:
        found |= {"anchors": anchors.where, "anchor_unit": anchors.where if anchors.unit else ASSUMED}
    if options.anchor_unit is not None:
        found["anchor_unit"] = "--anchor-unit"
    return found


def gather(facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig) -> Told:
    """Every statement of every fact, in order."""
    values = {}
    for name, option in OPTIONS.items():
        stated = [
            (getattr(options, name), option),
            (getattr(config, name), f"config '{config.file}'"),
            (getattr(sidecar, name), f"sidecar '{sidecar.file}'"),
            *((getattr(part, name), part.where) for part in facts.metadata),
        ]
        values[name] = tuple((value, where) for value, where in stated if value is not None)
    return Told(facts, values)


def stated_anchors(options: SourceOptions, sidecar: Sidecar, config: ZooConfig) -> StatedAnchors | None:
    """The list that is followed; None where nobody states one."""
    if options.anchors is not None:
        return StatedAnchors(options.anchors, None, "--anchors")
    if config.anchors is not None:
        return StatedAnchors(config.anchors, config.anchor_unit, f"config '{config.file}'")
    if sidecar.anchors is not None:
        return StatedAnchors(sidecar.anchors, sidecar.anchor_unit, f"sidecar '{sidecar.file}'")
    return None


def default_anchors(config: ZooConfig) -> StatedAnchors | None:
    """A family's list, used for a head that needs one when nobody gives another."""
    defaults = config.default_anchors()
    if defaults is None:
        return None
    return StatedAnchors(*defaults, where=f"the default of {config.model_type}, named by '{config.file}'")


def unit_of(stated: StatedAnchors, options: SourceOptions, sidecar: Sidecar) -> StatedUnit | None:
    """The unit of a list, from wherever it comes; None where nobody states it."""
    lone_unit = sidecar.anchor_unit if sidecar.anchors is None else None
    return _first(options.anchor_unit, stated.unit, lone_unit)


def _first(*candidates: T | None) -> T | None:
    """The first candidate that somebody stated."""
    return next((candidate for candidate in candidates if candidate is not None), None)


def stated_kind(options: SourceOptions, sidecar: Sidecar, config: ZooConfig) -> str:
    """The head that is stated, ``"none"`` for raw outputs, ``"auto"`` where nobody states one."""
    if options.head != "auto":
        return options.head
    return _first(config.head_of_family(), sidecar.head) or "auto"


def stated_rescaling(
    facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig
) -> StatedRescaling | None:
    """The rescaling that is followed; None where nobody states one beside a quantised input."""
    if options.rescaling is not None:
        return StatedRescaling(options.rescaling, "--rescaling")
    if config.rescaling is not None:
        return StatedRescaling(config.rescaling, f"config '{config.file}': preprocessing.rescaling")
    if sidecar.rescaling is not None:
        return StatedRescaling(sidecar.rescaling, f"sidecar '{sidecar.file}': rescaling")
    if facts.input_dtype != "float32":
        return None  # a quantised input states its own, whatever metadata say of the float network
    inside = (StatedRescaling(part.rescaling, part.where) for part in facts.metadata if part.rescaling)
    return next(inside, None)


def _shown(value: object) -> str:
    if isinstance(value, Rescaling):
        return f"p * {value.scale:.6g} + {value.offset:.6g}"
    if isinstance(value, tuple):
        return ", ".join(value) if len(value) < 5 else f"{value[0]}, {value[1]}, ... {value[-1]} ({len(value)})"
    return str(value)


def _same(one: object, other: object) -> bool:
    if isinstance(one, Rescaling) and isinstance(other, Rescaling):
        return all(abs(one.scale * p + one.offset - other.scale * p - other.offset) <= one.scale for p in (0, 255))
    return one == other
