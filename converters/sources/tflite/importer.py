"""TFLite -> onnx_ir: checks that everything can be translated, then translates operator by operator.

The result is canonical QDQ (docs/contract.md): the source's exact integers, one QuantizeLinear behind every operator,
NCHW inside. ONNX's own shape inference proves against the source's tensors that every shape was kept.

Converters leave shape arithmetic such as SHAPE -> STRIDED_SLICE -> PACK in front of a RESHAPE. Shapes are static here,
so every such integer has a value at conversion; ``fold`` puts it into ``context.constants``, and nothing is written.
Where a result takes memory of its own, its shape is worked out first, from shapes alone, and compared with what the
file declares; only then, and only if it is as small as shape arithmetic is, is the value computed: a file cannot ask
for more memory than its declared tensors.

A quantised input tensor *is* the pixels: TFLite detectors of this family take raw RGB bytes as codes (int8 inputs:
byte - 128). A float input tensor is the rescaled pixel; where the QUANTIZE behind it only undoes the rescaling, the
pixels are its codes.

The float network of a quantised file: the same operators on the real numbers that its codes stand for. Before -> after:
8-bit weights, and their 32-bit biases -> float32 ``scale * (code - zero_point)``; 8-bit activations -> float32;
QUANTIZE -> nothing. Fused activations stand in the operators and stay. Numeric effect: no activation is rounded or
saturated any more. Given the source's own integers in front of an operator, its result is within one step of the
source's code (half a step for the rounding that is left out, half a step for LiteRT's multipliers), as long as that
code is not saturated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters._ir import ir
from converters.errors import ContractError, OptionError, SourceFileError, UnsupportedModelError, list_some
from converters.graph import (
    IR_VERSION,
    NHWC_TO_NCHW,
    bias_params,
    image_pixels,
    infer_shapes,
    pixel_codes,
    pixels_are_codes,
    rescaled_pixels,
)
from converters.heads.base import match_outputs
from converters.quant import real_numbers
from converters.sources import ImportedNetwork, as_raw_output
from converters.sources.tflite.context import CODE_DTYPES, ImportContext
from converters.sources.tflite.facts import summarise_quantization
from converters.sources.tflite.operators import OPERATORS, WEIGHTED
from converters.sources.tflite.ops.moving import strided_index
from converters.sources.tflite.supported import is_dynamic_range, is_float, is_same_scale, require_supported
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.sources.tflite.reader import TfliteModel
    from converters.sources.tflite.tensors import TfliteTensor
    from converters.spec import DetectorSpec, ImageInput

DYNAMIC_RANGE = (
    "the source keeps 8-bit weights and float32 activations, which LiteRT rounds to 8 bits at run time, image by "
    "image; the graph computes with the same weights on the float32 numbers themselves"
)


def import_tflite(
    model: TfliteModel, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Translate a TFLite detector network into ``writer``'s graph.

    Raises:
        UnsupportedModelError: operators or tensor types without a translation, all of them listed with counts.
    """
    require_supported(model)
    quantization, rescaling = summarise_quantization(model), None
    if options.dequantize:
        model, rescaling = dequantized(model), pixel_rescaling(model)
    floats = is_float(model)
    if floats and options.activations != "uint8":
        raise OptionError(
            f"{model.file}: --activations {options.activations} is about integer codes, and this network computes on "
            "float32 numbers; leave it out"
        )
    context = ImportContext(
        model, writer, options.activations, options.rounding, options.batch_size, options.arithmetic
    )
    _define_image(context, spec.image, rescaling)
    translate(context)
    require_source_shapes(context)
    return ImportedNetwork(
        outputs=_raw_outputs(context, spec),
        twins=context.twins,
        quantization=f"float32 of {quantization}" if options.dequantize else quantization,
        activations="float32" if floats else options.activations,
        notes=(*context.notes, *((DYNAMIC_RANGE,) if is_dynamic_range(model) else ())),
        deviations=tuple(context.deviations),
        leaky_relu="float" if floats else None,
    )


def _define_image(context: ImportContext, image: ImageInput, rescaling: Rescaling | None) -> None:
    """Declare ``image`` (uint8 NHWC) and register what carries the source's input tensor.

    ``rescaling`` is that of a float input whose numbers are those of codes, instead of the picture's.
    """
    pixels = image_pixels(context.writer, image, context.batch, as_float=rescaling is not None)
    index = context.model.inputs[0]
    if context.is_quantized(index):
        _define_pixels(context, index, pixels)
        return
    behind = [op.outputs[0] for op in context.model.operators if op.op == "QUANTIZE" and op.inputs[0] == index]
    for target in behind:
        if pixels_are_codes(image.rescaling, context.params(target), context.code_dtype):
            _define_pixels(context, target, pixels)
    context.define(index, rescaled_pixels(context.writer, pixels, rescaling or image.rescaling))


