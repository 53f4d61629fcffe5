"""Which provider ONNX Runtime gives a model's nodes to, as ONNX Runtime itself tells it.

What a provider does not take falls back to the CPU without a word; here it shows. Providers other than the CPU are asked in a
process of their own, where they may crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdet.errors import XdetError
from xdet.runtimes.apart import Message, ProcessEndedError, call_apart, serve_apart
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
    request = Message({"provider": provider}, {"model": np.frombuffer(model, np.uint8)})
    try:
        told: dict[str, int] | None = call_apart(WORKER, request).told["nodes"]
    except ProcessEndedError:  # likewise
        return None
    return told


def serve(request: Message) -> Message:
    """The other side."""
    found = place_here(request.arrays["model"].tobytes(), request.told["provider"])
    return Message({"nodes": None if found is None else dict(found)})


if __name__ == "__main__":
    serve_apart(serve)
