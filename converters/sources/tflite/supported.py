"""Whether a file's operators keep the frame of their rows (``operators``), and whether all of them have a translation.

Two questions before any work, each answered with everything that is wrong or in the way. Handlers need no checks of
their own then, and neither do kernels: LiteRT trusts operands, and reads a bias of one element in front of a thousand
channels beyond its end. Rules of fit: tensorflow/lite/kernels/{conv,depthwise_conv,fully_connected}.cc.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.tflite.context import CODE_DTYPES
from converters.sources.tflite.operators import OPERATORS, WEIGHTED
from converters.sources.tflite.ops.activations import BOUNDS
from converters.sources.tflite.reader import POSTPROCESS, TfliteModel, TfliteOperator, read_tflite

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPILED = {
    "CUSTOM:edgetpu-custom-op": (
        "Coral's Edge TPU",
        "give the file that edgetpu_compiler was given, which has no '_edgetpu' in its name",
    ),
    "CUSTOM:ethos-u": ("Arm's Ethos-U", "give the file that vela was given, which has no '_vela' in its name"),
}
"""Operators that hold machine code of a network -> of which processor, and what to do."""
HINTS = {
    POSTPROCESS: "it is understood at the end of a file alone, where all outputs are its own and its priors are a "
    "constant",
    **dict.fromkeys(
        ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"),
        "export the network without its suppression (YOLOv5's export.py: without --nms and --agnostic-nms; "
        "Ultralytics: nms=False; PaddleDetection: export.nms False), which xdet adds itself",
    ),
}
BORDERS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
INDEX_DTYPES = frozenset({"int32", "int64", "bool"})


def read_convertible(data: bytes, file: str) -> TfliteModel:
    """Read a TFLite file (``read_tflite``) that holds a network, not the machine code of one."""
    model = read_tflite(data, file)
    require_network(model)
    return model


def require_network(model: TfliteModel) -> None:
    """Refuse a file that was compiled for a processor: its operators are gone."""
    for op in model.operators:
        if op.op in COMPILED:
            processor, advice = COMPILED[op.op]
            raise UnsupportedModelError(
                f"{model.file}: was compiled for {processor} (operator {op.op}) and holds no network any more; {advice}"
            )


def require_sound(model: TfliteModel) -> None:
    """Check every operator that the table knows: whoever runs the file may trust its operands then.

    Raises:
        UnsupportedModelError: it was compiled for a processor.
        SourceFileError: operators without the operands, ranks or options they need, or with weights or biases that do
            not fit; all of them listed.
    """
    require_network(model)
    problems = _malformed(model)
    if problems:
        raise SourceFileError(f"{model.file}: operators are malformed: {'; '.join(problems)}; export the model again")


def _malformed(model: TfliteModel) -> list[str]:
    """Everything in which the operators that the table knows break it, one clause each."""
    return [
        f"operator {op.index} {op.op} {problem}"
        for op in model.operators
        if op.op in OPERATORS
        for problem in list(_problems(model, op)) or _misfits(model, op)
    ]


def _problems(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    signature = OPERATORS[op.op].signature
    for what, count, (low, high) in (
        ("operands", len(op.inputs), signature.inputs),
        ("results", len(op.outputs), signature.outputs),
    ):
        if not low <= count <= high:
            yield f"has {count} {what}, expected {low if low == high else f'{low} or more'}"
            return
    absent = [i for i, index in enumerate(op.inputs) if index < 0 and i not in signature.optional]
    if absent:
        yield f"lacks operand {absent[0]}"
        return
    shapes = [model.tensors[index].shape for index in (*op.inputs, *op.outputs) if index >= 0]
    if any(0 in shape for shape in shapes):
        yield f"works on an empty tensor among {[list(shape) for shape in shapes]}"
    for position, rank in signature.ranks:
        shape = model.tensors[op.inputs[position]].shape
        if len(shape) != rank:
            yield f"has operand {position} of shape {list(shape)}, expected {rank} axes"
    for name in signature.positive:
        value = op.options[name]
        if not isinstance(value, int) or value < 1:
            yield f"has {name} {value}, expected 1 or more"


def _misfits(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """One clause per pair of operands that does not fit; for operators whose signature holds."""
    weights = OPERATORS[op.op].weights
    if weights is None:
        return
    shapes = [model.tensors[index].shape for index in op.inputs if index >= 0]
    fits, channels = weights.fit(shapes[0], shapes[1])
    if not fits:
        yield f"has weights {list(shapes[1])} for an input {list(shapes[0])}: the channels do not fit"
    if len(shapes) > 2 and math.prod(shapes[2]) != channels:
        yield f"has a bias of shape {list(shapes[2])}, expected [{channels}], one per output channel"


def require_supported(model: TfliteModel) -> None:
    """Refuse a model with anything malformed or untranslatable, naming all of it at once.

    Raises:
        SourceFileError: some of it is malformed.
        UnsupportedModelError: all of it is sound, some of it has no translation.
    """
    broken, foreign = _malformed(model), _untranslatable(model)
    if broken:
        also = [f"and there is no translation for {'; '.join(foreign)}"] if foreign else []
        raise SourceFileError(
            f"{model.file}: operators are malformed: {'; '.join([*broken, *also])}; export the model again"
        )
    if foreign:
        hints = dict.fromkeys(HINTS[op.op] for op in model.operators if op.op in HINTS)
        if any(op.op.startswith("CUSTOM:Flex") for op in model.operators):
            hints["export it with TFLite's own operators alone (TFLITE_BUILTINS), not with SELECT_TF_OPS"] = None
        advice = "".join(f"; {hint}" for hint in hints)
        raise UnsupportedModelError(
            f"{model.file}: no translation for {'; '.join(foreign)}; xdet reads int8, uint8 and float32 detectors"
            f"{advice}"
        )


def _untranslatable(model: TfliteModel) -> list[str]:
    """Kinds of operators and tensor types with counts, then single operators."""
    translatable = [op for op in model.operators if op.op in OPERATORS]
    operators = Counter(op.op for op in model.operators if op.op not in OPERATORS)
    types = Counter(f"{op.op} on {dtype}" for op in translatable for dtype in _foreign_dtypes(model, op))
    problems = [
        f"{title} " + ", ".join(f"{name} x{n}" for name, n in sorted(counts.items()))
        for title, counts in (("operators", operators), ("tensor types", types))
        if counts
    ]
    floats = is_float(model)
    widened = {op.outputs[0] for op in translatable if _widens_constant(model, op) and op.outputs}
    for op in translatable:
        if not _foreign_dtypes(model, op):
            reasons = (
                *_refused_options(op),
                *_refused_floats(model, op, floats=floats),
                *_refused_weights(model, op, widened),
                *_refused_scales(model, op),
            )
            problems.extend(f"operator {op.index} {op.op}, which {reason}" for reason in reasons)
    return problems


def _foreign_dtypes(model: TfliteModel, op: TfliteOperator) -> set[str]:
    """Tensor types of ``op`` that its handler does not take."""
    allowed = CODE_DTYPES | INDEX_DTYPES | {"float32"} | ({"float16"} if _widens_constant(model, op) else set())
    indices = [i for i in (*op.inputs, *op.outputs) if i >= 0]
    return {model.tensors[i].dtype for i in indices} - allowed


def _widens_constant(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether the operator is a DEQUANTIZE of float16 weights, which is done at conversion."""
    if op.op != "DEQUANTIZE" or len(op.inputs) != 1:
        return False
    constant = model.tensors[op.inputs[0]]
    return constant.dtype == "float16" and constant.data is not None


