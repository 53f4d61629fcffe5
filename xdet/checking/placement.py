"""Which provider ONNX Runtime gives a model's nodes to, as ONNX Runtime itself tells it.

What a provider does not take falls back to the CPU without a word; here it shows. Providers other than the CPU are
asked in a subprocess, where they may crash.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.result import NodePlacement
from xdet.errors import XdetError
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import CPU, OrtSession, SessionChoices, resolve_provider
from xdet.runtimes.worker import Message, SubprocessEndedError, call_in_subprocess

if TYPE_CHECKING:
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.onnxruntime import OnnxRuntime

Placed = Mapping[str, Mapping[str, int]]  # provider, short -> operator -> number of nodes, before they are fused


@dataclass(frozen=True, eq=False, slots=True)
class PlacementRecording:
    """What ONNX Runtime told of a model while it opened it: the graph that it runs, where its nodes run."""

    optimized: bytes
    placed: Placed | None


def open_recorded(model: ModelFile, choices: RuntimeChoices) -> tuple[OnnxRuntime, PlacementRecording]:
    """Open a finished model on the CPU provider, and keep what ONNX Runtime tells of it."""
    with tempfile.TemporaryDirectory(prefix="xdet-") as folder:
        path = Path(folder) / "optimized.onnx"
        runtime = open_onnxruntime(model.data, file=model.file, choices=choices, optimized_path=str(path))
        return runtime, PlacementRecording(path.read_bytes(), runtime.placement())


def find_placement(model: bytes, provider: str) -> NodePlacement:
    """Where a model's nodes go when ``provider``, short, is asked for."""
    place = place_here if resolve_provider(provider) == CPU else place_in_subprocess
    return placement_of(place(model, provider), provider)


def placement_of(placed: Placed | None, provider: str) -> NodePlacement:
    """Placed nodes in the form of results."""
    runtime = f"onnxruntime:{provider}"
    if placed is None:
        return NodePlacement(runtime, None, {})
    nodes = {name: sum(operators.values()) for name, operators in placed.items()}
    return NodePlacement(runtime, nodes, {} if provider == "cpu" else dict(placed.get("cpu", {})))


def place_here(model: bytes, provider: str) -> Placed | None:
    """Which nodes each provider gets, asked here; None where ONNX Runtime does not tell, or the provider fails."""
    choices = SessionChoices(provider=resolve_provider(provider), threads=1, record_placement=True)
    try:
        session = OrtSession(model, file="model", choices=choices)
    except XdetError:  # the run of this provider has told why
        return None
    placed = session.placement()
    session.close()
    return placed


def place_in_subprocess(model: bytes, provider: str) -> Placed | None:
    """As ``place_here``, in a subprocess."""
    request = Message({"provider": provider}, {"model": np.frombuffer(model, np.uint8)})
    try:
        placed: Placed | None = call_in_subprocess("xdet.checking.placement:answer", request).fields["nodes"]
    except (SubprocessEndedError, XdetError):  # likewise
        return None
    return placed


def answer(request: Message) -> Message:
    """The other side."""
    return Message({"nodes": place_here(request.arrays["model"].tobytes(), request.fields["provider"])})
