"""Whether weights, bias and channels of an operator fit each other.

LiteRT trusts them: a bias of one element in front of a thousand channels is read beyond its end. So the file is asked
here, before any kernel or handler sees it. Rules: tensorflow/lite/kernels/{conv,depthwise_conv,fully_connected}.cc.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from converters.tflite.records import TfliteModel, TfliteOperator

Shape = tuple[int, ...]
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def misfits(model: TfliteModel, op: TfliteOperator) -> Iterator[str]:
    """One clause per pair of operands that does not fit; for operators whose signature holds."""
    if op.op not in FITS:
        return
    shapes = [model.tensors[index].shape for index in op.inputs if index >= 0]
    fits, channels = FITS[op.op](shapes[0], shapes[1])
    if not fits:
        yield f"has weights {list(shapes[1])} for an input {list(shapes[0])}: the channels do not fit"
    bias = model.tensors[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if bias is not None and math.prod(bias.shape) != channels:
        yield f"has a bias of shape {list(bias.shape)}, expected [{channels}], one per output channel"


def _convolution(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(out, h, w, in)``; grouped where the input has a multiple of ``in`` channels."""
    groups, rest = divmod(image[3], weights[3])
    return rest == 0 and weights[0] % groups == 0, weights[0]


def _depthwise(image: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(1, h, w, in * multiplier)``."""
    return weights[0] == 1 and weights[3] % image[3] == 0, weights[3]


def _product(source: Shape, weights: Shape) -> tuple[bool, int]:
    """Weights ``(units, length)``; the input is read as rows of ``length``."""
    return math.prod(source) % weights[1] == 0, weights[0]


FITS: Mapping[str, Callable[[Shape, Shape], tuple[bool, int]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _product,
}
"""Operator -> function of input and weight shapes: whether they fit, and the number of output channels."""
