"""What a head that is too far off can be blamed on: swapped colours, or the first layer that leaves the source.

What ``--layers`` adds to a check: every tensor beside its twin, the first layer at fault, and what runs on integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.layers import compare_layers, first_divergence
from xdet.checking.placement import find_placement, placement_of
from xdet.checking.result import Finding
from xdet.errors import XdetError
from xdet.inspection.coverage import coverage_of
from xdet.model.graph import inferred_model
from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdet.checking.layer_records import LayerComparison, LayerResult
    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import CheckResult, NodePlacement, PartName, PartVerdict
    from xdet.checking.runs import OpenRuntimes, Run
    from xdet.inspection.coverage import Coverage

COLOURS_FACTOR = 4  # with swapped colours the head must come that much nearer


@dataclass(frozen=True, eq=False)
class Accused:
    """A run whose head is too far from the source's, and the part that says so."""

    run: Run
    witness: Run
    part: PartName


def diagnose_head(
    pair: OpenedPair, pixels: NDArray[np.uint8], accused: Accused, runtimes: OpenRuntimes
) -> list[Finding]:
    """Findings about one run, on the image where it is furthest from the source."""
    run, source = accused.run, accused.witness
    if not run.name.startswith("onnxruntime:cpu"):
        return []
    count = min(len(run.heads), len(source.heads))
    off = np.abs(run.heads[:count] - source.heads[:count]).reshape(count, -1).max(axis=1)
    image = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    picture = pixels[image : image + 1]
    findings = []
    with runtimes.finished() as runtime:
        swapped = runtime.head(np.ascontiguousarray(picture[..., ::-1]))
    nearer = float(np.abs(swapped - source.heads[image : image + 1]).max())
    if nearer * COLOURS_FACTOR < float(off[image]):
        message = (
            f"fed with blue and red exchanged, {run.name} comes to {nearer:.4g} from the source's head instead of "
            f"{off[image]:.4g}: the graph takes BGR where the contract says RGB"
        )
        findings.append(Finding(accused.part, "colour-order", message, runtime=run.name))
    divergence = first_divergence(pair, picture, runtimes)
    if divergence is not None:
        tensor, apart = divergence
        message = (
            f"the first layer whose codes leave the source's is {tensor!r}: {apart.differing:,} of {apart.values:,} "
            f"differ, by up to {apart.worst} LSB"
        )
        findings.append(Finding(accused.part, "layer", message, runtime=run.name, layer=tensor))
    return findings


IMAGES = 2  # every tensor of every layer is held twice, and computed twice in plain integers
PREFIX = "onnxruntime:"


def with_layers(
    result: CheckResult, pair: OpenedPair, pixels: NDArray[np.uint8], runtimes: OpenRuntimes
) -> CheckResult:
    """The result with its layers, over the first two photographs at network size, and its integer coverage."""
    providers = [run.name.removeprefix(PREFIX) for run in result.runs if run.name.startswith(PREFIX)]
    covered = [_cover_and_place(pair, provider, runtimes) for provider in providers]
    result = replace(result, coverage=tuple(c for c, _ in covered), placement=tuple(p for _, p in covered))
    try:
        found = compare_layers(pair, pixels[:IMAGES], runtimes)
    except XdetError as error:
        problem = str(error).replace(str(pair.source.path), result.source)  # results hold no folder
        return replace(result, layers_problem=problem)
    return replace(result, layers=found, parts=_with_fault(result.parts, found))


def _cover_and_place(pair: OpenedPair, provider: str, runtimes: OpenRuntimes) -> tuple[Coverage, NodePlacement]:
    """What of the model a provider runs on integers, and which nodes it takes."""
    recorded = runtimes.recorded if provider == runtimes.main.provider else None
    optimized = None if recorded is None else recorded.optimized
    graph = inferred_model(pair.graph.proto, pair.model.file).graph
    coverage = coverage_of(graph, provider, optimized, file=pair.model.file)
    if recorded is None:
        return coverage, find_placement(pair.model.data, provider)
    return coverage, placement_of(recorded.placed, provider)


def _with_fault(parts: tuple[PartVerdict, ...], found: LayerComparison) -> tuple[PartVerdict, ...]:
    """The verdicts, with the first layer that exceeds its bound as a finding."""
    fault = found.first_fault
    if fault is None:
        return parts
    part = "static" if fault.is_mistranslated else "exact"
    finding = Finding(part, "layer", fault_text(fault, found.unit), layer=fault.tensor)  # type: ignore[arg-type]  # one of the two
    return tuple(
        replace(verdict, status="failed", findings=(*verdict.findings, finding)) if verdict.part == part else verdict
        for verdict in parts
    )


def fault_text(layer: LayerResult, unit: str) -> str:
    """What the layer does, in one sentence."""
    if layer.is_mistranslated:
        codes = unit == "LSB"
        where, distance, bound = "the graph computes", layer.local, layer.local_bound
        given = f"the source's own {'integers' if codes else 'values'} in front of it"
        off = f"{distance.worst} LSB off" if codes else f"{format_distance(distance.worst)} {unit} off"
    else:
        assert layer.kernel is not None  # noqa: S101 - it is at fault
        where, distance, bound = "ONNX Runtime computes", layer.kernel, layer.kernel_bound
        given, off = "its own integers in front of it", f"{layer.kernel.worst} LSB off"
    return (
        f"{layer.operator} {layer.tensor!r} is the first layer at fault: from {given}, {where} up to {off} "
        f"in {distance.differing:,} of {distance.values:,} values; allowed are {bound}"
    )
