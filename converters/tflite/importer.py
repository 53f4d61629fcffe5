"""TFLite -> onnx_ir: checks that everything can be translated, then translates operator by operator.

The result is canonical QDQ (docs/contract.md): the source's exact integers, one QuantizeLinear behind every
operator, NCHW inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import SourceFileError
from converters.network import ImportedNetwork
from converters.spec import HEAD
from converters.tflite.context import ImportContext, describe
from converters.tflite.handlers import HANDLERS
from converters.tflite.image_input import define_image_input
from converters.tflite.ops.shape_arithmetic import fold
from converters.tflite.quantization import summarise_quantization
from converters.tflite.shapes import require_source_shapes
from converters.tflite.support import require_supported

if TYPE_CHECKING:
    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec
    from converters.tflite.records import TfliteModel, TfliteOperator


def import_tflite(
    model: TfliteModel, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Translate a TFLite detector network into ``writer``'s graph.

    Raises:
        UnsupportedModelError: operators or tensor types without a translation, all of them listed with counts.
    """
    require_supported(model)
    context = ImportContext(model, writer, options.activations, options.rounding, options.batch_size)
    define_image_input(context, spec.image, options.batch_size)
    translate(context)
    require_source_shapes(context)
    output = model.outputs[0]
    real = context.float_of(output)
    return ImportedNetwork(
        head_nhwc=context.to_source_layout(real, len(context.tensor(output).shape), HEAD),
        twins=context.twins,
        quantization=summarise_quantization(model),
        activations=options.activations,
        notes=tuple(context.notes),
        deviations=tuple(context.deviations),
    )


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
