"""TFLite -> onnx_ir: checks that everything can be translated, then translates operator by operator.

The result is canonical QDQ (docs/contract.md): the source's exact integers, one QuantizeLinear behind every
operator, NCHW inside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import SourceFileError, UnsupportedModelError
from converters.tflite.context import ImportContext, describe
from converters.tflite.handlers import HANDLERS
from converters.tflite.image_input import define_image_input
from converters.tflite.ops.shape_arithmetic import fold
from converters.tflite.quantization import summarise_quantization
from converters.tflite.shapes import require_source_shapes
from converters.tflite.signatures import require_signatures

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.spec import ImageInput, TensorTwin
    from converters.tflite.records import TfliteModel, TfliteOperator

# Operators that may touch float tensors: the borders of the quantised network, and what only moves values.
FLOAT_BORDER = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
MOVERS = frozenset({"GATHER", "PACK", "PAD", "RESHAPE", "SPLIT", "STRIDED_SLICE", "TILE", "TRANSPOSE"})
CODE_DTYPES = frozenset({"int8", "uint8"})
INDEX_DTYPES = frozenset({"int32", "int64", "bool"})


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network in the writer's graph, from pixels to the raw head.

    Attributes:
        head_nhwc: float32 ``(N, GH, GW, C)``.
        twins: source tensor name -> its ONNX twin.
        quantization: summary for people, such as ``"int8 per-channel"``.
        notes: deviations worth telling.
    """

    head_nhwc: ir.Value
    twins: dict[str, TensorTwin]
    quantization: str
    notes: tuple[str, ...]


def import_tflite(
    model: TfliteModel, writer: GraphWriter, image: ImageInput, options: ConvertOptions
) -> ImportedNetwork:
    """Translate a TFLite detector network into ``writer``'s graph.

    Raises:
        UnsupportedModelError: operators or tensor types without a translation, all of them listed with counts.
    """
    require_supported(model)
    batch = "N" if options.batch == "dynamic" else options.batch
    context = ImportContext(model, writer, options.activations, options.leaky_relu, batch)
    define_image_input(context, image, batch)
    translate(context)
    require_source_shapes(context)
    output = model.outputs[0]
    real = context.float_of(output)
    head = context.to_source_layout(real, len(context.tensor(output).shape), "head")
    return ImportedNetwork(head, context.twins, summarise_quantization(model), tuple(context.notes))


def translate(context: ImportContext) -> None:
    """Translate every operator; the carriers of the model's inputs are defined already."""
    context.constants.update({t.index: t.data for t in context.model.tensors if t.data is not None})
    for op in context.model.operators:
        if not fold(context, op):
            _translate_operator(context, op)


def _translate_operator(context: ImportContext, op: TfliteOperator) -> None:
    """Run the operator's handler; scales whose products leave float32 are the file's fault, and told as such."""
    try:
        HANDLERS[op.op](context, op)
    except (ValueError, OverflowError) as error:
        msg = f"{context.model.file}: {describe(context, op)} has numbers that cannot be translated: {error}"
        raise SourceFileError(msg) from error


def require_supported(model: TfliteModel) -> None:
    """Refuse a model with anything untranslatable, naming all of it at once.

    Raises:
        UnsupportedModelError: see above.
    """
    operators = Counter(op.op for op in model.operators if op.op not in HANDLERS)
    types = Counter(
        f"{op.op} on {dtype}"
        for op in model.operators
        if op.op in HANDLERS
        for dtype in sorted(_foreign_dtypes(model, op))
    )
    problems = []
    if operators:
        problems.append("operators " + ", ".join(f"{name} x{n}" for name, n in sorted(operators.items())))
    if types:
        problems.append("tensor types " + ", ".join(f"{name} x{n}" for name, n in sorted(types.items())))
    if problems:
        advice = ""
        if any(name.endswith("on float32") for name in types):
            advice = "; this looks like a float model: quantise it to int8 first, or convert its Keras file"
        msg = f"{model.file}: no translation for {'; '.join(problems)}; xdet reads int8 and uint8 detectors{advice}"
        raise UnsupportedModelError(msg)
    require_signatures(model)


def _foreign_dtypes(model: TfliteModel, op: TfliteOperator) -> set[str]:
    """Tensor types of ``op`` that its handler does not take."""
    allowed = CODE_DTYPES | INDEX_DTYPES | ({"float32"} if op.op in FLOAT_BORDER | MOVERS else set())
    indices = [i for i in (*op.inputs, *op.outputs) if i >= 0]
    return {model.tensors[i].dtype for i in indices} - allowed
