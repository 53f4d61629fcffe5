"""The detector that facts, options, a sidecar and a configuration describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.config import ZooConfig
from converters.description.precedence import AllStatements
from converters.description.sidecar import Sidecar
from converters.description.statements import SourceOptions, describe

if TYPE_CHECKING:
    from converters.facts import SourceFacts
    from converters.spec import DetectorSpec


def statements_of(
    facts: SourceFacts,
    options: SourceOptions | None = None,
    sidecar: Sidecar | None = None,
    config: ZooConfig | None = None,
) -> AllStatements:
    return AllStatements(facts, options or SourceOptions(), sidecar or Sidecar(file=""), config or ZooConfig(file=""))


def resolve_spec(
    facts: SourceFacts,
    options: SourceOptions | None = None,
    sidecar: Sidecar | None = None,
    config: ZooConfig | None = None,
) -> DetectorSpec:
    return describe(statements_of(facts, options, sidecar, config)).spec
