"""Copies of a finished model with one thing changed, cut and written on onnx-ir; the model itself stays as it is.

* ``build_probe_model``: the decoder behind a table of crafted heads. Before: ``image`` -> network -> ``head`` ->
  decoder, suppression, outputs. After: an ``image`` of one pixel, whose red value is an index -> the table -> ``head``
  -> the same nodes. Where ``head`` comes out of a DequantizeLinear (and a Transpose), the table holds codes and these
  nodes stay. The copy keeps the contract, so every runtime runs it as it runs the model.
* ``cut_at_head``: what ``xdet convert --head none`` would have written: the nodes up to the raw outputs.
* ``at_network_size``: the fixed graph inside one that takes photographs of any size: what a conversion without
  ``--any-size`` writes.
* ``cut_layer``: one value computed from given values in front of it, by a runtime; ``exact_codes`` computes the same by
  exact integer arithmetic.

Numeric effect: none on what stays. Copies with other thresholds, or with inner values as outputs, are made of the
file's bytes instead (``wire``): detection needs them, and must not wait for onnx.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from converters._ir import ir
from converters.graph import GraphWriter, cut_graph
from converters.opset import oldest_runtimes
from converters.spec import (
    HEAD,
    IMAGE,
    METADATA_KEY,
    NETWORK_IMAGE,
    NETWORK_VALUES,
    THRESHOLD_INPUTS,
    ImageInput,
    Thresholds,
    contract_io,
)
from xdet.errors import ModelError
from xdet.model.file import read_document
from xdet.model.graph import load_onnx, model_from_proto, require_valid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument

T = TypeVar("T")
PICK = "probe/"  # in front of the names of the nodes that are added
FLOAT_LEVELS = 256
FLOAT_RANGE = 100.0  # exp(100) is infinite in float32


@dataclass(frozen=True, eq=False)
class HeadEntry:
    """Where a table of heads is let into a graph."""

    value: str  # name of the value that the table replaces
    perm: tuple[int, ...] | None  # axes of the Transpose between it and the head; None where there is none
    scale: np.float32 | None  # of the codes; None where the value is float32
    zero_point: int  # 0 for float32
    dtype: np.dtype[Any]  # of the table

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


def find_entry(graph: ir.Graph, file: str) -> HeadEntry:
    """Where a finished model takes heads; ``file`` is its name, for messages.

    Raises:
        ModelError: the model has no value ``head``.
    """
    value, perm = _computed(graph, [HEAD], file)[0], None
    node = value.producer()
    if node is not None and node.op_type == "Transpose":
        perm = tuple(node.attributes.get_ints("perm", (3, 2, 1, 0)))
        node = _present(node.inputs[0]).producer()
    quantised = None if node is None or node.op_type != "DequantizeLinear" else _codes_behind(node)
    if quantised is None:
        return HeadEntry(HEAD, None, None, 0, np.dtype(np.float32))
    codes, scale, zero_point = quantised
    return HeadEntry(str(codes.name), perm, np.float32(scale), int(zero_point), zero_point.dtype)


def _codes_behind(node: ir.Node) -> tuple[ir.Value, NDArray[Any], NDArray[Any]] | None:
    """Computed 8-bit codes that a DequantizeLinear reads, their one scale and zero-point; None for anything else."""
    codes, *constants = map(_present, node.inputs)
    if codes.is_initializer() or len(constants) < 2:
        return None
    tensors = [ir.convenience.get_const_tensor(value) for value in constants[:2]]
    scale, zero_point = (None if tensor is None else tensor.numpy() for tensor in tensors)
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    return (codes, scale.reshape(()), zero_point.reshape(())) if zero_point.itemsize == 1 else None


def build_probe_model(
    model: ir.Model, tables: Mapping[str, NDArray[Any]], *, document: ModelDocument, thresholds: Thresholds
) -> bytes:
    """The model's decoder behind tables of heads.

    Args:
        model: a finished model.
        tables: name of a value that a table replaces -> the table ``(P, ...)``, P at most 256: a red value picks.
        document: what its metadata says; it ends in boxes.
        thresholds: the copy's defaults, or what it has frozen where the model has.

    Returns:
        A finished model for pictures of one pixel: red value i gives the boxes of head i.
    """
    values = ir.convenience.create_value_mapping(model.graph)
    graph = cut_graph(model.graph, model.graph.outputs, [values[name] for name in tables])
    heads = [value for value in graph.inputs if value.name in tables]
    for value in heads:
        graph.inputs.remove(value)
    batch = _image(model.graph).shape[0]  # type: ignore[index]  # stated
    image = ir.Value(name=IMAGE, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([batch, 1, 1, 3]))
    graph.inputs.insert(0, image)
    _pick_by_red(graph, image, {value: tables[str(value.name)] for value in heads})
    for name, number in zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True):
        default = graph.initializers.get(name)
        if default is not None and default.const_value is not None:
            default.const_value = ir.tensor(np.full(default.const_value.shape.numpy(), number, np.float32), name=name)
    spec = replace(document.spec, image=ImageInput(1, 1, document.spec.image.rescaling), thresholds=thresholds)
    return _serialised(model, graph, replace(document, spec=spec))


def _pick_by_red(graph: ir.Graph, image: ir.Value, tables: Mapping[ir.Value, NDArray[Any]]) -> None:
    """Make each value the entry of its table that the picture's red value names, in place."""
    writer = GraphWriter.inserting(graph, graph[0])
    channel = writer.constant(np.array(0, np.int64), f"{PICK}red_channel")
    per_image = writer.constant(np.array([-1], np.int64), f"{PICK}one_per_image")
    pixels = writer.op("Cast", [image], f"{PICK}pixels", to=int(ir.DataType.INT32))
    red = writer.op("Gather", [pixels, channel], f"{PICK}red", axis=3)
    flat = writer.op("Reshape", [red, per_image], f"{PICK}flat_red")
    index = writer.op("Cast", [flat], f"{PICK}index", to=int(ir.DataType.INT64))
    for value, table in tables.items():
        heads = writer.constant(table, f"{PICK}heads")
        picked = writer.op("Gather", [heads, index], str(value.name), axis=0)
        ir.convenience.replace_all_uses_with(value, picked)


