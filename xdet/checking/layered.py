"""What ``--layers`` adds to a check: every tensor beside its twin, the first layer at fault, and what runs on integers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdet.checking.placement import find_placement
from xdet.checking.result import Finding
from xdet.coverage import Coverage, integer_coverage
from xdet.errors import XdetError
from xdet.layers import compare_layers
from xdet.report import format_distance
from xdet.runtimes.choices import RuntimeChoices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdet.checking.opened import OpenedPair
    from xdet.checking.result import CheckResult, PartVerdict
    from xdet.layer_records import Layer, LayerComparison, RealLayer

IMAGES = 2  # every tensor of every layer is held twice, and computed twice in plain integers
PREFIX = "onnxruntime:"


def with_layers(
    result: CheckResult, pair: OpenedPair, pixels: NDArray[np.uint8], threads: int | None
) -> CheckResult:
    """The result with its layers and integer coverage.

    Args:
        result: the check without layers.
        pair: the two files.
        pixels: uint8 RGB ``(N, height, width, 3)`` at network size; the first two are used.
        threads: threads inside an operator; None is the runtime's default.
    """
    coverage = tuple(_coverage(pair, run.name) for run in result.runs if run.name.startswith(PREFIX))
    placement = tuple(
        find_placement(pair.model.data, run.name.removeprefix(PREFIX))
        for run in result.runs
        if run.name.startswith(PREFIX)
    )
    result = replace(result, coverage=coverage, placement=placement)
    try:
        found = compare_layers(
            pair.model.data, pair.source.path, pixels[:IMAGES], choices=RuntimeChoices(threads=threads)
        )
    except XdetError as error:
        problem = str(error).replace(str(pair.source.path), result.source)  # results hold no folder
        return replace(result, layers_problem=problem)
    return replace(result, layers=found, parts=_with_fault(result.parts, found))


def _coverage(pair: OpenedPair, runtime: str) -> Coverage:
    return integer_coverage(pair.model.data, runtime.removeprefix(PREFIX), file=pair.model.file)


def _with_fault(parts: tuple[PartVerdict, ...], found: LayerComparison) -> tuple[PartVerdict, ...]:
    """The verdicts, with the first layer that exceeds its bound as a finding."""
    fault = found.first_fault
    if fault is None:
        return parts
    part = "static" if fault.is_mistranslated else "exact"
    finding = Finding(part, "layer", _told(fault, found.unit), layer=fault.tensor)  # type: ignore[arg-type]  # one of the two
    return tuple(
        replace(verdict, status="failed", findings=(*verdict.findings, finding))
        if verdict.part == part
        else verdict
        for verdict in parts
    )


def _told(layer: Layer | RealLayer, unit: str) -> str:
    """What the layer does, in one sentence."""
    if layer.is_mistranslated:
        codes = unit == "LSB"
        where, distance, bound = "the graph computes", layer.local, layer.local_bound
        given = f"the source's own {'integers' if codes else 'values'} in front of it"
        off = f"{distance.worst} LSB off" if codes else f"{format_distance(distance.worst)} {unit} off"
    else:
        assert layer.kernel is not None  # noqa: S101 - it is at fault
        where, distance, bound = "ONNX Runtime computes", layer.kernel, layer.kernel_bound_lsb
        given, off = "its own integers in front of it", f"{layer.kernel.worst_lsb} LSB off"
    return (
        f"{layer.operator} {layer.tensor!r} is the first layer at fault: from {given}, {where} up to {off} "
        f"in {distance.differing:,} of {distance.values:,} values; allowed are {bound}"
    )
