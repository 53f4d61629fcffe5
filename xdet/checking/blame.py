"""What a head that is too far off can be blamed on: swapped colours, or the first layer that leaves the source.

``--layers`` adds to a check every tensor beside its twin, the first layer at fault, and what runs on integers.

A model that leaves out its source's rounding (``--dequantize``) has its part spread judged by layers, in steps of
codes: no bound on the head follows from the source, since where nothing rounds between, small differences of early
layers grow as the weights let them. What does follow is a bound for each layer: given the source's own codes in front
of it, its result is within one step of the source's (half for the rounding, half for LiteRT's multipliers). So that is
judged, on two photographs, with every runtime beside ONNX Runtime's float32; how far the head is in the end is told,
and judges nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.files import FINISHED
from xdet.checking.heads.spread import FLOAT_BOUND, distance, half_bound
from xdet.checking.layers import compare_layers, first_divergence
from xdet.checking.result import Finding, PartVerdict
from xdet.checking.runtimes import find_placement, placement_of
from xdet.errors import XdetError
from xdet.inspection.coverage import coverage_of
from xdet.model.graph import inferred_model
from xdet.runtimes.table import row_of, usual_runtime
from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import CheckResult, HeadDistance, LayerComparison, LayerResult, NodePlacement, PartName
    from xdet.checking.runs import CheckInputs, Run
    from xdet.checking.runtimes import OpenRuntimes
    from xdet.inspection.coverage import Coverage


COLOURS_FACTOR = 4  # with swapped colours the head must come that much nearer


def diagnose_head(inputs: CheckInputs, run: Run, source: Run, part: PartName) -> list[Finding]:
    """Findings about a run that ``part`` says is too far from the source's, on the image where it is furthest."""
    if run.name != inputs.runtimes.main.name:
        return []
    count = min(len(run.heads), len(source.heads))
    off = np.abs(run.heads[:count] - source.heads[:count]).reshape(count, -1).max(axis=1)
    image = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    picture = inputs.pixels[image : image + 1]
    findings = []
    with inputs.runtimes.finished() as runtime:
        swapped = runtime.head(np.ascontiguousarray(picture[..., ::-1]))
    nearer = float(np.abs(swapped - source.heads[image : image + 1]).max())
    if nearer * COLOURS_FACTOR < float(off[image]):
        message = f"fed with blue and red exchanged, {run.name} comes to {nearer:.4g} from the source's head instead of"
        message = f"{message} {off[image]:.4g}: the graph takes BGR where the contract says RGB"
        findings.append(Finding(part, "colour-order", message, runtime=run.name))
    divergence = first_divergence(inputs.pair, picture, inputs.runtimes)
    if divergence is not None:
        tensor, apart = divergence
        message = f"the first layer whose codes leave the source's is {tensor!r}: {apart.differing:,} of"
        message = f"{message} {apart.values:,} differ, by up to {apart.worst} LSB"
        findings.append(Finding(part, "layer", message, runtime=run.name, layer=tensor))
    return findings


IMAGES = 2  # every tensor of every layer is held twice, and computed twice in plain integers


def with_layers(
    result: CheckResult, pair: OpenedPair, pixels: NDArray[np.uint8], runtimes: OpenRuntimes
) -> CheckResult:
    """The result with its layers, over the first two photographs at network size, and its integer coverage."""
    rows = ((run.name, row_of(run.name)) for run in result.runs)
    providers = [name.partition(":")[2] for name, row in rows if row is not None and row.shows_nodes]
    covered = [_cover_and_place(pair, provider, runtimes) for provider in providers]
    result = replace(result, coverage=tuple(c for c, _ in covered), placement=tuple(p for _, p in covered))
    try:
        comparison = compare_layers(pair, pixels[:IMAGES], runtimes)
    except XdetError as error:
        problem = str(error).replace(str(pair.source.path), result.source)  # results hold no folder
        return replace(result, layers_problem=problem)
    return replace(result, layers=comparison, parts=_with_fault(result.parts, comparison))


