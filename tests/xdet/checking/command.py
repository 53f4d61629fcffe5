"""``xdet`` as a shell starts it, from this tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_xdet(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What ``python -m xdet`` says in ``folder``."""
    return subprocess.run(
        [sys.executable, "-m", "xdet", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
