"""A tolerance that somebody signs: how far heads and boxes may be from the source's before a check fails.

Without one a check is exact where the conversion promises LiteRT's bits, and bounded by LiteRT's own spread elsewhere.
With one, ``head`` bounds every value of the raw head, and ``box`` and ``score`` bound every detection that either side
keeps; a lost or new one by the numbers that both heads hold for it. What deviates within the tolerance is called
tolerated, never equal.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from xdet.checking.result import Finding, Tolerance
from xdet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdet.checking.result import HeadDistance, KnownDeviation, PartVerdict

EXAMPLE = "head=1,box=0.5,score=0.01"


def read_tolerance(text: str) -> Tolerance:
    """``head=1,box=0.5,score=0.01``, any of the three.

    Raises:
        UsageError: another name, one that stands twice, or no number from 0 on.
    """
    limits: dict[str, float] = {}
    names = [field.name for field in fields(Tolerance)]
    for word in text.split(","):
        name, _, value = (part.strip() for part in word.partition("="))
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if name not in names or name in limits or not 0 <= limit < math.inf:
            raise UsageError(
                f"a tolerance names {', '.join(names)}, each once and with a number from 0 on, such as {EXAMPLE}; "
                f"got {text!r}"
            )
        limits[name] = limit
    return Tolerance(**limits)


def tolerance_text(tolerance: Tolerance, unit: str) -> str:
    """The limits in words."""
    limits = (
        (tolerance.head, f"{unit} in each value of the head"),
        (tolerance.box, "px of the network's picture at each corner of a box"),
        (tolerance.score, "in each score"),
    )
    return ", ".join(f"{limit:g} {what}" for limit, what in limits if limit is not None)


def tolerate_heads(part: PartVerdict, distances: Iterable[HeadDistance], tolerance: Tolerance | None) -> PartVerdict:
    """Part exact or spread without the findings of runtimes whose heads are within ``head``; its summary names them."""
    if tolerance is None or tolerance.head is None:
        return part
    failing = {finding.runtime for finding in part.findings}
    within = {d.first: d for d in distances if d.first in failing and d.max_steps <= tolerance.head}
    if not within:
        return part
    findings = tuple(finding for finding in part.findings if finding.runtime not in within)
    message = "; ".join(f"{name} by up to {d.max_steps:.4g}" for name, d in within.items())
    summary = f"{part.summary}; TOLERATED, not equal: {message} (limit {tolerance.head:g})"
    return replace(part, status="failed" if findings else "tolerated", summary=summary, findings=findings)


def judge_boxes(part: PartVerdict, deviations: Sequence[KnownDeviation], tolerance: Tolerance | None) -> PartVerdict:
    """Part head with the runtimes whose detections deviate beyond ``box`` or ``score``."""
    if tolerance is None or (tolerance.box is None and tolerance.score is None):
        return part
    findings = []
    for deviation in deviations:
        numbers = ((deviation.box, tolerance.box, "px at a corner"), (deviation.score, tolerance.score, "of score"))
        over = [
            f"{value:.3g} {what} (tolerated are {limit:g})"
            for value, limit, what in numbers
            if limit is not None and not value <= limit
        ]
        if over:
            where = f"from the source's, furthest in '{deviation.image}'"
            message = f"{deviation.runtime}: detections are up to {' and '.join(over)} {where}"
            findings.append(Finding("head", "tolerance", message, runtime=deviation.runtime))
    if findings:
        return replace(part, status="failed", findings=(*part.findings, *findings))
    within = [deviation for deviation in deviations if deviation.box or deviation.score]
    if part.status != "passed" or not within:
        return part
    message = "; ".join(
        f"{deviation.runtime} by up to {deviation.box:.3g} px, {deviation.score:.3g} of score" for deviation in within
    )
    return replace(part, status="tolerated", summary=f"{part.summary}; TOLERATED, not equal to the source's: {message}")