def _refused_floats(model: TfliteModel, op: TfliteOperator, *, floats: bool) -> Iterator[str]:
    """Codes and float32 numbers meet in QUANTIZE, DEQUANTIZE and CAST alone; products of both share no model."""
    if op.op in BORDERS:
        return
    if OPERATORS[op.op].floats_only and any(model.tensors[i].dtype in CODE_DTYPES for i in op.outputs):
        yield "is translated on float32 numbers alone, as LiteRT has no kernel for it on codes, either"
    weights = OPERATORS[op.op].weights is not None
    read = [index for index in (op.inputs[:1] if weights else op.inputs) if index >= 0]
    kinds = {model.tensors[index].dtype for index in (*read, *op.outputs)} & (CODE_DTYPES | {"float32"})
    if "float32" in kinds and len(kinds) > 1:
        yield f"works on {' and '.join(sorted(kinds))} at once"
    elif weights and "float32" in kinds and not floats:
        yield "multiplies float32 numbers in a network of 8-bit codes; quantise all of it, or nothing"


def is_float(model: TfliteModel) -> bool:
    """Whether a network computes on float32 numbers alone, whatever its weights are stored as."""
    computed = (index for op in model.operators for index in op.outputs)
    return all(model.tensors[index].dtype not in CODE_DTYPES for index in (*model.inputs, *computed))


