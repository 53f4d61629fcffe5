"""A copy of a finished model whose thresholds are constants, for runtimes that cannot take them: a few bytes change.

Before: ``score_threshold`` and ``iou_threshold`` are optional inputs with defaults. After: they are initialisers only, at the
values asked for, and the document says so. Numeric effect: none, at those thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import METADATA_KEY, THRESHOLD_INPUTS, ModelDocument, Thresholds
from xdet.onnx_graph import load_onnx

if TYPE_CHECKING:
    import onnx


def frozen_copy(model: bytes, document: ModelDocument, thresholds: Thresholds) -> bytes:
    """The model's bytes with ``thresholds`` (of which ``max_detections`` must be the model's own) as constants."""
    proto = load_onnx(model, "a finished model")
    inputs = [value for value in proto.graph.input if value.name not in THRESHOLD_INPUTS]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    write_thresholds(proto, thresholds)
    spec = replace(document.spec, thresholds=thresholds)
    told = replace(document, spec=spec, freeze_thresholds=True)
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = told.to_json()
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized


def write_thresholds(proto: onnx.ModelProto, thresholds: Thresholds) -> None:
    """Set the graph's score and IoU threshold, constants or defaults of inputs, in place."""
    from onnx import numpy_helper

    values = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            value = np.full(tuple(tensor.dims), values[tensor.name], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
