"""Every graph that ``single_operator`` runs on ONNX Runtime is evaluated in numpy's integers, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.evaluate import evaluate
from converters.integer.values import Quantized, Reals, to_reals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray


def assert_integers_agree(graph: ir.Graph, feeds: Mapping[str, NDArray[Any]], results: Sequence[NDArray[Any]]) -> None:
    """ONNX Runtime's outputs are those of ``converters.integer``: bit for bit, or close behind float32 arithmetic."""
    names = [str(value.name) for value in graph.outputs]
    evaluation = evaluate(graph, feeds, names)
    for name, result in zip(names, results, strict=True):
        found = evaluation.values[name]
        difference = np.abs(to_reals(found).array.astype(np.float64) - result)
        code = float(found.scale) if isinstance(found, Quantized) and evaluation.inexact else 0.0
        if isinstance(found, Reals) and not found.exact:
            code = 1e-6 * float(np.abs(result).max(initial=1))  # the last bit is each runtime's own
        assert difference.max(initial=0) <= code * 1.001, f"{name}: {difference.max()} with a code of {code}"
