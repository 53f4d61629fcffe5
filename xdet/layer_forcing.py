"""Teacher forcing: one value of a graph computed from given values in front of it.

By exact integer arithmetic (``converters.integer``), or by a runtime, on the part of the graph that lies between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.spec import IMAGE
from xdet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy as np
    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

Codes = dict[str, "NDArray[Any]"]


def exact_codes(
    graph: ir.Graph, twin: str, image: NDArray[np.uint8], given: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], bool]:
    """The exact arithmetic's codes of one value.

    Args:
        graph: what ``converters.integer.evaluate.read_graph`` made of the model.
        twin: the value.
        image: uint8 RGB ``(1, height, width, 3)`` at network size.
        given: codes by name, as the graph stores them; that of ``twin`` itself is not used.

    Returns:
        The codes, and whether float32 arithmetic lies on the way, which rounds as each runtime likes.

    Raises:
        ModelError: an operator on the way is not known in integers.
    """
    from converters.integer.evaluate import NotEvaluatedError, evaluate
    from converters.integer.values import to_reals

    others = {name: codes for name, codes in given.items() if name != twin}
    try:
        evaluation = evaluate(graph, {**others, IMAGE: image}, [twin])
    except NotEvaluatedError as error:
        raise ModelError(f"the layer {twin!r} cannot be computed in integers: {error}") from error
    return to_reals(evaluation.values[twin]).array, bool(evaluation.inexact)


def cut_layer(proto: onnx.ModelProto, output: str, codes: Mapping[str, NDArray[Any]]) -> tuple[bytes, Codes]:
    """The part of a graph between the values that are known and one of them.

    Args:
        proto: the whole model.
        output: the value that the part computes.
        codes: known values by name, ``output`` among them, as the graph stores them.

    Returns:
        The part as a model, and the codes that it takes and should give.
    """
    from onnx import checker, helper

    writers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    wanted, read, open_names = set[str](), dict[str, None](), [output]
    while open_names:
        node = writers[open_names.pop()]
        if node.output[0] in wanted:
            continue
        wanted.add(node.output[0])
        read |= dict.fromkeys(name for name in node.input if name)
        open_names += [name for name in node.input if name in writers and name not in codes]
    inputs = [name for name in read if name in codes]
    graph = helper.make_graph(
        [node for node in proto.graph.node if node.output[0] in wanted],
        "layer",
        [_value(name, codes[name]) for name in inputs],
        [_value(output, codes[output])],
        [constants[name] for name in read if name in constants],
    )
    part = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    checker.check_model(part, full_check=True)
    return part.SerializeToString(), {name: codes[name] for name in (*inputs, output)}


def _value(name: str, codes: NDArray[Any]) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(codes.dtype), codes.shape)
