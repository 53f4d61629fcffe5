"""``--json FILE``: to a file, whole or not at all, or to stdout for ``-``."""

from __future__ import annotations

import sys
from pathlib import Path

from xdet.outputs import encode_text, require_target, write_text

STDOUT = Path("-")


def require_json_target(target: Path | None) -> None:
    """Refuse a ``--json`` that cannot be written, before any work is done."""
    if target is not None and target != STDOUT:
        require_target(target)


def write_json(target: Path, text: str) -> None:
    r"""Write JSON text (with its final newline) to ``target``; ``-`` is stdout. The bytes are the same: UTF-8, ``\n``."""
    if target != STDOUT:
        write_text(target, text)
        return
    sys.stdout.flush()  # what was printed before comes first
    sys.stdout.buffer.write(encode_text(text))
    sys.stdout.buffer.flush()
