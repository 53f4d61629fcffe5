"""Putting the probes to runtimes: the model's own decoder behind crafted heads, on every runtime that ran the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdet.checking.probe_model import build_probe_model, find_entry, pictures_of
from xdet.checking.probes import craft_probes
from xdet.checking.runs import Work, run_finished
from xdet.runtimes.model_file import ModelFile

if TYPE_CHECKING:
    from xdet.checking.opened import OpenedPair
    from xdet.checking.probes import ProbeSet
    from xdet.checking.runs import Run
    from xdet.runtimes.choices import RuntimeChoices


@dataclass(frozen=True, eq=False)
class Probing:
    """What is put to every runtime.

    Attributes:
        model: the model's decoder behind a table of the heads.
        probes: the crafted heads.
    """

    model: ModelFile
    probes: ProbeSet


def prepare_probes(pair: OpenedPair) -> Probing | None:
    """Craft heads for a finished model; None where it ends at the raw head, or its codes can express none."""
    model, document = pair.model, pair.document
    if document.spec.head == "none":
        return None
    probes = craft_probes(document.spec, find_entry(model.data, model.file).levels())
    if probes is None:
        return None
    data = build_probe_model(
        model.data, model.file, document=document, heads=probes.heads, thresholds=probes.thresholds[0]
    )
    return Probing(ModelFile(model.path, data, "onnx"), probes)


def run_probes(probing: Probing, choices: RuntimeChoices) -> Run:
    """What a runtime gives for the crafted heads.

    Raises:
        XdetError: as ``run_finished``.
    """
    probes = probing.probes
    work = Work(pictures_of(len(probes.names)), probes.thresholds)
    return replace(run_finished(probing.model, choices, work), probes=probes.names)
