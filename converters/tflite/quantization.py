"""How a TFLite network is quantised, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.tflite.records import TfliteModel

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def summarise_quantization(model: TfliteModel) -> str:
    """The weights' dtypes and granularity: ``"int8 per-channel"``, ``"uint8 per-tensor"``, ``"float32"``."""
    weights = [
        model.tensors[op.inputs[1]] for op in model.operators if op.op in WEIGHTED and len(op.inputs) > 1
    ]
    dtypes = "/".join(sorted({w.dtype for w in weights})) or "none"
    if all(w.quant is None for w in weights):
        return dtypes
    per_channel = any(w.quant is not None and w.quant.scale.size > 1 for w in weights)
    return f"{dtypes} {'per-channel' if per_channel else 'per-tensor'}"