def pictures_of(count: int) -> NDArray[np.uint8]:
    """The pictures that pick heads 0 .. ``count`` - 1: uint8 ``(count, 1, 1, 3)``."""
    pictures = np.zeros((count, 1, 1, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(count)
    return pictures


def cut_at_head(model: bytes, file: str) -> bytes:
    """The bytes of a finished model cut at its raw outputs; its own where it ends there already.

    Raises:
        ModelError: damaged, not finished by xdet, or without the value ``head``.
    """
    document = read_document(model, file=file)
    if not document.spec.gives_boxes:
        return model
    whole = model_from_proto(load_onnx(model, file), file)
    cut = replace(document, spec=document.spec.ending_raw())
    names = [output.value_name for output in cut.spec.raw_outputs]
    graph = cut_graph(whole.graph, _computed(whole.graph, names, file))
    batch = _image(graph).shape[0]  # type: ignore[index]  # stated
    _, raw = contract_io(cut.spec, batch if isinstance(batch, int) else str(batch), freeze_thresholds=True)
    for value, tensor in zip(graph.outputs, raw, strict=True):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(tensor.shape)
    return _serialised(whole, graph, cut)


def at_network_size(model: bytes, file: str) -> bytes:
    """The bytes of a finished model without its resize rule; its own where it has a fixed size already.

    Raises:
        ModelError: damaged, not finished by xdet, or without the value ``network_image``.
    """
    document = read_document(model, file=file)
    image = document.spec.image
    if not image.any_size:
        return model
    proto = load_onnx(model, file)
    require_valid(proto, file)
    whole = model_from_proto(proto, file)
    graph = whole.graph
    (network_image,) = _computed(graph, [NETWORK_IMAGE], file)
    pixels = _image(graph)
    ir.convenience.replace_all_uses_with(network_image, pixels)
    pixels.shape = ir.Shape([1, *image.shape])
    values = ir.convenience.create_value_mapping(graph)
    for place, output in enumerate(graph.outputs):
        inner = values.get(NETWORK_VALUES.get(str(output.name), ""))
        if inner is not None:
            name, output.name = str(output.name), None
            inner.name = _present(inner.producer()).name = name
            inner.type, inner.shape = output.type, output.shape
            graph.outputs[place] = inner
    tensors = {
        name: replace(twin, onnx=IMAGE) if twin.onnx == NETWORK_IMAGE else twin
        for name, twin in document.tensors.items()
    }
    spec = replace(document.spec, image=replace(image, any_size=False))
    return _serialised(whole, cut_graph(graph, graph.outputs), replace(document, spec=spec, tensors=tensors))


def _computed(graph: ir.Graph, names: Sequence[str], file: str) -> list[ir.Value]:
    """The values of these names, which operators compute."""
    values = {value.name: value for node in graph for value in node.outputs}
    missing = ", ".join(repr(name) for name in sorted(names) if name not in values)
    if missing:
        raise ModelError(f"'{file}' has no value named {missing}; convert its source again with xdet convert")
    return [values[name] for name in names]


def _image(graph: ir.Graph) -> ir.Value:
    return next(value for value in graph.inputs if value.name == IMAGE)


def _present(operand: T | None) -> T:
    assert operand is not None, "the checker has seen it"  # noqa: S101
    return operand


def _serialised(model: ir.Model, graph: ir.Graph, document: ModelDocument) -> bytes:
    """A finished model's bytes with another graph and document."""
    copy = ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        metadata_props=dict(model.metadata_props),
    )
    document = replace(document, oldest_runtimes=oldest_runtimes(copy, document))
    copy.metadata_props[METADATA_KEY] = document.to_json()
    return bytes(ir.to_proto(copy).SerializeToString(deterministic=True))


Codes = dict[str, "NDArray[Any]"]


def exact_codes(graph: ir.Graph, twin: str, codes: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], bool]:
    """The exact arithmetic's codes of one value, and whether float32, which each runtime rounds its way, is among it.

    ``codes`` are the picture and codes by name, as the graph stores them; that of ``twin`` itself is not used.

    Raises:
        ModelError: an operator on the way is not known in integers.
    """
    from converters.integer.evaluate import NotEvaluatedError, evaluate
    from converters.integer.values import to_reals

    others = {name: array for name, array in codes.items() if name != twin or name == IMAGE}
    try:
        evaluation = evaluate(graph, others, [twin])
    except NotEvaluatedError as error:
        raise ModelError(f"the layer {twin!r} cannot be computed in integers: {error}") from error
    return to_reals(evaluation.values[twin]).array, bool(evaluation.inexact)


