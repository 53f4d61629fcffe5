"""A graph that tf2onnx wrote, taken over into ours: the contract's opset, and the same names on every run.

tf2onnx numbers its tensors with a counter that belongs to the process, and names constants after its optimiser; here a
value is called after the source's tensor and a constant after the node that reads it. Every reader of a scale or
zero-point gets one of its own (shared ones make ONNX Runtime refuse exact kernels on x86). Numeric effect: none.

TFLite by way of tf2onnx: the general fallback, for operators that the native importer does not know. tf2onnx keeps the
source's integers in its own form: int8 activations, a QuantizeLinear behind the pixels, and what it makes of operators
that have no QDQ form in float32. It is taken over as it is; head and rewrites follow as for every source. Which
convolutions a runtime then computes in integers is the runtime's business: the native importer is the one that promises
it.

TensorFlow and tf2onnx are imported where they are used, without start-up messages, on the CPU, apart from the user's
Keras settings, and their exceptions told as ours. Messages come from C++, before any log level is read or without
looking at one (LiteRT's delegate, which tf2onnx opens), so the process's stderr points nowhere while an import or an
export lasts.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters._ir import ir
from converters.errors import MissingExtraError, OptionError, SourceFileError, UnsupportedModelError, reason_of
from converters.graph import NHWC_TO_NCHW, OPSET, infer_shapes, static_shape
from converters.heads.base import match_outputs
from converters.integer.convolution import same_padding
from converters.opset import upgraded
from converters.sources import ImportedNetwork, as_raw_output
from converters.sources.tflite.facts import facts_from_tflite, summarise_quantization
from converters.spec import BY_TF2ONNX, IMAGE, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.sources.tflite.reader import TfliteModel
    from converters.spec import DetectorSpec

SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
TF2ONNX_OPSET = 18  # the newest it writes; ``take_over`` brings it to the contract's
ERRORS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)  # what tf2onnx raises
_COUNTER = re.compile(r"__\d+(?=$|[:/_])")
_ROLES = {"Conv": ("input", "weights", "bias"), "QuantizeLinear": ("input",), "DequantizeLinear": ("codes",)}
_POOLS = ("MaxPool", "AveragePool")


def import_quietly(*names: str) -> list[Any]:
    """Import modules that need TensorFlow, TensorFlow first.

    Raises:
        MissingExtraError: one of them is not installed.
        SourceFileError: Keras is already loaded here with another backend.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="xdet-keras-") as home, _quiet({**SETTINGS, "KERAS_HOME": home}):
            tensorflow = import_module("tensorflow")
            modules = [import_module(name) for name in names]
    except ImportError as error:
        raise MissingExtraError(f"{error.name or 'TensorFlow'}, which loads Keras files,", "keras") from error
    with suppress(RuntimeError):  # it runs already: where, is settled
        tensorflow.config.set_visible_devices([], "GPU")
    keras = sys.modules.get("keras")
    if "keras" in names and keras is not None and keras.backend.backend() != "tensorflow":
        raise SourceFileError(
            f"Keras is loaded in this process with the {keras.backend.backend()} backend, which cannot be exported; "
            "start a new process with KERAS_BACKEND=tensorflow"
        )
    return modules


def set_threads(threads: int) -> None:
    """Have TensorFlow use so many threads inside an operator.

    Raises:
        OptionError: it runs already, with another number.
    """
    import tensorflow as tf

    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise OptionError(
            f"TensorFlow runs in this process already, not with {threads} threads; choose them before the first Keras "
            "file is opened"
        ) from error


@contextmanager
def _quiet(settings: dict[str, str]) -> Iterator[None]:
    """For a while: environment variables set, stderr's file descriptor pointing nowhere, and no Python warnings.

    Those of TensorFlow, Keras and tf2onnx speak to people who write models.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def exporting(file: str) -> Iterator[Any]:
    """Yield the module ``tf2onnx`` for one export of ``file``.

    Raises:
        MissingExtraError: TensorFlow, without which tf2onnx cannot be imported, is not installed.
        UnsupportedModelError: tf2onnx cannot translate the network.
    """
    (tf2onnx,) = import_quietly("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        with _quiet({}):
            yield tf2onnx
    except ERRORS as error:
        raise UnsupportedModelError(
            f"{file}: tf2onnx cannot translate it: {reason_of(error):.300}; if there is another form of the model, "
            "convert that"
        ) from error


def take_over(
    proto: onnx.ModelProto, writer: GraphWriter, source: ir.Value, file: str
) -> tuple[list[ir.Value], dict[str, ir.Value]]:
    """Append what tf2onnx returned, a graph with one input, opset 9 to the contract's, to ``writer``'s.

    ``source`` is what its input reads from now on, of the same type and shape.

    Returns:
        (its outputs, name in the source -> our value); without what tf2onnx put in between.

    Raises:
        UnsupportedModelError: operators outside ``ai.onnx``, control flow, or several inputs.
    """
    model = ir.from_proto(upgraded(proto, OPSET, file))
    infer_shapes(model)
    model.graph.sort()
    graph = model.graph
    if len(graph.inputs) != 1 or not graph.outputs:
        found = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise UnsupportedModelError(f"{file}: the exported network has {found}, expected one input")
    _require_plain_operators(graph, file)
    ours = {graph.inputs[0]: source}
    values: dict[str, ir.Value] = {}
    for node in graph:
        names = _names(node)
        if node.op_type == "Identity" and (same := node.inputs[0]) in ours:
            ours[node.outputs[0]] = ours[same]
            continue
        writer.copy(node, ours, names, partial(_constant_name, node.op_type, names[0]), _attributes(node))
        for name, old in zip(names, node.outputs, strict=True):
            if not _COUNTER.search(str(old.name)) or name != _clean(str(old.name)):
                values[name] = ours[old]  # a counter alone marks what tf2onnx put in between
    return [ours[output] for output in graph.outputs], values


def name_outputs(
    writer: GraphWriter, outputs: Sequence[ir.Value], facts: SourceFacts, spec: DetectorSpec
) -> tuple[ir.Value, ...]:
    """The network's outputs as the contract names and shapes them."""
    shapes = [output.shape for output in facts.outputs]
    return tuple(
        as_raw_output(writer, outputs[place], shapes[place], output)
        for output, place in zip(spec.network_outputs, match_outputs(shapes, spec.network_outputs), strict=True)
    )


