"""``TFLite_Detection_PostProcess``: what the operator behind an SSD network does, from its options and its priors.

Offsets, scores and a constant of priors -> boxes, classes, scores and their number. It is not translated as an
operator: the head ``ssd`` and the tail of all heads do the same (``converters.heads.ssd``,
``converters.spec.Suppression``).

Source of names and defaults: the operator's kernel in tensorflow/tensorflow (lite/kernels/detection_postprocess.cc).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.facts import PostProcess
from converters.heads.nms import MAX_CANDIDATES
from converters.quant import dequantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor

SCALES = ("y_scale", "x_scale", "h_scale", "w_scale")
PER_CLASS = 100  # the kernel's, where the options do not say


def read_postprocess(model: TfliteModel) -> PostProcess | None:
    """What the operator at the end of a file does; None for a file without one.

    Raises:
        SourceFileError: options are missing or out of range, or operands do not fit.
    """
    op = model.postprocess
    if op is None:
        return None
    boxes, scores = (model.tensors[index].shape for index in op.inputs[:2])
    classes = _count(model, op, "num_classes", most=1 << 16)
    background = scores[2] - classes if len(scores) == 3 else -1
    if len(boxes) != 3 or boxes[0] != 1 or boxes[2] != 4 or scores[:2] != boxes[:2] or background not in (0, 1):
        found = f"offsets {list(boxes)} and scores {list(scores)} of {classes} classes"
        raise _malformed(model, f"has {found}, expected [1, boxes, 4] and [1, boxes, classes or 1 + classes]")
    regular = bool(op.options.get("use_regular_nms", False))
    per_box = 1 if regular else _count(model, op, "max_classes_per_detection", most=classes)
    per_class = PER_CLASS if "detections_per_class" not in op.options else None
    return PostProcess(
        num_classes=classes,
        scales=tuple(_above_zero(model, op, name) for name in SCALES),  # type: ignore[arg-type]  # four names
        priors=tuple(map(tuple, _priors(model, op.inputs[2], boxes[1]).tolist())),
        score_threshold=_threshold(model, op, "nms_score_threshold"),
        iou_threshold=_threshold(model, op, "nms_iou_threshold"),
        max_detections=_count(model, op, "max_detections", most=MAX_CANDIDATES // per_box),
        across_classes=not regular,
        per_class=per_class or _count(model, op, "detections_per_class", most=1 << 31),
        classes_per_box=per_box,
    )


def _priors(model: TfliteModel, index: int, count: int) -> NDArray[np.float32]:
    """The constant of priors, float32 ``(count, 4)``; 8-bit codes are dequantised as the kernel does."""
    tensor = model.tensors[index]
    if tensor.data is None or tensor.shape != (count, 4) or tensor.dtype not in ("float32", "uint8", "int8"):
        found = f"{'computed' if tensor.data is None else 'constant'} {tensor.dtype} {list(tensor.shape)}"
        expected = f"a constant float32 or uint8 {[count, 4]}"
        raise _malformed(model, f"has priors {tensor.name!r}: {found}, expected {expected}")
    priors = constant_numbers(tensor)
    if priors is None:
        raise _malformed(model, f"has priors {tensor.name!r} of {tensor.dtype} without one scale")
    wrong = np.flatnonzero(~(np.isfinite(priors).all(axis=1) & (priors[:, 2:] > 0).all(axis=1)))
    if wrong.size:
        raise _malformed(model, f"has prior {wrong[0]} {priors[wrong[0]].tolist()}, expected a size above 0")
    return priors


def constant_numbers(tensor: TfliteTensor) -> NDArray[np.float32] | None:
    """A constant as float32, of 8-bit codes by their one scale; None for other types, and for what is computed."""
    if tensor.data is None or tensor.dtype == "float32":
        return tensor.data
    if tensor.dtype not in ("int8", "uint8") or tensor.quant is None or tensor.quant.scale.size != 1:
        return None
    return dequantize(tensor.data, tensor.quant.scalar_scale, tensor.quant.scalar_zero_point)


def _number(model: TfliteModel, op: TfliteOperator, name: str) -> float:
    value = op.options.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _malformed(model, f"has {name} {'nowhere' if value is None else value}, expected a number")
    return value


def _count(model: TfliteModel, op: TfliteOperator, name: str, *, most: int) -> int:
    value = _number(model, op, name)
    if value != int(value) or not 1 <= value <= most:
        raise _malformed(model, f"has {name} {value}, expected 1 to {most}")
    return int(value)


def _above_zero(model: TfliteModel, op: TfliteOperator, name: str) -> float:
    value = float(np.float32(_number(model, op, name)))
    if not 0 < value < math.inf:
        raise _malformed(model, f"has {name} {value}, expected a number above 0")
    return value


def _threshold(model: TfliteModel, op: TfliteOperator, name: str) -> float:
    value = _number(model, op, name)
    if not 0 <= value <= 1:
        raise _malformed(model, f"has {name} {value}, expected 0 to 1")
    return float(str(np.float32(value)))  # the shortest number of the same float32


def _malformed(model: TfliteModel, what: str) -> SourceFileError:
    return SourceFileError(f"{model.file}: its operator TFLite_Detection_PostProcess {what}; export the model again")
