"""Inner values of an ONNX model as additional outputs, without decoding the model.

Before -> after: the file's bytes -> the same bytes with a few more behind them. Protobuf merges a message field that
comes twice, so a second, tiny ``ModelProto`` of nothing but graph outputs adds these outputs to the first one's graph;
the weights are neither parsed nor copied again. Numeric effect: none on the graph as it stands in the file; a back end
may fuse less around a value that it has to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.runtimes.onnx_wire import GRAPH, OUTPUT, VALUE_NAME, field

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUE_TYPE = 2  # of ValueInfoProto
TENSOR_TYPE = 1  # of TypeProto
ELEMENT_TYPE = 1  # of TypeProto.Tensor
FLOAT = 1  # TensorProto.DataType
UNTOLD = 0


def with_outputs(model: bytes, outputs: Sequence[tuple[str, int]]) -> bytes:
    """The model with these values as outputs behind its own.

    Args:
        model: an ONNX file's bytes.
        outputs: names of values that the graph computes and that are no outputs yet, each with its element type as
            ``TensorProto.DataType`` numbers it (``FLOAT``); ``UNTOLD`` leaves it to the back end's inference, which ONNX
            Runtime does and the ONNX checker refuses.
    """
    values = b"".join(field(OUTPUT, _value_info(name, element)) for name, element in outputs)
    return model + field(GRAPH, values) if values else model


def _value_info(name: str, element: int) -> bytes:
    told = field(VALUE_NAME, name.encode("utf-8"))
    if element == UNTOLD:
        return told
    return told + field(VALUE_TYPE, field(TENSOR_TYPE, field(ELEMENT_TYPE, element)))
