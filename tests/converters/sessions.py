"""ONNX Runtime sessions on one thread, as the tests of the converters open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort

if TYPE_CHECKING:
    from pathlib import Path


def session_of(
    model: bytes, *, optimised: Path | None = None, fuse: bool = True, entries: dict[str, str] | None = None
) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: the file's bytes.
        optimised: where to write the graph that runs.
        fuse: whether graphs are optimised at all.
        entries: of the session's configuration.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    if not fuse:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
