"""The golden vector of a network: its head for the golden picture, and how far honest kernels may be from it.

It is taken from the graph as the importer wrote it, before any rewrite: a runtime that gives these codes on the
finished file has proven its kernels and the rewrites at once. Two bounds are measured on the same picture, by moving
decisions of rounding up and down by ``NEAR_TIE`` codes and doubling the largest change of the head:

* of operators in float32 alone (sums, products, means, softmax, sigmoid, interpolation): what runtimes with exact
  integer kernels may differ by. Networks without such operators have 0;
* of every operator: what runtimes may differ by whose integer kernels round in another way.

These are measured sensitivities, not proofs; docs/selftest.md has them beside what runtimes really do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.integer.evaluate import NotEvaluatedError, evaluate
from converters.integer.golden import NO_VECTOR, RawCodes, golden_image, make_vector
from converters.integer.values import Quantized, Rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.base import ImportedNetwork
    from converters.spec import DetectorSpec, GoldenVector

NEAR_TIE = 2.0**-6


def attempt_golden_vector(
    graph: ir.Graph, network: ImportedNetwork, spec: DetectorSpec
) -> tuple[GoldenVector | None, tuple[str, ...]]:
    """The golden vector of an imported network and notes; None for float networks and where a note says why."""
    if network.activations == "float32":
        return None, ()
    try:
        return golden_vector(graph, [str(output.name) for output in network.outputs], spec), ()
    except NotEvaluatedError as error:
        return None, (f"{NO_VECTOR}{error}",)


def golden_vector(graph: ir.Graph, head: Sequence[str], spec: DetectorSpec) -> GoldenVector:
    """The golden vector of a network from the input ``image`` to the raw outputs ``head``, float32 ``(N, ...)``.

    Raises:
        NotEvaluatedError: an operator has no kernel, or an output is not quantised.
    """
    picture = golden_image(spec.image.height, spec.image.width, channels=spec.image.channels)
    outputs, inexact = _head(graph, head, picture, Rounding())
    return make_vector(
        [_raw_codes(output) for output in outputs],
        room_bytes=sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value),
        bound_lsb=_largest_change(graph, head, picture, outputs, exact=False) if inexact else 0,
        other_kernels_lsb=_largest_change(graph, head, picture, outputs, exact=True),
    )


def _raw_codes(output: Quantized) -> RawCodes:
    shift = 128 if output.codes.dtype == np.int8 else 0
    codes = (output.codes[0].astype(np.int16) + shift).astype(np.uint8)
    return RawCodes(codes, np.float32(output.scale), int(output.zero_point) + shift)


def _largest_change(
    graph: ir.Graph, head: Sequence[str], picture: NDArray[np.uint8], outputs: Sequence[Quantized], *, exact: bool
) -> int:
    """Twice the largest change of a head's code when near-ties fall the other way, at least 1."""
    worst = 0
    for shift in (NEAR_TIE, -NEAR_TIE):
        moved, _ = _head(graph, head, picture, Rounding(shift if exact else 0.0, shift))
        for one, other in zip(moved, outputs, strict=True):
            worst = max(worst, int(np.abs(one.codes.astype(np.int16) - other.codes).max()))
    return max(1, 2 * worst)


def _head(
    graph: ir.Graph, head: Sequence[str], picture: NDArray[np.uint8], rounding: Rounding
) -> tuple[list[Quantized], tuple[str, ...]]:
    """The codes of the raw outputs, and the values that were rounded from float32 arithmetic."""
    evaluation = evaluate(graph, {str(graph.inputs[0].name): picture}, head, rounding=rounding)
    outputs = []
    for name in head:
        output = evaluation.values[name]
        if not isinstance(output, Quantized) or output.scale.size != 1 or output.codes.dtype.itemsize != 1:
            raise NotEvaluatedError(f"the head {name!r} is not quantised to 8 bits")
        outputs.append(output)
    return outputs, evaluation.inexact
