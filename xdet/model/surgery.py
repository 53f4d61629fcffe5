"""A finished model's decoder behind a table of crafted heads: the picture says which of them it decodes.

Before: ``image`` -> network -> ``head`` -> decoder, suppression, outputs. After: an ``image`` of one pixel, whose red value is
an index -> a table -> ``head`` -> the same nodes. Where ``head`` comes out of a DequantizeLinear (and a Transpose), the table
holds codes and these nodes stay. The copy keeps the contract, so every runtime runs it as it runs the model. Numeric effect:
none behind ``head``.

The network of a finished model without its head: a scratch copy that ends at the raw outputs.

Before -> after: the model -> what ``xdet convert --head none`` would have written: the same nodes up to ``head``, or
``head_<name>`` each, which become the outputs; what only the decoder needs is left out. Numeric effect: none on the head.

The fixed graph inside one that takes photographs of any size.

Before -> after: ``image`` -> resize rule -> ``network_image`` -> network, head -> letterbox undone -> outputs becomes what the
conversion without ``--any-size`` writes: the nodes between, with ``image`` at the network's size. Numeric effect: none.

Teacher forcing: one value of a graph computed from given values in front of it.

By exact integer arithmetic (``converters.integer``), or by a runtime, on the part of the graph that lies between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import (
    ANY_SIZE,
    HEAD,
    IMAGE,
    METADATA_KEY,
    NETWORK_IMAGE,
    NETWORK_VALUES,
    THRESHOLD_INPUTS,
    ImageInput,
    ModelDocument,
    Thresholds,
    contract_io,
)
from xdet.errors import ModelError
from xdet.model.graph import load_onnx, require_valid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

MOST_HEADS = 256  # as many as a red value tells apart
PICK = "probe/"  # in front of the names of the nodes that are added
FLOAT_LEVELS = 256
FLOAT_RANGE = 100.0  # exp(100) is infinite in float32


@dataclass(frozen=True, eq=False)
class HeadEntry:
    """Where a table of heads is let into a graph.

    Attributes:
        value: name of the value that the table replaces.
        perm: axes of the Transpose between it and ``head``; None where there is none.
        scale: of the codes; None where the value is float32.
        zero_point: int32 scalar; 0 for float32.
        dtype: of the table.
    """

    value: str
    perm: tuple[int, ...] | None
    scale: np.float32 | None
    zero_point: int
    dtype: np.dtype[Any]

    def levels(self) -> NDArray[np.float32]:
        """Every number that a raw head can hold, float32, rising; for float heads a choice of them, 0 inside."""
        if self.scale is None:
            inner = np.arange(-FLOAT_LEVELS // 2, FLOAT_LEVELS // 2 + 1, dtype=np.float32) / np.float32(16)
            return np.concatenate([[-FLOAT_RANGE], inner, [FLOAT_RANGE]]).astype(np.float32)
        limits = np.iinfo(self.dtype)
        return (np.arange(limits.min, limits.max + 1) - self.zero_point).astype(np.float32) * self.scale

    def table(self, heads: NDArray[np.float32]) -> NDArray[Any]:
        """Raw heads of these levels, ``(P, ...)``, as the graph holds them there."""
        values = heads if self.perm is None else heads.transpose(np.argsort(self.perm))
        if self.scale is None:
            return np.ascontiguousarray(values)
        return np.ascontiguousarray(np.rint(values / self.scale) + self.zero_point).astype(self.dtype)


def find_entry(graph: onnx.GraphProto, file: str) -> HeadEntry:
    """Where a finished model takes heads; ``file`` is its name, for messages.

    Raises:
        ModelError: the model has no value ``head``.
    """
    writers = {name: node for node in graph.node for name in node.output}
    if HEAD not in writers:
        raise ModelError(f"'{file}' has no value named {HEAD!r}; convert its source again with xdet convert")
    value, perm = HEAD, None
    if writers[value].op_type == "Transpose":
        perm = tuple(next((a.ints for a in writers[value].attribute if a.name == "perm"), (3, 2, 1, 0)))
        value = writers[value].input[0]
    scale, zero_point = _quantization(graph, writers.get(value))
    if scale is None or zero_point is None:
        return HeadEntry(HEAD, None, None, 0, np.dtype(np.float32))
    codes = writers[value].input[0]
    return HeadEntry(codes, perm, np.float32(scale), int(zero_point), zero_point.dtype)


def build_probe_model(
    model: onnx.ModelProto,
    tables: Mapping[str, NDArray[Any]],
    *,
    document: ModelDocument,
    thresholds: Thresholds,
) -> bytes:
    """The model's decoder behind tables of heads.

    Args:
        model: a finished model.
        tables: name of a value that a table replaces -> the table ``(P, ...)``, P of at most ``MOST_HEADS``.
        document: what its metadata says; it ends in boxes.
        thresholds: the copy's defaults, or what it has frozen where the model has.

    Returns:
        A finished model for pictures of one pixel: red value i gives the boxes of head i.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    wanted, nodes = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output) and not tables.keys() & set(node.output):
            nodes.append(node)
            wanted.update(node.input)
    (batch,) = [v.type.tensor_type.shape.dim[0] for v in graph.input if v.name == IMAGE]
    image = helper.make_tensor_value_info(
        IMAGE, TensorProto.UINT8, [batch.dim_value or batch.dim_param, 1, 1, 3]
    )
    picking, constants = _pick_by_red(tables)
    copy = helper.make_graph(
        [*picking, *nodes[::-1]],
        graph.name,
        [image, *(value for value in graph.input if value.name in wanted and value.name != IMAGE)],
        list(graph.output),
        [*constants, *(tensor for tensor in graph.initializer if tensor.name in wanted)],
    )
    spec = replace(
        document.spec, image=ImageInput(1, 1, document.spec.image.rescaling), thresholds=thresholds
    )
    proto = helper.make_model(
        copy,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=model.functions,
    )
    told = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(proto, told | {METADATA_KEY: replace(document, spec=spec).to_json()})
    _write_thresholds(proto, thresholds)
    return bytes(proto.SerializeToString(deterministic=True))