def is_dynamic_range(model: TfliteModel) -> bool:
    """Whether float32 activations meet 8-bit weights: LiteRT rounds such activations to 8 bits at run time."""
    products = [op for op in model.operators if op.op in WEIGHTED]
    return is_float(model) and any(model.tensors[op.inputs[1]].dtype in CODE_DTYPES for op in products)


def _refused_options(op: TfliteOperator) -> Iterator[str]:
    activation = str(op.options.get("fused_activation", "NONE"))
    if activation not in BOUNDS:
        yield f"has fused activation {activation}; known are {', '.join(BOUNDS)}"
    if op.options.get("batch_dims", 0) != 0:
        yield f"has batch_dims {op.options['batch_dims']}, only 0 is supported"
    if op.options.get("weights_format", "DEFAULT") != "DEFAULT":
        yield "has shuffled weights; export the model without them"


def _refused_weights(model: TfliteModel, op: TfliteOperator, widened: set[int]) -> Iterator[str]:
    """Weights and bias must be constants of the right types; weights need scales along their output channels."""
    weights = OPERATORS[op.op].weights
    if weights is None or not op.inputs:
        return
    floats = model.tensors[op.inputs[0]].dtype == "float32"
    operands = [(position, model.tensors[index]) for position, index in enumerate(op.inputs) if index >= 0]
    for position, tensor in operands[1:]:
        if floats and tensor.dtype == "float32" and (tensor.data is not None or tensor.index in widened):
            continue
        if position == 1 and op.op == "FULLY_CONNECTED" and tensor.data is None:
            continue  # attention: its scale is that of every other activation
        if tensor.data is None:
            yield f"needs a constant as operand {position}, but tensor {tensor.name!r} is computed at run time"
        elif position == 2 and (floats or tensor.dtype != "int32"):
            yield f"has a bias of {tensor.dtype}, expected {'float32' if floats else 'int32'}"
        elif position == 1 and (tensor.dtype not in CODE_DTYPES or tensor.quant is None):
            yield f"has weights {tensor.name!r} of {tensor.dtype} without a scale"
        elif position == 1 and tensor.quant is not None and tensor.quant.axis not in (None, weights.scale_axis):
            axis = tensor.quant.axis
            yield f"has weight scales along axis {axis}, expected {weights.scale_axis}, the output channels"


def _refused_scales(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """Activations need one scale, except where codes are taken as numbers, or not at all."""
    row = OPERATORS[op.op]
    ignored = (*row.codes_as_numbers, *((1,) if row.weights is not None else ()))
    indices = [index for position, index in enumerate(op.inputs) if position not in ignored]
    for index in dict.fromkeys((*indices, *op.outputs)):
        tensor = model.tensors[index]
        scales = 0 if tensor.quant is None else tensor.quant.scale.size
        if index >= 0 and tensor.dtype in CODE_DTYPES and scales != 1:
            yield f"has tensor {tensor.name!r} of {tensor.dtype} with {scales} scales, expected 1 per activation"
    if row.keeps_scale and not is_same_scale(model, op):
        yield "has an output with another scale or zero-point than its input; LiteRT refuses that, too"


def is_same_scale(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether all results have the scale and zero-point of the first operand."""
    ends = [model.tensors[index].quant for index in (*op.inputs[:1], *op.outputs)]
    return all(a is None or b is None or a.same_as(b) for a, b in pairwise(ends))
