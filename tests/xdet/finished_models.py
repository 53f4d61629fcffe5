"""Small ONNX models that keep the contract, so that runtimes are tested without a conversion.

The network is the identity: the red value of pixel i / 255 is the score of box i, whose corners are (0, 0)
and (0.5, 0.25). Boxes never suppress each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
OUTPUTS: tuple[tuple[str, int, list[int]], ...] = (
    ("num_detections", TensorProto.INT32, []),
    ("detection_boxes", TensorProto.FLOAT, [PIXELS, 4]),
    ("detection_scores", TensorProto.FLOAT, [PIXELS]),
    ("detection_classes", TensorProto.INT32, [PIXELS]),
    ("detection_anchors", TensorProto.INT32, [PIXELS]),
)


def red_image(*reds: int) -> NDArray[np.uint8]:
    """One image, uint8 ``(1, 2, 2, 3)``, with these red values and no green or blue."""
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    image[..., 0] = np.array(reds, np.uint8).reshape(1, SIZE, SIZE)
    return image


def document(
    spec: DetectorSpec = SPEC, *, freeze: bool = False, activations: ActivationCodes = "uint8"
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
        notes=(),
        tensors={},
    )


def finished_model(*, batch: int | str = 1, freeze: bool = False, metadata: str | None = "own") -> bytes:
    """The identity detector; ``metadata`` replaces its document, None leaves it out."""
    nodes = [
        *_red_scores("scores"),
        helper.make_node("TopK", ["scores", "k"], ["sorted", "order"], axis=1),
        helper.make_node("Greater", ["sorted", "score_threshold"], ["above"]),
        helper.make_node("GreaterOrEqual", ["iou_threshold", "zero"], ["sane"]),  # an input must be used
        helper.make_node("And", ["above", "sane"], ["keep"]),
        helper.make_node("Cast", ["keep"], ["ones"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["ones", "axis"], ["num_detections"], keepdims=0),
        helper.make_node("Where", ["keep", "sorted", "zero"], ["detection_scores"]),
        helper.make_node("Sub", ["ones", "one"], ["detection_classes"]),
        helper.make_node("Cast", ["order"], ["indices"], to=TensorProto.INT32),
        helper.make_node("Where", ["keep", "indices", "minus_one"], ["detection_anchors"]),
        helper.make_node("Unsqueeze", ["keep", "last"], ["keep_box"]),
        helper.make_node("Where", ["keep_box", "box", "zero"], ["detection_boxes"]),
    ]
    constants = {
        "k": np.array([PIXELS]),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.int32),
        "minus_one": np.array(-1, np.int32),
        "axis": np.array([1]),
        "last": np.array([2]),
        "box": np.array([0, 0, 0.5, 0.25], np.float32),
        "score_threshold": np.array(SPEC.thresholds.score, np.float32),
        "iou_threshold": np.array(SPEC.thresholds.iou, np.float32),
    }
    optional = [] if freeze else ["score_threshold", "iou_threshold"]
    own = document(freeze=freeze).to_json() if metadata == "own" else metadata
    return _model(nodes, constants, optional=optional, outputs=OUTPUTS, batch=batch, metadata=own)


def head_model(*, spec: DetectorSpec = RAW_HEAD, batch: int | str = 1) -> bytes:
    """A model that ends at the raw head: objectness is logit-like red / 255, all else 0; ``(N, 2, 2, 6)``."""
    nodes = [
        *_red_scores("scores"),
        helper.make_node("Reshape", ["scores", "grid"], ["objectness"]),
        helper.make_node("Mul", ["objectness", "pick"], ["head"]),
    ]
    constants = {"grid": np.array([0, SIZE, SIZE, 1]), "pick": np.array([0, 0, 0, 0, 1, 0], np.float32)}
    outputs = (("head", TensorProto.FLOAT, [SIZE, SIZE, 6]),)
    own = document(spec).to_json()
    return _model(nodes, constants, optional=[], outputs=outputs, batch=batch, metadata=own)


def _red_scores(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["real", "red_start", "red_end", "red_axis"], ["red"]),
        helper.make_node("Reshape", ["red", "flat"], ["flat_red"]),
        helper.make_node("Div", ["flat_red", "white"], [name]),
    ]


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    *,
    optional: list[str],
    outputs: tuple[tuple[str, int, list[int]], ...],
    batch: int | str,
    metadata: str | None,
) -> bytes:
    constants = constants | {
        "red_start": np.array([0]),
        "red_end": np.array([1]),
        "red_axis": np.array([3]),
        "flat": np.array([0, PIXELS]),
        "white": np.array(255, np.float32),
    }
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, SIZE, SIZE, 3])
    graph = helper.make_graph(
        nodes,
        "identity",
        [image, *(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in optional)],
        [helper.make_tensor_value_info(name, dtype, [batch, *shape]) for name, dtype, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    if metadata is not None:
        helper.set_model_props(model, {METADATA_KEY: metadata})
    serialized: bytes = model.SerializeToString()
    return serialized
