"""A copy of a finished model whose thresholds are constants, for runtimes that cannot take them: a few bytes change.

Before: ``score_threshold`` and ``iou_threshold`` are optional inputs with defaults. After: they are initialisers only, at the
values asked for, and the document says so. Numeric effect: none, at those thresholds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converters.spec import METADATA_KEY, THRESHOLD_INPUTS, ModelDocument, Thresholds
from xdet.onnx_graph import load_onnx


def frozen_copy(model: bytes, document: ModelDocument, thresholds: Thresholds) -> bytes:
    """The model's bytes with ``thresholds`` (of which ``max_detections`` must be the model's own) as constants."""
    from onnx import numpy_helper

    proto = load_onnx(model, "a finished model")
    values = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    inputs = [value for value in proto.graph.input if value.name not in values]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values[tensor.name], np.float32), tensor.name))
    spec = replace(document.spec, thresholds=thresholds)
    told = replace(document, spec=spec, freeze_thresholds=True)
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = told.to_json()
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
