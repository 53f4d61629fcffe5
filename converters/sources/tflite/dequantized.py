"""The float network of a quantised TFLite file: the same operators on the real numbers that its codes stand for.

Before -> after: 8-bit weights, and their 32-bit biases -> float32 ``scale * (code - zero_point)``; 8-bit activations ->
float32; QUANTIZE -> nothing. Fused activations stand in the operators and stay. Numeric effect: no activation is
rounded or saturated any more. Given the source's own integers in front of an operator, its result is within one step of
the source's code (half a step for the rounding that is left out, half a step for LiteRT's multipliers), as long as that
code is not saturated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import OptionError, UnsupportedModelError, list_some
from converters.graph import bias_params
from converters.quant import real_numbers
from converters.sources.tflite.context import CODE_DTYPES
from converters.sources.tflite.operators import OPERATORS, WEIGHTED
from converters.sources.tflite.supported import is_float
from converters.spec import Rescaling

if TYPE_CHECKING:
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor


def dequantized(model: TfliteModel) -> TfliteModel:
    """A quantised network as a float one; the file stays as it was read.

    Raises:
        OptionError: it computes on float32 numbers already.
        UnsupportedModelError: operators take codes for something else than the real numbers behind them.
    """
    if is_float(model):
        raise OptionError(
            f"{model.file}: --dequantize is for networks of integer codes, and this one computes on float32 numbers; "
            "leave it out, the result is the same float graph"
        )
    _require_real(model)
    tensors = list(model.tensors)
    for op in model.operators:
        if op.op in WEIGHTED and len(op.inputs) > 2 and op.inputs[2] >= 0:
            tensors[op.inputs[2]] = _bias(model, op)
    return replace(
        model,
        tensors=tuple(_real(tensor) for tensor in tensors),
        operators=tuple(replace(op, op="DEQUANTIZE") if op.op == "QUANTIZE" else op for op in model.operators),
    )


def pixel_rescaling(model: TfliteModel) -> Rescaling | None:
    """What a quantised input makes of a pixel, whose bytes are its codes; None where the input is float."""
    tensor = model.tensors[model.inputs[0]]
    if tensor.dtype not in CODE_DTYPES or tensor.quant is None:
        return None
    scale, shift = float(tensor.quant.scalar_scale), 128 if tensor.dtype == "int8" else 0
    return Rescaling(scale, -scale * (tensor.quant.scalar_zero_point + shift))


def _require_real(model: TfliteModel) -> None:
    """Refuse what has no meaning on real numbers: codes as plain numbers, codes that change their scale on the way."""
    wrong = []
    for op in model.operators:
        ends = [model.tensors[i] for i in (*op.inputs[:1], *op.outputs) if i >= 0]
        of_codes = [tensor for tensor in ends if tensor.dtype in CODE_DTYPES]
        if op.op == "CAST" and of_codes:
            wrong.append(f"operator {op.index} CAST takes codes as numbers")
        elif OPERATORS[op.op].moves and len(of_codes) == len(ends) and not _same_scale(of_codes):
            wrong.append(f"operator {op.index} {op.op} moves codes to another scale")
    if wrong:
        raise UnsupportedModelError(
            f"{model.file}: --dequantize has no float form for {list_some(wrong)}; convert it without"
        )


def _same_scale(tensors: list[TfliteTensor]) -> bool:
    first = tensors[0].quant
    return all(t.quant is not None and first is not None and t.quant.same_as(first) for t in tensors)


def _bias(model: TfliteModel, op: TfliteOperator) -> TfliteTensor:
    """A bias by the scale that it has in integer arithmetic, ``x_scale * w_scale``, whatever the file says."""
    picture, weights, bias = (model.tensors[index] for index in op.inputs[:3])
    if bias.data is None or bias.dtype != "int32" or picture.quant is None or weights.quant is None:
        return bias
    params = bias_params(picture.quant, weights.quant)
    return replace(bias, dtype="float32", quant=None, data=real_numbers(bias.data, params))


def _real(tensor: TfliteTensor) -> TfliteTensor:
    """A tensor of codes as real numbers; others as they are."""
    if tensor.dtype not in CODE_DTYPES or tensor.quant is None:
        return tensor
    data = None if tensor.data is None else real_numbers(tensor.data, tensor.quant)
    return replace(tensor, dtype="float32", quant=None, data=data)
