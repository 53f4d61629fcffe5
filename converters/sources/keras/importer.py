"""Keras -> a float network in our graph: pixels rescaled inside, batch normalisation folded, NCHW, NHWC head.

A checked file is loaded: files of Keras 2 (H5, and ``.keras`` by tf_keras) with tf_keras, files of Keras 3 with
Keras 3: neither reads all of the other's. What is loaded are the very bytes that were checked, from a private folder.
Nothing is compiled, no custom object is known. The loaded network can be asked for its shapes, run on pixels, and
exported to ONNX.

tf2onnx folds batch normalisations into the convolutions in front of them (what it leaves, the pass ``fold affine``
folds) and hangs one Transpose behind the input and one in front of the output; the one behind the input meets its
inverse here, and the pass ``cancel transposes`` removes both. Numeric effect: float32 rounding of folded weights and of
another order of sums, about 1e-5.

What a Keras file itself tells about its detector: picture size and outputs. It never says how pixels are scaled.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import OptionError, SourceFileError, reason_of
from converters.facts import CHANNELS, IMAGE_SHAPE, SourceFacts, SourceOutput
from converters.graph import NCHW_TO_NHWC, image_pixels, rescaled_pixels
from converters.sources import ImportedNetwork
from converters.sources.keras.stored import read_keras
from converters.sources.tf2onnx import TF2ONNX_OPSET, exporting, import_quietly, name_outputs, set_threads, take_over
from converters.spec import HEAD, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.sources.keras.stored import KerasFile
    from converters.spec import DetectorSpec

logger = logging.getLogger(__name__)
Shapes = tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, eq=False)
class LoadedKeras:
    """A network in memory: the file it came from, the library that loaded it (``tf_keras`` or ``keras``), its model.

    Sizes are None where free; of each output there are its name, the activations through which its numbers went last,
    and the layer that gives it.
    """

    source: KerasFile
    keras: Any
    model: Any
    input_shapes: Shapes
    output_shapes: Shapes
    output_names: tuple[str, ...]
    output_activations: tuple[tuple[str, ...], ...]
    output_layers: tuple[str, ...]

    def outputs(self, rescaled_nhwc: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for rescaled pixels, float32 ``(N, height, width, 3)``, as Keras itself computes them."""
        with warnings.catch_warnings(action="ignore"):
            results = self.model(rescaled_nhwc, training=False)
        if isinstance(results, dict):
            results = results.values()
        elif not isinstance(results, list | tuple):
            results = [results]
        return [np.asarray(array, np.float32) for array in results]

    def layer_names(self) -> tuple[str, ...]:
        """The layers whose outputs ``layer_outputs`` gives."""
        return tuple(str(layer.name) for layer in self.model.layers)

    def layer_outputs(self, rescaled_nhwc: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """What the named layers give for rescaled pixels, float32, NHWC."""
        with warnings.catch_warnings(action="ignore"):
            outputs = [self.model.get_layer(name).output for name in names]
            results = self.keras.Model(self.model.inputs, outputs)(rescaled_nhwc, training=False)
        return [np.asarray(array, np.float32) for array in (results if len(names) > 1 else [results])]

    def to_onnx(self, batch: int | None) -> onnx.ModelProto:
        """The network as tf2onnx writes it: float32 NHWC in and out, batch free where ``batch`` is None.

        Raises:
            UnsupportedModelError: tf2onnx cannot translate it.
        """
        with exporting(self.source.file) as tf2onnx:
            import tensorflow as tf

            shape = (batch, *self.input_shapes[0][1:])
            signature = [tf.TensorSpec(shape, tf.float32, name="image")]
            function = tf.function(lambda image: self.model(image, training=False), input_signature=signature)
            proto: onnx.ModelProto
            before = tf.config.functions_run_eagerly()
            # functions are traced into those that call them: Keras calls a compiled one for convolutions in groups
            tf.config.run_functions_eagerly(run_eagerly=True)
            try:
                proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=TF2ONNX_OPSET)
            finally:
                tf.config.run_functions_eagerly(before)
        return proto


def open_keras(data: bytes, file: str) -> LoadedKeras:
    """Read a Keras file of either format and load it.

    Raises:
        ConversionError: as ``read_keras`` and ``load_keras``.
    """
    return load_keras(read_keras(data, file))


def load_keras(source: KerasFile, *, threads: int | None = None) -> LoadedKeras:
    """Load a file that ``read_keras`` checked.

    ``threads`` is how many work inside an operator; None leaves it to TensorFlow, which settles it once per process.

    Raises:
        MissingExtraError: TensorFlow or the Keras of that file's version is not installed.
        OptionError: TensorFlow runs already with another number of threads.
        SourceFileError: Keras cannot build the network, or weights do not fit it.
    """
    library = "tf_keras" if source.is_legacy else "keras"
    logger.info("loading %s with %s (written by Keras %s)", source.file, library, source.version)
    (keras,) = import_quietly(library)
    if threads is not None:
        set_threads(threads)
    with tempfile.TemporaryDirectory(prefix="xdet-keras-") as folder:
        copy = Path(folder) / f"model.{source.container}"
        copy.write_bytes(source.data)
        try:
            with warnings.catch_warnings(action="ignore"):
                model = keras.models.load_model(copy, compile=False)
        except (ValueError, TypeError, KeyError, OSError, IndexError, AttributeError, RuntimeError) as error:
            raise SourceFileError(
                f"{source.file}: {library} cannot load it: {reason_of(error):.300}; save it again with the Keras that "
                "made it"
            ) from error
    names, activations = tuple(map(str, model.output_names)), tuple(map(_activations, model.outputs))
    ends = tuple(str(_layer_of(output).name) for output in model.outputs)
    return LoadedKeras(source, keras, model, _shapes(model.inputs), _shapes(model.outputs), names, activations, ends)


