"""``--json FILE``: to a file, whole or not at all, or to stdout for ``-``."""

from __future__ import annotations

from pathlib import Path

import typer

from xdet.outputs import write_text


def write_json(target: Path, text: str) -> None:
    """Write JSON text (with its final newline) to ``target``; ``-`` is stdout."""
    if target == Path("-"):
        typer.echo(text, nl=False)
    else:
        write_text(target, text)
