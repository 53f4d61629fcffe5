"""docs/operators.md and the table of operators state one fact once."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from converters.sources.tflite.operators import OPERATORS

if TYPE_CHECKING:
    from converters.sources.tflite.operators import Case

DOCUMENT = Path(__file__).parents[4] / "docs" / "operators.md"
HEADER = "| TFLite | ONNX, between DequantizeLinear and QuantizeLinear | kernel | result |"


def line(subject: str, case: Case) -> str:
    """A case as a line of the document's table."""
    result = f"<= {case.bound_lsb} LSB" if case.bound_lsb else "exact"
    remark = f"{':' if case.bound_lsb else ','} {case.remark}" if case.remark else ""
    return f"| {subject} | {case.onnx} | {case.kernel} | {result}{remark} |"


def table() -> list[str]:
    """The document's table: rows whose cases are the same share a line."""
    lines = [HEADER, "|---|---|---|---|"]
    for cases, names in groupby(OPERATORS, key=lambda name: OPERATORS[name].cases):
        lines.append(line(", ".join(names), cases[0]))
        lines += [line(f"... {case.when}", case) for case in cases[1:]]
    return lines


def test_the_document_has_the_table_of_the_rows() -> None:
    text = DOCUMENT.read_text("utf-8")
    start = text.index(HEADER)
    assert text[start : text.index("\n\n", start)].splitlines() == table()
