"""The dialects: which numbers a finished network computes on, how to ask for them, and which runtimes want them.

There is no option per runtime (``--target npu``): vendors change what they take with every release, numbers stay what
they are. ``docs/runtimes.md`` shows this table, ``xdet inspect`` the row of a file, and a test holds both together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.spec.document import ModelDocument


@dataclass(frozen=True, slots=True)
class Dialect:
    """One row: name, options of ``xdet convert``, what the network computes on, and runtimes that say so.

    A finished model is in the first of all rows that ``applies``.
    """

    name: str
    options: str
    numbers: str
    wanted_by: str
    applies: Callable[[ModelDocument], bool]


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "float16",
        "--float16",
        "float16 from the rescaled pixels to the last product, float32 in front and behind",
        "GPUs, NPUs and browsers that compute on float16",
        lambda document: document.float16,
    ),
    Dialect(
        "dequantised",
        "--dequantize",
        "float32: the source's weights as scale x (code - zero-point), activations that nothing rounds",
        "CoreML, MNN, TensorRT without int8, GPUs: runtimes without Q/DQ, or without zero-points",
        lambda document: document.dequantize,
    ),
    Dialect(
        "float",
        "",
        "float32, as the source's (of a float source)",
        "compilers of float networks",
        lambda document: document.activations == "float32",
    ),
    Dialect(
        "symmetric",
        "--quantize per-channel --symmetric",
        "int8 with every zero-point 0, biases in float32; of a float Keras or ONNX source",
        "TensorRT with int8, NPUs that multiply without zero-points",
        lambda document: document.symmetric,
    ),
    Dialect(
        "cpu",
        "--target cpu",
        "int8 codes, with the same bits as portable",
        "ONNX Runtime 1.24 and newer on its CPU kernels",
        lambda document: document.target == "cpu",
    ),
    Dialect(
        "int8",
        "--activations int8",
        "int8 codes, with the same bits as portable",
        "the XNNPACK and MIGraphX providers",
        lambda document: document.activations == "int8",
    ),
    Dialect(
        "portable",
        "",
        "uint8 codes and int8 weights, as the source's integers (of a quantised source)",
        "ONNX Runtime, OpenVINO, TVM, and compilers that take Q/DQ with zero-points",
        lambda _: True,
    ),
)


def dialect_of(document: ModelDocument) -> Dialect:
    """The row of a finished model."""
    return next(row for row in DIALECTS if row.applies(document))