ACTIVATIONS = frozenset({"sigmoid", "softmax"})
KEEPS_NUMBERS = frozenset({"Reshape", "Permute", "Flatten", "Concatenate"})


def _activations(output: Any) -> tuple[str, ...]:
    """The activations through which the numbers of a symbolic output went last."""
    activations: dict[str, None] = {}
    waiting = [output]
    while waiting:
        layer = _layer_of(waiting.pop())
        kind = type(layer).__name__
        name = "softmax" if kind == "Softmax" else getattr(getattr(layer, "activation", None), "__name__", "")
        if name in ACTIVATIONS:
            activations[name] = None
        elif kind in KEEPS_NUMBERS:
            inputs = layer.input
            waiting += inputs if isinstance(inputs, list | tuple) else [inputs]
    return tuple(activations)


def _layer_of(tensor: Any) -> Any:
    return tensor._keras_history[0]  # noqa: SLF001 - the only way from a tensor to its layer


def _shapes(tensors: Any) -> Shapes:
    return tuple(tuple(None if n is None else int(n) for n in tensor.shape) for tensor in tensors)


_SUFFIX = re.compile(r"_\d+")


def import_keras(
    model: LoadedKeras, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Write a Keras detector network into ``writer``'s graph.

    Raises:
        OptionError: int8 activation codes are asked of a float graph.
        UnsupportedModelError: tf2onnx cannot translate the network.
    """
    if options.quantize == "none" and options.activations != "uint8":
        raise OptionError(
            f"{model.source.file}: --activations {options.activations} is about integer codes, and a float graph has "
            "none; add --quantize per-channel --calibration DIR, or leave it out"
        )
    pixels = image_pixels(writer, spec.image, options.batch_size)
    real = rescaled_pixels(writer, pixels, spec.image.rescaling)
    nhwc = writer.op("Transpose", [real], "pixels/nhwc", perm=list(NCHW_TO_NHWC))
    batch = options.batch_size if isinstance(options.batch_size, int) else None
    outputs, values = take_over(model.to_onnx(batch), writer, nhwc, model.source.file)
    raw = name_outputs(writer, outputs, facts_from_keras(model), spec)
    return ImportedNetwork(
        outputs=raw,
        twins=layer_twins(model, values, outputs, [output.value_name for output in spec.network_outputs]),
        quantization="float32",
        activations="float32",
        leaky_relu="float",
    )


def layer_twins(
    model: LoadedKeras, values: dict[str, ir.Value], outputs: Sequence[ir.Value] = (), raw: Collection[str] = (HEAD,)
) -> dict[str, TensorTwin]:
    """Layer name -> the last value computed in that layer's scope, or the network's output that the layer ends with.

    TensorFlow names tensors ``<model>/<layer>/<operation>``; Keras 3 puts the same suffix behind every scope. An output
    has no scope; behind a layer's values stands the layer's own bias or activation there, unless it only turns them.
    """
    layers = {layer.name for layer in model.source.layers}
    twins: dict[str, TensorTwin] = {}
    for name, value in values.items():
        scope = name.split("/")
        suffix = scope[0].removeprefix(str(model.model.name))
        if not (suffix == "" or _SUFFIX.fullmatch(suffix)):
            continue
        for part in scope[1:]:
            layer = part.removesuffix(suffix) if suffix else part
            if layer in layers and value.name is not None:
                rank = 0 if value.shape is None else len(value.shape)
                layout = "NHWC->NCHW" if rank == 4 and value.name not in raw else "same"
                twins[layer] = TensorTwin(value.name, layout, 0)
    for layer, value in zip(model.output_layers, outputs, strict=False):
        producer = value.producer()
        if layer in twins and value.name is not None and producer is not None and producer.op_type != "Transpose":
            twins[layer] = TensorTwin(value.name, "same", 0)
    return twins


def facts_from_keras(model: LoadedKeras) -> SourceFacts:
    """Read the facts of a Keras detector: one image in, any number of outputs of any rank.

    Raises:
        SourceFileError: its inputs are not one picture, or a size is open.
    """
    file = model.source.file
    image = _sizes(model.input_shapes[0]) if len(model.input_shapes) == 1 else None
    if image is None or len(image) != 3 or image[2] not in CHANNELS:
        raise _not_a_detector(file, "input", model.input_shapes, IMAGE_SHAPE)
    sizes = [_sizes(shape) for shape in model.output_shapes]
    outputs = tuple(
        SourceOutput(name, shape, activations)
        for name, shape, activations in zip(model.output_names, sizes, model.output_activations, strict=True)
        if shape is not None
    )
    if not outputs or len(outputs) < len(sizes):
        raise _not_a_detector(file, "output", model.output_shapes, "numbers of known sizes, [N, ...]")
    return SourceFacts(file, image[0], image[1], outputs, "float32", None, image[2])


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """The sizes behind the batch; None where one is open."""
    sizes = tuple(size for size in shape[1:] if size is not None and size > 0)
    return sizes if len(sizes) == len(shape) - 1 else None


def _not_a_detector(file: str, side: str, shapes: Shapes, expected: str) -> SourceFileError:
    listed = ", ".join(str(["N" if n is None else n for n in shape]) for shape in shapes) or "none"
    open_size = any(None in shape[1:] for shape in shapes)
    hint = " (a size is open: build the network for one picture size, and save it again)" if open_size else ""
    return SourceFileError(f"'{file}' is not a detector: {side} expected {expected}, found {listed}{hint}")