def cut_layer(model: ir.Model, output: str, codes: Mapping[str, NDArray[Any]]) -> tuple[bytes, Codes]:
    """The part of a graph between known values and one of them as a model, and the codes that it takes and should give.

    ``codes`` are known values by name, ``output`` among them, as the graph stores them.
    """
    from onnx import checker, shape_inference

    values = ir.convenience.create_value_mapping(model.graph)
    inputs = [values[name] for name in codes if name != output and name in values]
    part = cut_graph(model.graph, [values[output]], inputs)
    read = {str(value.name): value for value in (*part.inputs, *part.outputs)}
    for name, value in read.items():
        value.type = ir.TensorType(ir.DataType.from_numpy(codes[name].dtype))
        value.shape = ir.Shape(codes[name].shape)
    proto = ir.to_proto(ir.Model(part, ir_version=model.ir_version))
    try:
        checker.check_model(proto, full_check=True)
    except shape_inference.InferenceError:  # an edited graph: its results have other shapes than they should
        for node in part:
            for value in node.outputs:
                value.shape = None if value.shape is None else ir.Shape([None] * len(value.shape))
        proto = ir.to_proto(ir.Model(part, ir_version=model.ir_version))
        checker.check_model(proto, full_check=True)
    return proto.SerializeToString(), {name: codes[name] for name in read}
