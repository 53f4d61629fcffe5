"""``--json FILE``: to a file, whole or not at all, or to stdout for ``-``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xdet.outputs import Output, encode_text, json_mark, write_text

STDOUT = Path("-")
Force = Annotated[
    bool, typer.Option("--force", help="Replace existing files that xdet did not make, too; never an input.")
]


def json_outputs(target: Path | None, schema: str | None) -> list[Output]:
    """``--json`` as the outputs of a command: none, or one file, whose earlier version is known by its schema."""
    if target is None or target == STDOUT:
        return []
    return [Output(target, None if schema is None else json_mark(schema))]


def write_json(target: Path, text: str) -> None:
    r"""Write JSON text (with its final newline) to ``target``; ``-`` is stdout. The bytes are the same: UTF-8, ``\n``."""
    if target != STDOUT:
        write_text(target, text)
        return
    sys.stdout.flush()  # what was printed before comes first
    sys.stdout.buffer.write(encode_text(text))
    sys.stdout.buffer.flush()