def pictures_of(count: int) -> NDArray[np.uint8]:
    """The pictures that pick heads 0 .. ``count`` - 1: uint8 ``(count, 1, 1, 3)``."""
    pictures = np.zeros((count, 1, 1, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(count)
    return pictures


def _write_thresholds(proto: onnx.ModelProto, thresholds: Thresholds) -> None:
    """Set the graph's score and IoU threshold, constants or defaults of inputs, in place."""
    from onnx import numpy_helper

    values = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            value = np.full(tuple(tensor.dims), values[tensor.name], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _quantization(
    graph: onnx.GraphProto, node: onnx.NodeProto | None
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Scale and zero-point of a DequantizeLinear of computed 8-bit codes with one scale; nothing for anything else."""
    from onnx import numpy_helper

    if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3:
        return None, None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if node.input[0] in constants or not all(name in constants for name in node.input[1:3]):
        return None, None
    scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
    if scale.size != 1 or zero_point.size != 1 or zero_point.dtype.itemsize != 1:
        return None, None
    return scale.reshape(()), zero_point.reshape(())


def _pick_by_red(tables: Mapping[str, NDArray[Any]]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that make each value the entry of its table that the picture's red value names."""
    from onnx import TensorProto, helper, numpy_helper

    red, flat, index = f"{PICK}red", f"{PICK}flat_red", f"{PICK}index"
    constants = {
        f"{PICK}red_channel": np.array(0, np.int64),
        f"{PICK}one_per_image": np.array([-1], np.int64),
    }
    channel, per_image = constants
    named = {value: f"{PICK}heads{place or ''}" for place, value in enumerate(tables)}
    constants |= {named[value]: table for value, table in tables.items()}
    nodes = [
        helper.make_node("Cast", [IMAGE], [f"{PICK}pixels"], to=TensorProto.INT32),
        helper.make_node("Gather", [f"{PICK}pixels", channel], [red], axis=3),
        helper.make_node("Reshape", [red, per_image], [flat]),
        helper.make_node("Cast", [flat], [index], to=TensorProto.INT64),
        *(helper.make_node("Gather", [name, index], [value], axis=0) for value, name in named.items()),
    ]
    return nodes, [numpy_helper.from_array(array, name) for name, array in constants.items()]


def cut_at_head(model: bytes, file: str) -> bytes:
    """Cut a finished model.

    Args:
        model: its bytes.
        file: its name, for messages.

    Returns:
        The bytes of the copy; the model itself where it ends at the raw head already.

    Raises:
        ModelError: damaged, not finished by xdet, or without the value ``head``.
    """
    from onnx import TensorProto, helper

    proto = load_onnx(model, file)
    graph = proto.graph
    document = _document({entry.key: entry.value for entry in proto.metadata_props}, file)
    if not document.spec.gives_boxes:
        return model
    cut = replace(document, spec=document.spec.ending_raw())
    names = {output.value_name for output in cut.spec.raw_outputs}
    wanted, nodes = set(names), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    missing = names.difference(name for node in nodes for name in node.output)
    if missing:
        listed = ", ".join(map(repr, sorted(missing)))
        raise ModelError(f"'{file}' has no value named {listed}; convert its source again with xdet convert")
    image = next(value for value in graph.input if value.name in wanted)
    batch = image.type.tensor_type.shape.dim[0]
    _, raw = contract_io(cut.spec, batch.dim_value or batch.dim_param, freeze_thresholds=True)
    copy = helper.make_graph(
        nodes[::-1],
        graph.name,
        [value for value in graph.input if value.name in wanted],
        [helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.shape) for tensor in raw],
        [tensor for tensor in graph.initializer if tensor.name in wanted],
    )
    proto.graph.CopyFrom(copy)
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = cut.to_json()
    return bytes(proto.SerializeToString())


def _document(properties: dict[str, str], file: str) -> ModelDocument:
    try:
        return ModelDocument.from_json(properties[METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"'{file}' is no finished model of this xdet ({error}); convert its source with xdet convert"
        ) from error


def at_network_size(model: bytes, file: str) -> bytes:
    """Take the resize rule out of a finished model.

    Args:
        model: its bytes.
        file: its name, for messages.

    Returns:
        The bytes of the copy; the model itself where it has a fixed size already.

    Raises:
        ModelError: damaged, not finished by xdet, or without the value ``network_image``.
    """
    from onnx import TensorProto, helper

    proto = load_onnx(model, file)
    document = _document({entry.key: entry.value for entry in proto.metadata_props}, file)
    image = document.spec.image
    if not image.any_size:
        return model
    require_valid(proto, file)
    graph, prefix = proto.graph, f"{ANY_SIZE}/"
    computed = {name for node in graph.node for name in node.output}
    if NETWORK_IMAGE not in computed:
        raise ModelError(
            f"'{file}' has no value named {NETWORK_IMAGE!r}; convert its source again with xdet convert"
        )
    inner = {name: output for output, name in NETWORK_VALUES.items() if name in computed}
    added = {NETWORK_IMAGE, *inner.values()}
    nodes = [n for n in graph.node if not n.output[0].startswith(prefix) and n.output[0] not in added]
    constants = [tensor for tensor in graph.initializer if not tensor.name.startswith(prefix)]
    names = {NETWORK_IMAGE: IMAGE, **inner}
    for node in nodes:
        node.name = names.get(node.name, node.name)
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in graph.input:
        if value.name == IMAGE:
            value.CopyFrom(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, *image.shape]))
    stated = [
        value for value in graph.value_info if value.name not in names and not value.name.startswith(prefix)
    ]
    for kept, field in ((nodes, graph.node), (constants, graph.initializer), (stated, graph.value_info)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
        del field[:]
        field.extend(copies)
    fixed = replace(
        document,
        spec=replace(document.spec, image=replace(image, any_size=False)),
        tensors={
            name: replace(twin, onnx=IMAGE) if twin.onnx == NETWORK_IMAGE else twin
            for name, twin in document.tensors.items()
        },
    )
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = fixed.to_json()
    return bytes(proto.SerializeToString(deterministic=True))


Codes = dict[str, "NDArray[Any]"]


def exact_codes(graph: ir.Graph, twin: str, given: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], bool]:
    """The exact arithmetic's codes of one value.

    Args:
        graph: of the model.
        twin: the value.
        given: the picture and codes by name, as the graph stores them; that of ``twin`` itself is not used.

    Returns:
        The codes, and whether float32 arithmetic lies on the way, which rounds as each runtime likes.

    Raises:
        ModelError: an operator on the way is not known in integers.
    """
    from converters.integer.evaluate import NotEvaluatedError, evaluate
    from converters.integer.values import to_reals

    others = {name: codes for name, codes in given.items() if name != twin or name == IMAGE}
    try:
        evaluation = evaluate(graph, others, [twin])
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
