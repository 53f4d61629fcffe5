"""What a TFLite file itself tells about its detector: picture size, outputs, input encoding, quantisation in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.facts import CHANNELS, IMAGE_SHAPE, PostProcess, SourceFacts, SourceOutput
from converters.heads.nms import MAX_CANDIDATES
from converters.quant import dequantize
from converters.sources.tflite.operators import WEIGHTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor

SCALES = ("y_scale", "x_scale", "h_scale", "w_scale")
PER_CLASS = 100  # the kernel's, where the options do not say
ACTIVATIONS = frozenset({"LOGISTIC", "SOFTMAX"})
KEEPS_NUMBERS = frozenset({  # they move or requantise numbers, and leave them what they are
    *("QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "PACK", "SPLIT"),
    *("SLICE", "STRIDED_SLICE", "PAD"),
})  # fmt: skip


def facts_from_tflite(model: TfliteModel) -> SourceFacts:
    """Read the facts of a TFLite detector: one image in, any number of outputs of any rank.

    Raises:
        SourceFileError: its inputs are not one picture, an output has no batch of one image, or a post-processing has
            options that are missing or out of range, or operands that do not fit.
    """
    inputs, outputs = ([model.tensors[index] for index in indices] for indices in (model.inputs, model.outputs))
    picture = inputs[0].shape if len(inputs) == 1 else ()
    if len(picture) != 4 or picture[0] != 1 or picture[3] not in CHANNELS or min(picture) < 1:
        raise _not_a_detector(model, "input", inputs, IMAGE_SHAPE)
    if not outputs or any(not t.shape or t.shape[0] != 1 or min(t.shape) < 1 for t in outputs):
        raise _not_a_detector(model, "output", outputs, "numbers of one image, [1, ...]")
    activations, codes, pictured = _walk(model)
    return SourceFacts(
        file=model.file,
        height=picture[1],
        width=picture[2],
        outputs=tuple(
            SourceOutput(
                tensor.name,
                tensor.shape[1:],
                tuple(activations.get(tensor.index, ())),
                *_extremes(model.tensors[codes.get(tensor.index, tensor.index)]),
                from_picture=tensor.index in pictured,
            )
            for tensor in outputs
        ),
        input_dtype=inputs[0].dtype,
        input_quant=inputs[0].quant,
        channels=picture[3],
        postprocess=_postprocess(model),
        metadata=model.metadata,
        priors=_constant_priors(model),
    )


def _walk(model: TfliteModel) -> tuple[dict[int, dict[str, int]], dict[int, int], set[int]]:
    """What stands in front of tensors.

    The activations through which a tensor's numbers went last, each with the first operator that is one, in their
    order; of real numbers that only operators that move or dequantise stand behind, the tensor of the codes; and the
    tensors that a convolution or another product reaches.
    """
    activations: dict[int, dict[str, int]] = {}
    codes: dict[int, int] = {}
    pictured: set[int] = set()
    for op in model.operators:
        last = {op.op: op.index} if op.op in ACTIVATIONS else {}
        for index in op.inputs if op.op in KEEPS_NUMBERS else ():
            for name, first in activations.get(index, {}).items():
                last[name] = min(first, last.get(name, first))
        last = dict(sorted(last.items(), key=lambda item: item[1]))
        activations.update(dict.fromkeys(op.outputs, last))
        # an operator without operands is refused where it is translated
        moves = op.op in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE") and op.inputs and op.inputs[0] >= 0
        for index in op.outputs if moves else ():
            if model.tensors[index].quant is None:
                codes[index] = codes.get(op.inputs[0], op.inputs[0])
        if op.op in WEIGHTED or not pictured.isdisjoint(op.inputs):
            pictured.update(op.outputs)
    return activations, codes, pictured


def _constant_priors(model: TfliteModel) -> tuple[tuple[float, ...], ...] | None:
    """The numbers of the only constant output, where it holds four per box."""
    if len(model.constant_outputs) != 1:
        return None
    tensor = model.tensors[model.constant_outputs[0]]
    numbers = _constant_numbers(tensor)
    if numbers is None or tensor.shape[-1:] != (4,) or not np.isfinite(numbers).all():
        return None
    return tuple(map(tuple, numbers.reshape(-1, 4).tolist()))


def _extremes(tensor: TfliteTensor) -> tuple[float | None, float | None]:
    """The largest and smallest number that a tensor's codes can hold."""
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.dtype not in ("int8", "uint8"):
        return None, None
    return tensor.quant.extremes(tensor.dtype)


def _not_a_detector(model: TfliteModel, side: str, tensors: list[TfliteTensor], expected: str) -> SourceFileError:
    listed = ", ".join(f"'{tensor.name}' {list(tensor.shape)}" for tensor in tensors) or "none"
    return SourceFileError(f"'{model.file}' is not a detector: {side} expected {expected}, found {listed}")


def summarise_quantization(model: TfliteModel) -> str:
    """The weights' dtypes and granularity: ``"int8 per-channel"``, ``"uint8 per-tensor"``, ``"float32"``."""
    weights = [model.tensors[op.inputs[1]] for op in model.operators if op.op in WEIGHTED and len(op.inputs) > 1]
    dtypes = "/".join(sorted({w.dtype for w in weights})) or "none"
    if all(w.quant is None for w in weights):
        return dtypes
    per_channel = any(w.quant is not None and w.quant.scale.size > 1 for w in weights)
    return f"{dtypes} {'per-channel' if per_channel else 'per-tensor'}"


def _postprocess(model: TfliteModel) -> PostProcess | None:
    """What ``TFLite_Detection_PostProcess`` at the end of a file does; None for a file without one.

    Offsets, scores and a constant of priors -> boxes, classes, scores and their number. It is not translated as an
    operator: the head ``ssd`` and the tail of all heads do the same (``converters.heads.ssd``,
    ``converters.spec.Suppression``). Source of names and defaults: the operator's kernel in tensorflow/tensorflow
    (lite/kernels/detection_postprocess.cc).
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
    priors = _constant_numbers(tensor)
    if priors is None:
        raise _malformed(model, f"has priors {tensor.name!r} of {tensor.dtype} without one scale")
    wrong = np.flatnonzero(~(np.isfinite(priors).all(axis=1) & (priors[:, 2:] > 0).all(axis=1)))
    if wrong.size:
        raise _malformed(model, f"has prior {wrong[0]} {priors[wrong[0]].tolist()}, expected a size above 0")
    return priors


def _constant_numbers(tensor: TfliteTensor) -> NDArray[np.float32] | None:
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
