"""What a TFLite file itself tells about its detector: picture size, outputs, input encoding.

How a TFLite network is quantised, in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import SourceFileError
from converters.facts import CHANNELS, IMAGE_SHAPE, SourceFacts, SourceOutput
from converters.quant import dequantize
from converters.sources.tflite.operators import WEIGHTED
from converters.sources.tflite.postprocess import read_postprocess

if TYPE_CHECKING:
    from converters.sources.tflite.reader import TfliteModel, TfliteTensor


def facts_from_tflite(model: TfliteModel) -> SourceFacts:
    """Read the facts of a TFLite detector: one image in, any number of outputs of any rank.

    Raises:
        SourceFileError: its inputs are not one picture, or an output has no batch of one image.
    """
    inputs = [(tensor.name, tuple(tensor.shape)) for tensor in _tensors(model, model.inputs)]
    outputs = [(tensor.name, tuple(tensor.shape)) for tensor in _tensors(model, model.outputs)]
    if len(inputs) != 1 or not _is_image(inputs[0][1]):
        raise _not_of_this_family(model, "input", inputs, IMAGE_SHAPE)
    if not outputs or any(not shape or shape[0] != 1 or min(shape) < 1 for _, shape in outputs):
        raise _not_of_this_family(model, "output", outputs, "numbers of one image, [1, ...]")
    image = _tensors(model, model.inputs)[0]
    activations, codes, pictured = _activations(model), _codes(model), _from_picture(model)
    return SourceFacts(
        file=str(model.file),
        height=image.shape[1],
        width=image.shape[2],
        outputs=tuple(
            SourceOutput(
                name,
                shape[1:],
                tuple(sorted(activations.get(index, {}), key=lambda name: activations[index][name])),
                *_extremes(model.tensors[codes.get(index, index)]),
                from_picture=index in pictured,
            )
            for index, (name, shape) in zip(model.outputs, outputs, strict=True)
        ),
        input_dtype=str(image.dtype),
        input_quant=image.quant,
        channels=image.shape[3],
        postprocess=read_postprocess(model),
        metadata=model.metadata,
        priors=_constant_priors(model),
    )


def _from_picture(model: TfliteModel) -> frozenset[int]:
    """Tensors that a convolution or another product reaches."""
    found: set[int] = set()
    for op in model.operators:
        if op.op in WEIGHTED or not found.isdisjoint(op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def _constant_priors(model: TfliteModel) -> tuple[tuple[float, ...], ...] | None:
    """The numbers of the only constant output, where it holds four per box."""
    if len(model.constant_outputs) != 1:
        return None
    tensor = model.tensors[model.constant_outputs[0]]
    if tensor.data is None or tensor.dtype not in ("float32", "int8", "uint8") or tensor.shape[-1:] != (4,):
        return None
    numbers = np.asarray(tensor.data)
    if tensor.dtype != "float32":
        if tensor.quant is None or tensor.quant.scale.size != 1:
            return None
        numbers = dequantize(tensor.data, tensor.quant.scalar_scale, tensor.quant.scalar_zero_point)
    return tuple(map(tuple, numbers.reshape(-1, 4).tolist())) if np.isfinite(numbers).all() else None


ACTIVATIONS = frozenset({"LOGISTIC", "SOFTMAX"})
SEEN_THROUGH = frozenset(  # they move or requantise numbers, and leave them what they are
    {
        "QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "PACK", "SPLIT",
        "SLICE", "STRIDED_SLICE", "PAD",
    }
)  # fmt: skip


def _activations(model: TfliteModel) -> dict[int, dict[str, int]]:
    """By tensor: the activations through which its numbers went last, each with the first operator that is one."""
    found: dict[int, dict[str, int]] = {}
    for op in model.operators:
        told = {op.op: op.index} if op.op in ACTIVATIONS else {}
        for index in op.inputs if op.op in SEEN_THROUGH else ():
            for name, first in found.get(index, {}).items():
                told[name] = min(first, told.get(name, first))
        found.update(dict.fromkeys(op.outputs, told))
    return found


def _codes(model: TfliteModel) -> dict[int, int]:
    """By tensor of real numbers that only operators that move or dequantise stand behind: the tensor of the codes."""
    found: dict[int, int] = {}
    for op in model.operators:
        moves = op.op in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE") and op.inputs and op.inputs[0] >= 0
        for index in op.outputs if moves else ():  # an operator without operands is refused where it is translated
            if model.tensors[index].quant is None:
                found[index] = found.get(op.inputs[0], op.inputs[0])
    return found


def _extremes(tensor: TfliteTensor) -> tuple[float | None, float | None]:
    """The largest and smallest number that a tensor's codes can hold."""
    if tensor.quant is None or tensor.quant.scale.size != 1 or tensor.dtype not in ("int8", "uint8"):
        return None, None
    scale, zero_point = float(tensor.quant.scalar_scale), tensor.quant.scalar_zero_point
    most = 127 if tensor.dtype == "int8" else 255
    return scale * (most - zero_point), scale * (most - 255 - zero_point)


def _tensors(model: TfliteModel, indices: tuple[int, ...]) -> list[TfliteTensor]:
    return [model.tensors[index] for index in indices]


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[3] in CHANNELS and min(shape) > 0


def _not_of_this_family(
    model: TfliteModel, side: str, found: list[tuple[str, tuple[int, ...]]], expected: str
) -> SourceFileError:
    listed = ", ".join(f"'{name}' {list(shape)}" for name, shape in found) or "none"
    return SourceFileError(f"'{model.file}' is not a detector: {side} expected {expected}, found {listed}")


def summarise_quantization(model: TfliteModel) -> str:
    """The weights' dtypes and granularity: ``"int8 per-channel"``, ``"uint8 per-tensor"``, ``"float32"``."""
    weights = [model.tensors[op.inputs[1]] for op in model.operators if op.op in WEIGHTED and len(op.inputs) > 1]
    dtypes = "/".join(sorted({w.dtype for w in weights})) or "none"
    if all(w.quant is None for w in weights):
        return dtypes
    per_channel = any(w.quant is not None and w.quant.scale.size > 1 for w in weights)
    return f"{dtypes} {'per-channel' if per_channel else 'per-tensor'}"
