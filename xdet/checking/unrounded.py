"""Part spread of models that leave out their source's rounding (``--dequantize``): by layers, in steps of codes.

No bound on the head follows from the source: where nothing rounds between, small differences of early layers grow as
the weights let them. What does follow is a bound for each layer: given the source's own codes in front of it, its
result is within one step of the source's (half for the rounding, half for LiteRT's multipliers). So that is judged, on
two photographs, with every runtime beside ONNX Runtime's float32; how far the head is in the end is told, and judges
nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xdet.checking.blame import IMAGES, fault_text
from xdet.checking.heads.spread import FLOAT_BOUND, ONNX_MODEL, distance
from xdet.checking.layers import compare_layers, half_values
from xdet.checking.result import Finding, PartVerdict
from xdet.errors import XdetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import HeadDistance
    from xdet.checking.runs import OpenRuntimes, Run

HALF_NOT_EXACT = "no pair is declared exact: the model rounds to float16, and the source does not"
NOT_EXACT = "no pair is declared exact: the source rounds every activation, and the model none (--dequantize)"


def judge_unrounded(
    pair: OpenedPair,
    pixels: NDArray[np.uint8],
    runs: Sequence[Run],
    near: Mapping[str, HeadDistance | None],
    runtimes: OpenRuntimes,
) -> PartVerdict:
    """Judge every layer by its source's codes, and every runtime by ONNX Runtime's float32."""
    try:
        found = compare_layers(pair, pixels[:IMAGES], runtimes)
    except XdetError as error:
        return PartVerdict("spread", "skipped", f"its layers could not be compared: {error}")
    findings = list(_apart(runs, half_bound(pair) or FLOAT_BOUND))
    if found.first_fault is not None:
        message = fault_text(found.first_fault, found.unit)
        findings.append(Finding("spread", "layer", message, layer=found.first_fault.tensor))
    worst = max(float(layer.local.worst) for layer in found.layers)
    message = (
        f"given the source's own numbers in front, {len(found.layers)} layers are within {worst:.2f} of a step of the "
        "source's codes"
    )
    furthest = max((d for d in near.values() if d is not None), key=lambda d: d.mean_steps, default=None)
    if furthest is not None:
        message += (
            f"; through all of them unrounded, the head of {furthest.first} is up to {furthest.max_steps:.4g} (mean "
            f"{furthest.mean_steps:.4g}) from {furthest.second}'s: compare accuracy with xdet eval"
        )
    return PartVerdict("spread", "failed" if findings else "passed", message, tuple(findings))


def half_bound(pair: OpenedPair) -> float | None:
    """How far the head of a float16 model may be, as a fraction of its largest value; None for others.

    Each operator rounds to 11 bits, weights and result, by up to 2^-10 together; such roundings add up like noise.
    """
    if not pair.document.float16:
        return None
    return 2.0**-10 * math.sqrt(max(len(half_values(pair.graph)), 1))


def _apart(runs: Sequence[Run], bound: float) -> list[Finding]:
    """Runtimes whose float32 is not ONNX Runtime's."""
    ours = next((run for run in runs if run.name == ONNX_MODEL), None)
    others = [] if ours is None else [distance(run, ours, None) for run in runs if run is not ours]
    return [
        Finding(
            "spread",
            "layer",
            f"{d.first} is up to {d.max_steps:.4g} of the largest value from {d.second}; allowed are {bound:.4g}",
            runtime=d.first,
        )
        for d in others
        if not d.max_steps <= bound
    ]
