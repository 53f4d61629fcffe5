"""Mutants that ask for much: windows, strides, paddings and shapes of 2^31 and the like, in every operator."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import ConversionError
from converters.options import ConvertOptions
from converters.spec import Rescaling
from xdet.errors import XdetError
from xdet.inspection import inspect

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

SIZES = (2**31 - 1, 2**31 - 2, -(2**31), 1 << 30, 1 << 24, 65536, 46341, 4096, 0, -1)
WIDE = (*SIZES, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))


def make_sizes(random: Random) -> bytes:
    """One to four numbers of an operator, and in half of the TFLite files its outputs' shapes, too."""
    return _onnx(random) if random.random() < 0.3 else _tflite(random)


def _tflite(random: Random) -> bytes:
    import ai_edge_litert.schema_py_generated as schema
    import flatbuffers

    from tests.converters.sources.tflite.cases import BUILDERS, build_case

    model = schema.ModelT.InitFromPackedBuf(build_case(*random.choice(list(BUILDERS))), 0)
    graph = model.subgraphs[0]
    operator = random.choice(graph.operators[1:-1] or graph.operators)
    places = [place for table in (operator.builtinOptions, operator.builtinOptions2) for place in _numbers(table)]
    for index in operator.inputs:
        tensor = graph.tensors[index]
        if tensor.type == schema.TensorType.INT32 and model.buffers[tensor.buffer].data is not None:
            buffer = model.buffers[tensor.buffer]
            buffer.data = np.frombuffer(bytes(buffer.data), np.int32).copy()
            places += [(buffer.data, place) for place in range(len(buffer.data))]
    if random.random() < 0.5 or not places:
        for tensor in (graph.tensors[index] for index in operator.outputs):
            tensor.shape = np.array(tensor.shape)
            places += [(tensor.shape, place) for place in range(len(tensor.shape))]
    for holder, key in random.sample(places, min(len(places), random.randrange(1, 5))):
        size = random.choice(SIZES)
        if isinstance(key, str):
            setattr(holder, key, size)
        else:
            holder[key] = size
    for buffer in model.buffers:
        if isinstance(buffer.data, np.ndarray):
            buffer.data = np.frombuffer(buffer.data.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 14)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except TypeError:  # a field of fewer bits
        return _tflite(random)
    return bytes(builder.Output())


def _numbers(options: Any) -> list[tuple[Any, Any]]:
    """Every number of an operator's options but the kinds of small range, as (holder, key)."""
    found: list[tuple[Any, Any]] = []
    for name, value in list(vars(options).items()) if options is not None else ():
        if isinstance(value, np.ndarray):
            setattr(options, name, value.tolist())
            found += [(getattr(options, name), place) for place in range(len(value))]
        elif isinstance(value, list):
            found += [(value, place) for place in range(len(value))]
        elif type(value) is int and name not in ("padding", "fusedActivationFunction", "weightsFormat", "mode"):
            found.append((options, name))
    return [place for place in found if not isinstance(place[1], str) or "DataType" not in place[1]]


@cache
def _onnx_corpus() -> tuple[bytes, ...]:
    from tests.converters.sources.onnx.networks import tiny_yolo_v2, yolo_v8, yolox

    return yolo_v8(quantised=True), yolo_v8(shape=("batch", 3, "height", "width")), yolox(), tiny_yolo_v2()


def _onnx(random: Random) -> bytes:
    model = onnx.load_model_from_string(random.choice(_onnx_corpus()))
    graph = model.graph
    lists = [attribute.ints for node in graph.node for attribute in node.attribute if attribute.ints]
    constants = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    for _ in range(random.randrange(1, 4)):
        if lists and (random.random() < 0.5 or not constants):
            ints = random.choice(lists)
            ints[random.randrange(len(ints))] = random.choice(WIDE)
        elif constants:
            tensor = random.choice(constants)
            values = numpy_helper.to_array(tensor).copy()
            if values.size:
                values.flat[random.randrange(values.size)] = random.choice(WIDE)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return bytes(model.SerializeToString())


def run_sizes(path: Path) -> None:
    """Inspect the file, with the layers of every second, and convert it without a head."""
    tflite = path.read_bytes()[4:8] == b"TFL3"
    path = path.rename(path.with_suffix(".tflite" if tflite else ".onnx"))
    with suppress(XdetError, ConversionError):
        inspect(path, layers=path.stat().st_size % 8 < 4)
    source_options = SourceOptions(head="none", rescaling=None if tflite else Rescaling(1 / 255, 0.0))
    convert_to_bytes(path, ConvertOptions(source=source_options))
