"""A row of the runtime matrix: how far a runtime's head is from the nearest LiteRT kernel, and how far it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.check_html.markup import number, shown
from xdet.check_report import boxes_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdet.checking.result import RuntimeLine


def runtime_headers(unit: str) -> tuple[str, ...]:
    """Titles of the columns; ``unit`` is that of the distances."""
    told = " LSB" if unit == "LSB" else ""  # fractions have no name short enough
    return (
        *("runtime", "photographs", "nearest", "differ", "of"),
        *(f"max{told}", f"mean{told}", "must be", "boxes"),  # the widest comes last
    )


def runtime_row(run: RuntimeLine, allowed: tuple[float | None, float | None]) -> tuple[str, ...]:
    """The cells, as HTML.

    Args:
        run: the runtime.
        allowed: the largest and the mean distance that part spread allows; None where it was skipped.
    """
    near, distance = run.nearest, ("",) * 5
    if near is not None:
        counts = number(near.differing), number(near.values)
        distance = (shown(near.second), *counts, number(near.max_steps), number(near.mean_steps))
    limit = "" if allowed[0] is None else f"≤ {number(allowed[0])} (mean {number(allowed[1])})"
    must = "exact" if run.must_be_exact else limit
    return (shown(run.name), number(run.images), *distance, must, shown(boxes_text(run)))


def runtime_notes(runs: Iterable[RuntimeLine]) -> list[str]:
    """What is to be known of single runtimes, as items of a list, each once."""
    return list(
        dict.fromkeys(f"<li>{shown(run.name)} {shown(note)}</li>" for run in runs for note in run.notes)
    )
