"""Static part for ONNX sources: the model holds the source's operators, attributes and constants bit for bit.

Every operator of the source whose result has a twin is looked up in the model by that twin. What a pass took away or
put in its place is named as not compared: the outputs of both files judge it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.graph import constant_of
from converters.opset import AXES_BY_OPERAND
from xdet.checking.numbers.comparison import CheckedSource, SourceLayer, StaticComparison
from xdet.errors import converter_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.checking.result import Cause
    from xdet.model.file import ModelFile
    from xdet.model.graph import FinishedGraph, Node


def read_onnx_source(source: ModelFile, document: ModelDocument) -> CheckedSource:
    """The operators of an ONNX source at the size of its model; layers only of float networks, which have a bound."""
    from converters.sources.onnx.importer import activation_codes, dequantize_graph
    from converters.sources.onnx.network import facts_from_onnx, fixed_graph
    from converters.sources.onnx.reader import read_onnx

    image = document.spec.image
    with converter_errors():
        records = read_onnx(source.data, source.file, (image.height, image.width))
        facts, nodes = facts_from_onnx(records), fixed_graph(records)
        pairs = dequantize_graph(nodes, source.file) if document.dequantize else ()
    own = {name for node in records.proto.graph.node for name in node.output}
    layers = tuple(
        SourceLayer(str(value.name), node.op_type, tuple(str(read.name) for read in node.inputs if read), None)
        for node in nodes
        for value in node.outputs
        if value.name in own and value.dtype is not None and value.dtype.name == "FLOAT"
    )
    if document.dequantize:  # what its DequantizeLinear give; the model has these numbers unrounded
        layers = tuple(
            SourceLayer(pair.value, "DequantizeLinear", (), None, 1, quant=pair.params, code_range=pair.codes)
            for pair in pairs
        )
    elif activation_codes(nodes) != "float32":
        layers = ()
    elif document.activations != "float32":
        return CheckedSource(facts, layers, problem="the model was quantised at conversion")
    return CheckedSource(facts, layers, compare=partial(compare_nodes, nodes), nodes=nodes)


def compare_nodes(source: ir.Graph, graph: FinishedGraph, document: ModelDocument) -> StaticComparison:
    """Compare every operator of an ONNX source, fixed at the model's size (``fixed_graph``), with the model's."""
    done, rewritten = StaticComparison(graph, document, how=" with the source's, bit for bit"), 0
    for node in source:
        name = str(node.outputs[0].name)
        ours = done.writer_of(name)
        if document.float16 and ours is not None and ours.op == "Cast" != node.op_type:
            ours = graph.producers.get(ours.inputs[0])  # a raw output, cast back
        if ours is None or (ours.op != node.op_type and document.passes):
            rewritten += 1
            continue
        constants = (None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs)
        done.compared += len(node.attributes) + sum(tensor.size for tensor in constants if tensor is not None)
        for cause, what in _differences(node, ours, graph, document):
            done.fault(cause, name, f"{node.op_type} {name!r}: {what}")
    if rewritten:
        passes = ", ".join(document.passes)
        done.remarks.append(f"{rewritten} operators were rewritten ({passes}), the outputs judge them")
    return done


def _differences(
    node: ir.Node, ours: Node, graph: FinishedGraph, document: ModelDocument
) -> Iterator[tuple[Cause, str]]:
    """What differs between an operator and the model's, with its cause."""
    if ours.op != node.op_type:
        yield "attributes", f"the model computes it by {ours.op}"
        return
    theirs = {name: _plain(attribute.value) for name, attribute in node.attributes.items()}
    operands = list(node.inputs)
    if node.op_type in AXES_BY_OPERAND and "axes" in ours.attributes and len(operands) > 1:
        axes = constant_of(operands.pop())  # an operand from a later opset on than the file has
        theirs["axes"] = None if axes is None else _plain(axes.tolist())
    for name in sorted({*theirs, *ours.attributes}):
        if theirs.get(name) != ours.attributes.get(name):
            yield "attributes", f"{name} is {ours.attributes.get(name)}, the source has {theirs.get(name)}"
    for place, value in enumerate(operands):
        read = ours.inputs[place] if place < len(ours.inputs) else ""
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        if tensor is not None:
            held, expected = graph.constant(read), tensor.numpy()
            if document.float16 and held is not None and held.dtype == np.float16 != expected.dtype:
                expected = expected.astype(np.float16)
            problem = _difference(expected, held)
            if problem is not None:
                yield "weight", f"operand {place} {problem}"
        elif value is not None and not document.passes:
            twin = document.tensors.get(str(value.name))
            if document.float16 and (cast := graph.producers.get(read)) is not None and cast.op == "Cast":
                read = cast.inputs[0]
            if twin is not None and twin.onnx != read:
                yield "attributes", f"operand {place} is {read!r}, the source reads {value.name!r}"


def _difference(expected: NDArray[Any], held: NDArray[Any] | None) -> str | None:
    """How a constant differs from the source's, bit for bit; None where it does not."""
    if held is None or held.dtype != expected.dtype or held.shape != expected.shape:
        form = "none" if held is None else f"{held.dtype} {list(held.shape)}"
        return f"is {expected.dtype} {list(expected.shape)} in the source, {form} in the model"
    theirs, ours = (np.ascontiguousarray(array).reshape(-1).view(f"V{array.itemsize}") for array in (expected, held))
    count = int((theirs != ours).sum())
    return f"differs in {count:,} of {expected.size:,} numbers" if count else None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
