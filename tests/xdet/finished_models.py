"""Small ONNX models that keep the contract, so that runtimes are tested without a conversion; ONNX models from text.

The network is the identity: the red value of pixel i / 255 is the score of box i, whose corners are (0, 0)
and (0.5, 0.25). Boxes never suppress each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from converters.heads.yolo_v2 import YoloV2
from converters.spec import (
    METADATA_KEY,
    ActivationCodes,
    Anchors,
    DetectorSpec,
    ImageInput,
    ModelDocument,
    Rescaling,
    SourceInfo,
    Thresholds,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 2
PIXELS = SIZE * SIZE
SPEC = DetectorSpec(
    image=ImageInput(SIZE, SIZE, Rescaling(1 / 255, 0.0)),
    head=YoloV2(SIZE, SIZE, Anchors(((1.0, 1.0),), "cell"), 1),
    class_names=("person",),
    thresholds=Thresholds(score=0.5, iou=0.5, max_detections=PIXELS),
)
RAW_HEAD = SPEC.ending_raw()
RED_CONSTANTS = """int64[1] red_start = {0}, int64[1] red_end = {1}, int64[1] red_axis = {3}, int64[2] flat = {0, 4},
            float white = {255}"""
RED_SCORES = """real = Cast <to = 1>(image)
            red = Slice(real, red_start, red_end, red_axis)
            flat_red = Reshape(red, flat)
            scores = Div(flat_red, white)"""


def red_image(*reds: int) -> NDArray[np.uint8]:
    """One image, uint8 ``(1, 2, 2, 3)``, with these red values and no green or blue."""
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    image[..., 0] = np.array(reds, np.uint8).reshape(1, SIZE, SIZE)
    return image


def document(
    spec: DetectorSpec = SPEC,
    *,
    freeze: bool = False,
    activations: ActivationCodes = "uint8",
    notes: tuple[str, ...] = (),
) -> ModelDocument:
    return ModelDocument(
        spec=spec,
        source=SourceInfo("identity.tflite", "0" * 64, "tflite"),
        quantization="none",
        activations=activations,
        leaky_relu="litert",
        target="portable",
        freeze_thresholds=freeze,
        passes=(),
        notes=notes,
        tensors={},
    )


def finished_model(*, batch: int | str = 1, freeze: bool = False, metadata: str | None = "own") -> bytes:
    """The identity detector; ``metadata`` replaces its document, None leaves it out."""
    optional = "" if freeze else ", float score_threshold, float iou_threshold"
    model = model_from_text(
        f"""identity (uint8[{batch},2,2,3] image{optional}) => (int32[{batch}] num_detections,
            float[{batch},4,4] detection_boxes, float[{batch},4] detection_scores,
            int32[{batch},4] detection_classes, int32[{batch},4] detection_anchors)
        <int64[1] k = {{4}}, float zero = {{0}}, int32 one = {{1}}, int32 minus_one = {{-1}}, int64[1] axis = {{1}},
            int64[1] last = {{2}}, float[4] box = {{0, 0, 0.5, 0.25}},
            float score_threshold = {{{SPEC.thresholds.score}}}, float iou_threshold = {{{SPEC.thresholds.iou}}},
            {RED_CONSTANTS}>
        {{
            {RED_SCORES}
            sorted, order = TopK <axis = 1>(scores, k)
            above = Greater(sorted, score_threshold)
            sane = GreaterOrEqual(iou_threshold, zero)  # an input must be used
            keep = And(above, sane)
            ones = Cast <to = 6>(keep)
            num_detections = ReduceSum <keepdims = 0>(ones, axis)
            detection_scores = Where(keep, sorted, zero)
            detection_classes = Sub(ones, one)
            indices = Cast <to = 6>(order)
            detection_anchors = Where(keep, indices, minus_one)
            keep_box = Unsqueeze(keep, last)
            detection_boxes = Where(keep_box, box, zero)
        }}"""
    )
    return _with_document(model, document(freeze=freeze).to_json() if metadata == "own" else metadata)


def head_model(*, spec: DetectorSpec = RAW_HEAD, batch: int | str = 1) -> bytes:
    """A model that ends at the raw head: objectness is logit-like red / 255, all else 0; ``(N, 2, 2, 6)``."""
    model = model_from_text(
        f"""identity (uint8[{batch},2,2,3] image) => (float[{batch},2,2,6] head)
        <int64[4] grid = {{0, 2, 2, 1}}, float[6] pick = {{0, 0, 0, 0, 1, 0}}, {RED_CONSTANTS}>
        {{
            {RED_SCORES}
            objectness = Reshape(scores, grid)
            head = Mul(objectness, pick)
        }}"""
    )
    return _with_document(model, document(spec).to_json())


def model_from_text(text: str) -> onnx.ModelProto:
    """A graph in ONNX's text form, opset 19, as a model that keeps the standard."""
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 19]>\n' + text)
    onnx.checker.check_model(model)
    return model


def _with_document(model: onnx.ModelProto, metadata: str | None) -> bytes:
    if metadata is not None:
        helper.set_model_props(model, {METADATA_KEY: metadata})
    serialized: bytes = model.SerializeToString()
    return serialized
