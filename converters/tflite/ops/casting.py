"""CAST of 8-bit codes to float: the number that is stored, not the real value it stands for. Bit exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import UnsupportedModelError
from converters.qdq import dequantize_node
from converters.quant import QuantParams
from converters.tflite.context import ImportContext, describe

if TYPE_CHECKING:
    from converters.tflite.records import TfliteOperator


def cast(context: ImportContext, op: TfliteOperator) -> None:
    """CAST from int8 or uint8 to float32, as a DequantizeLinear with scale 1; integers are folded elsewhere."""
    source, target = op.inputs[0], op.outputs[0]
    if not context.is_quantized(source) or context.tensor(target).dtype != "float32":
        msg = (
            f"{context.model.file}: {describe(context, op)} turns {context.tensor(source).dtype} into "
            f"{context.tensor(target).dtype} at run time; only 8-bit codes to float32 are supported"
        )
        raise UnsupportedModelError(msg)
    params = QuantParams.per_tensor(1.0, context.shift(source))
    context.define(
        target,
        dequantize_node(
            context.writer, context.codes_of(source), params, context.code_dtype, context.names[target]
        ),
    )
