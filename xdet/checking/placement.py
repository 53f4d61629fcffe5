"""Which provider ONNX Runtime gives a model's nodes to, as ONNX Runtime itself tells it.

What a provider does not take falls back to the CPU without a word; here it shows. Providers other than the CPU are asked in a
process of their own, where they may crash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from xdet.errors import XdetError
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.runtimes.providers import CPU, resolve_provider, short_name

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER = ("-m", "xdet.checking.placement")


def place_nodes(model: bytes, provider: str) -> Mapping[str, int] | None:
    """How many nodes each provider gets, before they are fused; None where ONNX Runtime does not tell, or the provider fails.

    Args:
        model: the ONNX file's bytes.
        provider: execution provider that is asked for, short or full.
    """
    return place_here(model, provider) if resolve_provider(provider) == CPU else place_apart(model, provider)


def place_here(model: bytes, provider: str) -> Mapping[str, int] | None:
    """As ``place_nodes``, in this process."""
    choices = SessionChoices(provider=resolve_provider(provider), threads=1, record_placement=True)
    try:
        session = OrtSession(model, file="model", choices=choices)
    except XdetError:  # the run of this provider has told why
        return None
    placed = session.placement()
    session.close()
    return None if placed is None else {short_name(name): count for name, count in placed.items()}


def place_apart(model: bytes, provider: str) -> Mapping[str, int] | None:
    """As ``place_nodes``, in a process of its own."""
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.run(  # noqa: S603 - this interpreter, our own module
        [sys.executable, *WORKER, provider], input=model, env=paths, capture_output=True, check=False
    )
    if process.returncode:
        return None
    told: dict[str, int] | None = json.loads(process.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    found = place_here(sys.stdin.buffer.read(), sys.argv[1])
    sys.stdout.write("\n" + json.dumps(None if found is None else dict(found)) + "\n")