def _define_pixels(context: ImportContext, index: int, pixels: ir.Value) -> None:
    """Register the pixels as the uint8 codes of a tensor, in the dialect."""
    name = context.names[index]
    context.define(index, pixel_codes(context.writer, pixels, context.params(index), context.code_dtype, name))


def translate(context: ImportContext) -> None:
    """Translate every operator; the carriers of the model's inputs are defined already.

    Raises:
        SourceFileError: scales whose products leave float32, among others.
    """
    context.constants.update({t.index: t.data for t in context.model.tensors if t.data is not None})
    for op in context.model.operators:
        context.op = op
        if fold(context):
            continue
        try:
            OPERATORS[op.op].handler(context)
        except (ValueError, OverflowError) as error:
            raise SourceFileError(f"{context.where} has numbers that cannot be translated: {error}") from error


Array = NDArray[Any]
Shape = tuple[int, ...]
MOST_ELEMENTS = 1024  # shapes, axes and slices have a handful


@dataclass(frozen=True, slots=True)
class Folding:
    """How one operator is folded: its results, and, where these are no views of operands, the shape of its result."""

    values: Callable[[ImportContext, list[Array]], Sequence[Array]]
    shape: Callable[[ImportContext, list[Array]], Shape] | None = None


def fold(context: ImportContext) -> bool:
    """Compute the operator's value if it is shape arithmetic over known integers; return whether it was."""
    op = context.op
    operands = () if op.op == "SHAPE" else [index for index in op.inputs if index >= 0]
    folding = FOLDS.get(op.op)
    if folding is None or any(index not in context.constants for index in operands):
        return False
    if any(context.is_quantized(index) for index in (*operands, *op.outputs)):
        return False
    arrays = [context.constants[index] for index in operands]
    try:
        if folding.shape is not None:
            _require_declared(context, [folding.shape(context, arrays)])
        with np.errstate(over="ignore"):  # integers wrap around, as TFLite's do
            results = folding.values(context, arrays)
    except (ValueError, IndexError, TypeError, OverflowError) as error:  # numpy refuses operands that do not fit
        raise SourceFileError(f"{context.where} cannot be computed from its constants: {error}") from error
    _require_declared(context, [np.shape(result) for result in results])
    for index, result in zip(op.outputs, results, strict=True):
        context.constants[index] = np.asarray(result).astype(context.tensor(index).dtype)
    return True


def _require_declared(context: ImportContext, shapes: Sequence[Shape]) -> None:
    """Raise unless every result has the declared shape and is small."""
    for index, shape in zip(context.op.outputs, shapes, strict=True):
        declared = context.shape(index)
        if tuple(shape) != declared:
            raise SourceFileError(f"{context.where} gives shape {list(shape)}, the file says {list(declared)}")
        if math.prod(shape) > MOST_ELEMENTS:
            raise UnsupportedModelError(
                f"{context.where} computes {math.prod(shape)} integers from constants, expected at most "
                f"{MOST_ELEMENTS}; export the model with constants folded"
            )


def _axis(context: ImportContext, rank: int) -> int:
    """The operator's axis, counted from the front of ``rank`` axes."""
    axis = context.int_option("axis")
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank} axes")
    return axis % rank


def _broadcast(_: ImportContext, arrays: list[Array]) -> Shape:
    return np.broadcast_shapes(*(array.shape for array in arrays))


def _concatenated(context: ImportContext, arrays: list[Array]) -> Shape:
    first = arrays[0].shape
    axis = _axis(context, len(first))
    return (*first[:axis], sum(array.shape[axis] for array in arrays), *first[axis + 1 :])


def _packed(context: ImportContext, arrays: list[Array]) -> Shape:
    first = arrays[0].shape
    axis = _axis(context, len(first) + 1)
    return (*first[:axis], len(arrays), *first[axis:])


def _gathered(context: ImportContext, arrays: list[Array]) -> Shape:
    table, indices = (array.shape for array in arrays)
    axis = _axis(context, len(table))
    return (*table[:axis], *indices, *table[axis + 1 :])


def _tiled(_: ImportContext, arrays: list[Array]) -> Shape:
    repeats = [int(n) for n in arrays[1].reshape(-1)]
    return tuple(size * n for size, n in zip(arrays[0].shape, repeats, strict=True))


def _split(context: ImportContext, arrays: list[Array]) -> list[Array]:
    axis, whole, parts = int(arrays[0].reshape(-1)[0]), arrays[1].shape, len(context.op.outputs)
    if not -len(whole) <= axis < len(whole) or whole[axis] % parts:
        raise ValueError(f"{list(whole)} has no {parts} equal parts along axis {axis}")
    return np.split(arrays[1], parts, axis)


