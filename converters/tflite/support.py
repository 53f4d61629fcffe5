"""What the importer translates of a sound model: one question before any work, answered with everything that is in the way."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError
from converters.tflite.handlers import HANDLERS
from converters.tflite.operands import WEIGHTED
from converters.tflite.ops.clamp import BOUNDS
from converters.tflite.signatures import malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.tflite.records import TfliteModel, TfliteOperator

# Operators that may touch float tensors: the borders of the quantised network, and what only moves values.
FLOAT_BORDER = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
MOVERS = frozenset({"GATHER", "PACK", "PAD", "RESHAPE", "SPLIT", "STRIDED_SLICE", "TILE", "TRANSPOSE"})
CODE_DTYPES = frozenset({"int8", "uint8"})
INDEX_DTYPES = frozenset({"int32", "int64", "bool"})
SCALE_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def require_supported(model: TfliteModel) -> None:
    """Refuse a model with anything malformed or untranslatable, naming all of it at once.

    Raises:
        SourceFileError: some of it is malformed.
        UnsupportedModelError: all of it is sound, some of it has no translation.
    """
    broken, foreign = malformed(model), _untranslatable(model)
    if broken:
        also = [f"and there is no translation for {'; '.join(foreign)}"] if foreign else []
        listed = "; ".join([*broken, *also])
        raise SourceFileError(f"{model.file}: operators are malformed: {listed}; export the model again")
    if foreign:
        advice = ""
        if any(" on float32 x" in problem for problem in foreign):
            advice = "; this looks like a float model: quantise it to int8 first, or convert its Keras file"
        msg = f"{model.file}: no translation for {'; '.join(foreign)}; xdet reads int8 and uint8 detectors{advice}"
        raise UnsupportedModelError(msg)


def _untranslatable(model: TfliteModel) -> list[str]:
    """Kinds of operators and tensor types with counts, then single operators."""
    operators = Counter(op.op for op in model.operators if op.op not in HANDLERS)
    known = [op for op in model.operators if op.op in HANDLERS]
    types = Counter(f"{op.op} on {dtype}" for op in known for dtype in sorted(_foreign_dtypes(model, op)))
    problems = []
    if operators:
        problems.append("operators " + ", ".join(f"{name} x{n}" for name, n in sorted(operators.items())))
    if types:
        problems.append("tensor types " + ", ".join(f"{name} x{n}" for name, n in sorted(types.items())))
    for op in known:
        if not _foreign_dtypes(model, op):
            reasons = (*_refused_options(op), *_refused_weights(model, op), *_refused_scales(model, op))
            problems.extend(f"operator {op.index} {op.op}, which {reason}" for reason in reasons)
    return problems


def _foreign_dtypes(model: TfliteModel, op: TfliteOperator) -> set[str]:
    """Tensor types of ``op`` that its handler does not take."""
    allowed = CODE_DTYPES | INDEX_DTYPES | ({"float32"} if op.op in FLOAT_BORDER | MOVERS else set())
    indices = [i for i in (*op.inputs, *op.outputs) if i >= 0]
    return {model.tensors[i].dtype for i in indices} - allowed


def _refused_options(op: TfliteOperator) -> Iterator[str]:
    activation = str(op.options.get("fused_activation", "NONE"))
    if activation not in BOUNDS:
        yield f"has fused activation {activation}; known are {', '.join(BOUNDS)}"
    if op.options.get("batch_dims", 0) != 0:
        yield f"has batch_dims {op.options['batch_dims']}, only 0 is supported"
    if op.options.get("weights_format", "DEFAULT") != "DEFAULT":
        yield "has shuffled weights; export the model without them"


def _refused_weights(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """Weights and bias must be constants of the right types; weights need scales along their output channels."""
    if op.op not in WEIGHTED or len(op.inputs) < 2:
        return
    operands = [(position, model.tensors[index]) for position, index in enumerate(op.inputs) if index >= 0]
    for position, tensor in operands[1:]:
        if tensor.data is None:
            yield f"needs a constant as operand {position}, but tensor {tensor.name!r} is computed at run time"
        elif position == 2 and tensor.dtype != "int32":
            yield f"has a bias of {tensor.dtype}, expected int32"
        elif position == 1 and (tensor.dtype not in CODE_DTYPES or tensor.quant is None):
            yield f"has weights {tensor.name!r} of {tensor.dtype} without a scale"
        elif (
            position == 1 and tensor.quant is not None and tensor.quant.axis not in (None, SCALE_AXIS[op.op])
        ):
            yield f"has weight scales along axis {tensor.quant.axis}, expected {SCALE_AXIS[op.op]}, the output channels"


def _refused_scales(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """Activations need one scale, except where codes are taken as numbers, or not at all."""
    ignored = {"SHAPE": (0,), "CAST": (0,)}.get(op.op, (1,) if op.op in WEIGHTED else ())
    indices = [index for position, index in enumerate(op.inputs) if position not in ignored]
    for index in dict.fromkeys((*indices, *op.outputs)):
        tensor = model.tensors[index]
        scales = 0 if tensor.quant is None else tensor.quant.scale.size
        if index >= 0 and tensor.dtype in CODE_DTYPES and scales != 1:
            yield f"has tensor {tensor.name!r} of {tensor.dtype} with {scales} scales, expected 1 per activation"
