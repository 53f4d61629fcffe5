"""A LeakyRelu between its DequantizeLinear and its QuantizeLinear, as arithmetic on codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.leaky import FloatForm, LeakyCase, Table, float_table

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.passes.qdq import Link


def leaky_of(before: Link, activation: ir.Node, after: Link) -> tuple[LeakyCase, Table]:
    """What the three nodes compute: the case on int8 codes, and its table, int64 ``(256,)``."""
    shift = 0 if before.dtype == np.int8 else -128
    form = FloatForm(before.scale, np.float32(activation.attributes.get_float("alpha", 0.01)))
    case = LeakyCase(
        before.scale, before.zero_point + shift, after.scale, after.zero_point + shift, form.slope
    )
    return case, float_table(case, form)