def _cover_and_place(pair: OpenedPair, provider: str, runtimes: OpenRuntimes) -> tuple[Coverage, NodePlacement]:
    """What of the model a provider runs on integers, and which nodes it takes."""
    recorded = runtimes.recorded if provider == runtimes.main.provider else None
    optimized = None if recorded is None else recorded.optimized
    graph = inferred_model(pair.graph.proto, pair.model.file).graph
    coverage = coverage_of(graph, provider, optimized, file=pair.model.file)
    if recorded is None:
        return coverage, find_placement(pair.model.data, provider)
    return coverage, placement_of(recorded.placed, provider)


def _with_fault(parts: tuple[PartVerdict, ...], comparison: LayerComparison) -> tuple[PartVerdict, ...]:
    """The verdicts, with the first layer that exceeds its bound as a finding."""
    fault = comparison.first_fault
    if fault is None:
        return parts
    part = "static" if fault.is_mistranslated else "exact"
    finding = Finding(part, "layer", fault_text(fault, comparison.unit), layer=fault.tensor)  # type: ignore[arg-type]  # one of the two
    return tuple(
        replace(verdict, status="failed", findings=(*verdict.findings, finding)) if verdict.part == part else verdict
        for verdict in parts
    )


def fault_text(layer: LayerResult, unit: str) -> str:
    """What the layer does, in one sentence."""
    if layer.is_mistranslated:
        codes = unit == "LSB"
        where, distance, bound = "the graph computes", layer.local, layer.local_bound
        read = f"the source's own {'integers' if codes else 'values'} in front of it"
        off = f"{distance.worst} LSB off" if codes else f"{format_distance(distance.worst)} {unit} off"
    else:
        assert layer.kernel is not None  # noqa: S101 - it is at fault
        where, distance, bound = "ONNX Runtime computes", layer.kernel, layer.kernel_bound
        read, off = "its own integers in front of it", f"{layer.kernel.worst} LSB off"
    return (
        f"{layer.operator} {layer.tensor!r} is the first layer at fault: from {read}, {where} up to {off} "
        f"in {distance.differing:,} of {distance.values:,} values; allowed are {bound}"
    )


def judge_unrounded(inputs: CheckInputs, runs: Sequence[Run], near: Mapping[str, HeadDistance | None]) -> PartVerdict:
    """Judge every layer by its source's codes, and every runtime by ONNX Runtime's float32."""
    try:
        comparison = compare_layers(inputs.pair, inputs.pixels[:IMAGES], inputs.runtimes)
    except XdetError as error:
        return PartVerdict("spread", "skipped", f"its layers could not be compared: {error}")
    findings = _apart(runs, half_bound(inputs.pair) or FLOAT_BOUND)
    if comparison.first_fault is not None:
        message = fault_text(comparison.first_fault, comparison.unit)
        findings.append(Finding("spread", "layer", message, layer=comparison.first_fault.tensor))
    worst = max(float(layer.local.worst) for layer in comparison.layers)
    within = f"{len(comparison.layers)} layers are within {worst:.2f} of a step of the source's codes"
    message = f"given the source's own numbers in front, {within}"
    furthest = max((d for d in near.values() if d is not None), key=lambda d: d.mean_steps, default=None)
    if furthest is not None:
        message += (
            f"; through all of them unrounded, the head of {furthest.first} is up to {furthest.max_steps:.4g} (mean "
            f"{furthest.mean_steps:.4g}) from {furthest.second}'s: compare accuracy with xdet eval"
        )
    return PartVerdict("spread", "failed" if findings else "passed", message, tuple(findings))


def _apart(runs: Sequence[Run], bound: float) -> list[Finding]:
    """Runtimes whose float32 is not ONNX Runtime's."""
    ours = next((run for run in runs if run.name == usual_runtime(FINISHED).name), None)
    others = [] if ours is None else [distance(run, ours, None) for run in runs if run is not ours]
    findings = []
    for d in others:
        if not d.max_steps <= bound:
            message = f"{d.first} is up to {d.max_steps:.4g} of the largest value from {d.second}"
            findings.append(Finding("spread", "layer", f"{message}; allowed are {bound:.4g}", runtime=d.first))
    return findings