def _require_plain_operators(graph: ir.Graph, file: str) -> None:
    foreign = {f"{node.domain}.{node.op_type}" for node in graph if node.domain not in ("", "ai.onnx")}
    nested = {
        node.op_type
        for node in graph
        for attribute in node.attributes.values()
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    }
    if foreign or nested:
        raise UnsupportedModelError(
            f"{file}: tf2onnx writes {', '.join(sorted(foreign | nested))} for it, which a portable graph cannot hold: "
            "replace the layers behind it"
        )


def _constant_name(op_type: str, name: str, place: int, _: ir.Value) -> str:
    roles = _ROLES.get(op_type, ())
    return f"{name}/{roles[place] if place < len(roles) else f'input_{place}'}"


def _attributes(node: ir.Node) -> dict[str, ir.Attr]:
    """The node's attributes; a pool's padding as ``auto_pad``, which the ONNX reference evaluator pools rightly."""
    attributes = dict(node.attributes)
    if node.op_type not in _POOLS or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return attributes
    pads = [int(n) for n in node.attributes.get_ints("pads", [])]
    sizes = (static_shape(node.inputs[0], open_batch=True) or ())[2:]
    kernel = node.attributes.get_ints("kernel_shape", [])
    strides = node.attributes.get_ints("strides", [1] * len(kernel))
    same = None  # the pads that SAME_UPPER means, where the size is known and the pool is not dilated
    if len(sizes) == len(kernel) and set(node.attributes.get_ints("dilations", [1])) == {1}:
        sides = [same_padding(*axis) for axis in zip(sizes, kernel, strides, strict=True)]
        same = [before for before, _ in sides] + [after for _, after in sides]
    if not any(pads) or pads == same:
        attributes.pop("pads", None)
        attributes["auto_pad"] = ir.AttrString("auto_pad", "SAME_UPPER" if any(pads) else "VALID")
    return attributes


def _names(node: ir.Node) -> list[str]:
    """The results' names; a node that tf2onnx made of two (``Conv__25``) gets the scope of its last constant."""
    names = [_clean(str(value.name)) for value in node.outputs]
    scopes = [_clean(str(value.name)).rpartition("/")[0] for value in node.inputs[1:] if value is not None]
    if names == [node.op_type] and any(scopes):
        return [f"{[scope for scope in scopes if scope][-1]}/{node.op_type}"]
    return names


def _clean(name: str) -> str:
    """A tensor's name without output number and counter: ``net/conv1/Conv2D__8:0`` -> ``net/conv1/Conv2D``."""
    return _COUNTER.sub("", name.removesuffix(":0"))


def import_by_tf2onnx(
    model: TfliteModel, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Write a TFLite detector network into ``writer``'s graph, as tf2onnx translates it.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        OptionError: the file takes float pixels, or uint8 activations are insisted on.
        UnsupportedModelError: tf2onnx cannot translate it.
    """
    file = model.file
    if model.tensors[model.inputs[0]].dtype != "uint8":
        raise OptionError(f"{file}: --importer tf2onnx takes models with uint8 pixels; leave it out for this one")
    if model.postprocess is not None:
        raise OptionError(f"{file}: tf2onnx does not know its post-processing; leave --importer tf2onnx out")
    image = writer.input(IMAGE, ir.DataType.UINT8, [options.batch_size, *spec.image.shape])
    with tempfile.TemporaryDirectory(prefix="xdet-tflite-") as folder, exporting(file) as tf2onnx:
        copy = Path(folder) / "model.tflite"
        copy.write_bytes(model.data)  # the very bytes that were checked
        proto, _ = tf2onnx.convert.from_tflite(str(copy), opset=TF2ONNX_OPSET)
    outputs, values = take_over(proto, writer, image, file)
    return ImportedNetwork(
        outputs=name_outputs(writer, outputs, facts_from_tflite(model), spec),
        twins=_twins(model, values),
        quantization=summarise_quantization(model),
        activations="int8",
        canonical=False,
        notes=(f"{BY_TF2ONNX}: int8 activations, and some operators may run in float32",),
        leaky_relu="float",
    )


def _twins(model: TfliteModel, values: dict[str, ir.Value]) -> dict[str, TensorTwin]:
    """Source tensor name -> the value of the same name, where tf2onnx kept one of its shape."""
    twins: dict[str, TensorTwin] = {}
    for tensor in model.tensors:
        value = values.get(tensor.name)
        if value is None or value.shape is None or len(value.shape) != len(tensor.shape):
            continue
        sizes = list(value.shape)[1:]
        if sizes == list(tensor.shape[1:]):
            twins[tensor.name] = TensorTwin(str(value.name), "same", 0)
        elif len(tensor.shape) == 4 and sizes == [tensor.shape[i] for i in NHWC_TO_NCHW[1:]]:
            twins[tensor.name] = TensorTwin(str(value.name), "NHWC->NCHW", 0)
    return twins
