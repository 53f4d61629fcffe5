"""The table of dialects is the documents', and every file is in one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from converters.spec.dialects import DIALECTS, dialect_of
from tests.xdet.finished_models import document

RUNTIMES = Path(__file__).parents[3] / "docs" / "runtimes.md"


def test_the_document_shows_the_table() -> None:
    text = RUNTIMES.read_text(encoding="utf-8")
    for row in DIALECTS:
        options = f"`{row.options}`" if row.options else "nothing"
        assert f"| {row.name} | {options} | {row.numbers} | {row.wanted_by} |\n" in text


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"activations": "uint8"}, "portable"),
        ({"activations": "uint8", "target": "cpu"}, "cpu"),
        ({"activations": "int8"}, "int8"),
        ({"activations": "int8", "symmetric": True}, "symmetric"),
        ({"activations": "float32"}, "float"),
        ({"activations": "float32", "dequantize": True}, "dequantised"),
        ({"activations": "float32", "dequantize": True, "float16": True}, "float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_file_is_in_one(changes: dict[str, object], name: str) -> None:
    assert dialect_of(replace(document(), **changes)).name == name  # type: ignore[arg-type]  # fields of the document