def _transposed(_: ImportContext, arrays: list[Array]) -> list[Array]:
    permutation, rank = arrays[1].reshape(-1).tolist(), arrays[0].ndim
    if sorted(permutation) != list(range(rank)):
        raise ValueError(f"permutation {permutation} of {rank} axes")
    return [arrays[0].transpose(permutation)]


FOLDS: Mapping[str, Folding] = {
    "ADD": Folding(lambda _, arrays: [arrays[0] + arrays[1]], _broadcast),
    "CAST": Folding(lambda _, arrays: [arrays[0]]),
    "CONCATENATION": Folding(lambda c, arrays: [np.concatenate(arrays, c.int_option("axis"))], _concatenated),
    "GATHER": Folding(lambda c, arrays: [np.take(arrays[0], arrays[1], c.int_option("axis"))], _gathered),
    "MUL": Folding(lambda _, arrays: [arrays[0] * arrays[1]], _broadcast),
    "PACK": Folding(lambda c, arrays: [np.stack(arrays, c.int_option("axis"))], _packed),
    "RESHAPE": Folding(lambda c, arrays: [arrays[0].reshape(c.shape(c.target))]),
    "SHAPE": Folding(lambda c, _: [np.array(c.shape(c.source))]),
    "SPLIT": Folding(_split),
    "STRIDED_SLICE": Folding(lambda c, arrays: [arrays[0][strided_index(c)]]),
    "SUB": Folding(lambda _, arrays: [arrays[0] - arrays[1]], _broadcast),
    "TILE": Folding(lambda _, arrays: [np.tile(arrays[0], arrays[1].reshape(-1))], _tiled),
    "TRANSPOSE": Folding(_transposed),
}


def require_source_shapes(context: ImportContext) -> None:
    """Infer the graph's shapes and compare every value with the source tensor it carries.

    Raises:
        ContractError: the first tensor whose shape differs; its leading size counts once per image.
    """
    infer_shapes(ir.Model(context.writer.graph, ir_version=IR_VERSION))
    for index, value in context.values.items():
        shape = context.shape(index)
        expected = [shape[axis] for axis in NHWC_TO_NCHW] if len(shape) == 4 else list(shape)
        inferred = None if value.shape is None else list(value.shape)
        same = inferred is not None and len(inferred) == len(expected) and inferred[1:] == expected[1:]
        if same and inferred and isinstance(context.batch, int):
            same = inferred[0] == expected[0] * context.batch
        if index not in context.constants and not same:
            raise ContractError(
                f"{context.model.file}: tensor {context.names[index]!r} has shape {expected} in the graph's layout, "
                f"the operators in front of it give {inferred}; export the model again, or report this with the file"
            )


def _raw_outputs(context: ImportContext, spec: DetectorSpec) -> tuple[ir.Value, ...]:
    """The network's outputs under the names and in the shapes of the contract."""
    outputs, indices = spec.network_outputs, context.model.outputs
    values = []
    for output, place in zip(outputs, match_outputs([context.shape(i)[1:] for i in indices], outputs), strict=True):
        index = indices[place]
        shape = context.shape(index)
        value = context.to_source_layout(context.float_of(index), len(shape), output.value_name)
        keeps_its_name = value is context.values.get(index)  # as the carrier of a float tensor
        values.append(as_raw_output(context.writer, value, None if keeps_its_name else shape[1:], output))
    return tuple(values)


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
        if op.op not in WEIGHTED or len(op.inputs) < 3 or op.inputs[2] < 0:
            continue
        picture, weights, bias = (model.tensors[index] for index in op.inputs[:3])
        if bias.data is not None and bias.dtype == "int32" and picture.quant is not None and weights.quant is not None:
            # by the scale that it has in integer arithmetic, whatever the file says
            numbers = real_numbers(bias.data, bias_params(picture.quant, weights.quant))
            tensors[bias.index] = replace(bias, dtype="float32", quant=None, data=numbers)
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
        elif OPERATORS[op.op].moves and len(of_codes) == len(ends) and not is_same_scale(model, op):
            wrong.append(f"operator {op.index} {op.op} moves codes to another scale")
    if wrong:
        raise UnsupportedModelError(
            f"{model.file}: --dequantize has no float form for {list_some(wrong)}; convert it without"
        )


def _real(tensor: TfliteTensor) -> TfliteTensor:
    """A tensor of codes as real numbers; others as they are."""
    if tensor.dtype not in CODE_DTYPES or tensor.quant is None:
        return tensor
    data = None if tensor.data is None else real_numbers(tensor.data, tensor.quant)
    return replace(tensor, dtype="float32", quant=None, data=data)
