"""What is known of a source that cannot be described whole: each fact with who says it, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from converters.description.darknet import read_config
from converters.description.precedence import (
    ASSUMED,
    INPUT,
    OPTIONS,
    default_anchors,
    gather,
    stated_anchors,
    stated_kind,
    unit_of,
    who_says,
)
from converters.description.recognition import RECOGNITIONS, recognise
from converters.description.sidecar import Sidecar, find_sidecar
from converters.description.zoo_yaml import ZooConfig
from converters.errors import OptionError
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.description.statements import SourceOptions
    from converters.facts import SourceFacts

Fact = tuple[str, Any, str]  # name, value as JSON would have it, who says it
MISSING = "missing"
DEFAULTS = {"class_names": ["class_0", "..."], "resize": "nearest", "color": "rgb"}


def known_facts(path: Path, facts: SourceFacts, options: SourceOptions) -> tuple[Fact, ...]:
    """Every fact of a source, known or not.

    Args:
        path: the model's file, which tells where its sidecar is.
        facts: what the model itself tells.
        options: what the caller says.

    Raises:
        OptionError: the yaml names a family of another head.
        SourceFileError: the sidecar or yaml is missing or damaged.
    """
    config = ZooConfig(file="") if options.config is None else read_config(options.config)
    sidecar = find_sidecar(path) or Sidecar(file="")
    return tuple(
        (name, value, MISSING if value is None else who) for name, value, who in _facts(facts, options, sidecar, config)
    )


def _facts(facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, config: ZooConfig) -> Iterator[Fact]:
    yield "input", f"{facts.height} x {facts.width} x {facts.channels}, {facts.input_dtype}", "the file"
    for output in facts.outputs:
        yield "output", f"{output.name} {[1, *output.shape]}", "the file"
    listed = stated_anchors(options, sidecar, config) or default_anchors(config)
    kind = stated_kind(options, sidecar, config)
    who = who_says(listed, options, sidecar, config)
    if kind == "auto":
        try:
            kind = recognise(facts)
        except OptionError:  # none fits, or several do: what is raised beside these facts says so
            kind = ""
    yield "head", kind or None, who["head"]
    if listed is not None or (kind in RECOGNITIONS and RECOGNITIONS[kind].anchors):
        unit = None if listed is None else unit_of(listed, options, sidecar)
        yield ("anchors", None if listed is None else [list(pair) for pair in listed.sizes_wh], who.get("anchors", ""))
        yield "anchor_unit", unit, who.get("anchor_unit", "")
    yield from _prior_facts(facts, options, sidecar, kind)
    values = gather(facts, options, sidecar, config).values
    for name in OPTIONS:
        value, said_by = values[name][0] if values[name] else (DEFAULTS.get(name), ASSUMED)
        if name == "rescaling" and facts.input_dtype != "float32":
            value, said_by = "of the codes", INPUT
        if name == "color" and facts.channels == 1:
            value, said_by = "grey", "the input's one channel"
        yield name, asdict(value) if isinstance(value, Rescaling) else value, said_by


def _prior_facts(facts: SourceFacts, options: SourceOptions, sidecar: Sidecar, kind: str) -> Iterator[Fact]:
    """What options or sidecar say of priors; missing where an SSD head has none."""
    source_options = asdict(options.priors.behind(sidecar.priors))
    needed = kind == "ssd" and facts.postprocess is None and facts.priors is None and len(facts.outputs) == 2
    for name, value in source_options.items():
        if value is not None or (needed and name == "priors"):
            yield name, value, "options or sidecar"
