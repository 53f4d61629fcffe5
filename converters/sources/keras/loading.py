"""A checked Keras file, loaded: it can be asked for its shapes, run on pixels, and exported to ONNX.

Files of Keras 2 (H5, and ``.keras`` by tf_keras) load with tf_keras, files of Keras 3 with Keras 3: neither reads all
of the other's. What is loaded are the very bytes that were checked, from a private folder. Nothing is compiled, no
custom object is known.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import SourceFileError
from converters.sources.keras.stored import read_keras
from converters.sources.tensorflow import TF2ONNX_OPSET, exporting, import_quietly, set_threads, silenced_warnings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from converters.sources.keras.stored import KerasFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedKeras:
    """A network in memory: the file it came from, the library that loaded it (``tf_keras`` or ``keras``), its model.

    Sizes are None where free; activations are those through which each output's numbers went last.
    """

    source: KerasFile
    keras: Any
    model: Any
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    output_names: tuple[str, ...]
    output_activations: tuple[tuple[str, ...], ...]

    def outputs(self, rescaled_nhwc: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for rescaled pixels, float32 ``(N, height, width, 3)``, as Keras itself computes them."""
        with silenced_warnings():
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
        with silenced_warnings():
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
            with _traced_in_place(tf):
                proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=TF2ONNX_OPSET)
        return proto


@contextmanager
def _traced_in_place(tensorflow: Any) -> Iterator[None]:
    """Trace functions into those that call them: Keras calls a compiled one for convolutions in groups."""
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(run_eagerly=True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(before)


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
            with silenced_warnings():
                model = keras.models.load_model(copy, compile=False)
        except (ValueError, TypeError, KeyError, OSError, IndexError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SourceFileError(
                f"{source.file}: {library} cannot load it: {reason}; save it again with the Keras that made it"
            ) from error
    names, activations = tuple(map(str, model.output_names)), tuple(map(_activations, model.outputs))
    return LoadedKeras(source, keras, model, _shapes(model.inputs), _shapes(model.outputs), names, activations)


ACTIVATIONS = frozenset({"sigmoid", "softmax"})
KEEPS_NUMBERS = frozenset({"Reshape", "Permute", "Flatten", "Concatenate"})


def _activations(output: Any) -> tuple[str, ...]:
    """The activations through which the numbers of a symbolic output went last."""
    activations: dict[str, None] = {}
    waiting = [output]
    while waiting:
        layer = waiting.pop()._keras_history[0]  # noqa: SLF001 - the only way from a tensor to its layer
        kind = type(layer).__name__
        name = "softmax" if kind == "Softmax" else getattr(getattr(layer, "activation", None), "__name__", "")
        if name in ACTIVATIONS:
            activations[name] = None
        elif kind in KEEPS_NUMBERS:
            inputs = layer.input
            waiting += inputs if isinstance(inputs, list | tuple) else [inputs]
    return tuple(activations)


def _shapes(tensors: Any) -> tuple[tuple[int | None, ...], ...]:
    return tuple(tuple(None if n is None else int(n) for n in tensor.shape) for tensor in tensors)
