"""One layer as a model of its own: small enough to read, and to send to whoever has to mend it.

The model begins at the source tensors in front of the layer and ends at the layer's codes; ``layer.npz`` beside ``layer.onnx``
holds one photograph's codes by tensor name: LiteRT XNNPACK's for every input, and LiteRT's result to compare the output with.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import IMAGE
from xdet.errors import UsageError
from xdet.layers import source_codes
from xdet.onnx_graph import load_onnx
from xdet.outputs import write_bytes
from xdet.preparation import Preparation, prepare
from xdet.runtimes.model_file import read_model_file
from xdet.runtimes.onnxruntime import read_document
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from xdet.layers import Layer
    from xdet.preparation import Photograph

Codes = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True)
class LayerRepro:
    """What was written.

    Attributes:
        model: the ONNX file.
        values: the .npz file beside it.
        differing: values of the layer in which ONNX Runtime, given the source's codes, differs from the source.
        compared: values of the layer.
    """

    model: Path
    values: Path
    differing: int
    compared: int


def values_path(model: Path) -> Path:
    """Where the values of a repro model go.

    Raises:
        UsageError: the model's name does not end in ``.onnx``.
    """
    if model.suffix.lower() != ".onnx":
        raise UsageError(f"--repro writes an ONNX file, got '{model}'; let its name end in .onnx")
    return model.with_suffix(".npz")


def write_layer_repro(
    target: Path, layer: Layer, *, model: Path, source: Path, photographs: Sequence[Photograph]
) -> LayerRepro:
    """Write a layer as a model, with the values of the photograph on which it differs most.

    Args:
        target: the ONNX file to write; its values go beside it.
        layer: which, of ``compare_layers``.
        model: the finished model.
        source: the TFLite file it was made of.
        photographs: to choose from, at least one.

    Raises:
        OutputError: a file cannot be written.
        ModelError: one of the models cannot be read.
    """
    data, beside = read_model_file(model).data, values_path(target)
    proto, how = load_onnx(data, model.name), Preparation(read_document(data, file=model.name).spec.image)
    tried: list[tuple[int, bytes, Codes]] = []
    for photograph in photographs:
        image = prepare(photograph, how).pixels[None]
        codes = {**source_codes(data, source, image), IMAGE: image}
        cut, values = cut_layer(proto, layer.onnx, codes)
        session = OrtSession(cut, file=target.name, choices=SessionChoices(threads=1))
        given = {name: value for name, value in values.items() if name != layer.onnx}
        (result,) = session.run([layer.onnx], given)
        session.close()
        tried.append((int((result != values[layer.onnx]).sum()), cut, values))
    differing, cut, values = max(tried, key=lambda entry: entry[0])
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **values)
    write_bytes(target, cut)
    write_bytes(beside, packed.getvalue())
    return LayerRepro(target, beside, differing, values[layer.onnx].size)


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
