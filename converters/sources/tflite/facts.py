"""What a TFLite file itself tells about its detector: picture size, outputs, input encoding, quantisation in words."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.facts import CHANNELS, IMAGE_SHAPE, SourceFacts, SourceOutput
from converters.sources.tflite.operators import WEIGHTED
from converters.sources.tflite.postprocess import constant_numbers, read_postprocess

if TYPE_CHECKING:
    from converters.sources.tflite.reader import TfliteModel, TfliteTensor


def facts_from_tflite(model: TfliteModel) -> SourceFacts:
    """Read the facts of a TFLite detector: one image in, any number of outputs of any rank.

    Raises:
        SourceFileError: its inputs are not one picture, or an output has no batch of one image.
    """
    inputs, outputs = ([model.tensors[index] for index in indices] for indices in (model.inputs, model.outputs))
    if len(inputs) != 1 or not _is_image(inputs[0].shape):
        raise _not_a_detector(model, "input", inputs, IMAGE_SHAPE)
    if not outputs or any(not t.shape or t.shape[0] != 1 or min(t.shape) < 1 for t in outputs):
        raise _not_a_detector(model, "output", outputs, "numbers of one image, [1, ...]")
    (image,) = inputs
    _, height, width, channels = image.shape
    activations, codes, pictured = _activations(model), _codes(model), _from_picture(model)
    return SourceFacts(
        file=model.file,
        height=height,
        width=width,
        outputs=tuple(
            SourceOutput(
                tensor.name,
                tensor.shape[1:],
                tuple(sorted(activations[tensor.index], key=activations[tensor.index].__getitem__)),
                *_extremes(model.tensors[codes.get(tensor.index, tensor.index)]),
                from_picture=tensor.index in pictured,
            )
            for tensor in outputs
        ),
        input_dtype=image.dtype,
        input_quant=image.quant,
        channels=channels,
        postprocess=read_postprocess(model),
        metadata=model.metadata,
        priors=_constant_priors(model),
    )


def _from_picture(model: TfliteModel) -> frozenset[int]:
    """Tensors that a convolution or another product reaches."""
    reached: set[int] = set()
    for op in model.operators:
        if op.op in WEIGHTED or not reached.isdisjoint(op.inputs):
            reached.update(op.outputs)
    return frozenset(reached)


def _constant_priors(model: TfliteModel) -> tuple[tuple[float, ...], ...] | None:
    """The numbers of the only constant output, where it holds four per box."""
    if len(model.constant_outputs) != 1:
        return None
    tensor = model.tensors[model.constant_outputs[0]]
    numbers = constant_numbers(tensor)
    if numbers is None or tensor.shape[-1:] != (4,) or not np.isfinite(numbers).all():
        return None
    return tuple(map(tuple, numbers.reshape(-1, 4).tolist()))


ACTIVATIONS = frozenset({"LOGISTIC", "SOFTMAX"})
KEEPS_NUMBERS = frozenset({  # they move or requantise numbers, and leave them what they are
    *("QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "PACK", "SPLIT"),
    *("SLICE", "STRIDED_SLICE", "PAD"),
})  # fmt: skip


def _activations(model: TfliteModel) -> dict[int, dict[str, int]]:
    """By tensor: the activations through which its numbers went last, each with the first operator that is one."""
    activations: dict[int, dict[str, int]] = defaultdict(dict)
    for op in model.operators:
        last = {op.op: op.index} if op.op in ACTIVATIONS else {}
        for index in op.inputs if op.op in KEEPS_NUMBERS else ():
            for name, first in activations[index].items():
                last[name] = min(first, last.get(name, first))
        activations.update(dict.fromkeys(op.outputs, last))
    return activations


def _codes(model: TfliteModel) -> dict[int, int]:
    """By tensor of real numbers that only operators that move or dequantise stand behind: the tensor of the codes."""
    codes: dict[int, int] = {}
    for op in model.operators:
        moves = op.op in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE") and op.inputs and op.inputs[0] >= 0
        for index in op.outputs if moves else ():  # an operator without operands is refused where it is translated
            if model.tensors[index].quant is None:
                codes[index] = codes.get(op.inputs[0], op.inputs[0])
    return codes


def _extremes(tensor: TfliteTensor) -> tuple[float | None, float | None]:
    """The largest and smallest number that a tensor's codes can hold."""
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.dtype not in ("int8", "uint8"):
        return None, None
    scale, zero_point = float(tensor.quant.scalar_scale), tensor.quant.scalar_zero_point
    most = 127 if tensor.dtype == "int8" else 255
    return scale * (most - zero_point), scale * (most - 255 - zero_point)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[3] in CHANNELS and min(shape) > 0


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
