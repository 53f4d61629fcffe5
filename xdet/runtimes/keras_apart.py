"""What the layers of a Keras file give, computed in a process of its own: TensorFlow stays in it, and may crash there.

The file is scanned as for a conversion, and needs no description: pixels are rescaled by whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError
from xdet.runtimes.apart import Message, ProcessEndedError, call_apart, serve_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xdet.runtimes.model_file import ModelFile

WORKER = ("-m", "xdet.runtimes.keras_apart")
MEMORY_HINT = "try fewer photographs, or run the source by itself with xdet detect"


def keras_layer_outputs(
    model: ModelFile, rescaled_nhwc: NDArray[np.float32], names: Sequence[str], *, threads: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """What layers give for rescaled pixels.

    Args:
        model: the Keras file.
        rescaled_nhwc: float32 ``(N, height, width, 3)``.
        names: of layers.
        threads: threads inside an operator; None is TensorFlow's default.

    Returns:
        float32 by layer, as Keras lays them out.

    Raises:
        ModelError: damaged, refused by the scan, or a layer is missing.
        MissingExtraError: TensorFlow or the Keras of that file is not installed.
        RuntimeUnavailableError: the process ended by itself.
    """
    told = {"file": model.file, "format": model.format, "names": list(names), "threads": threads}
    arrays: dict[str, NDArray[Any]] = {
        "rescaled": rescaled_nhwc,
        "model": np.frombuffer(model.data, np.uint8),
    }
    try:
        answer = call_apart(WORKER, Message(told, arrays))
    except ProcessEndedError as error:
        raise RuntimeUnavailableError(
            f"'{model.file}': Keras ended its process before it gave its layers, with {error}; {MEMORY_HINT}"
        ) from error
    if "missing" in answer.told:
        raise MissingExtraError(*answer.told["missing"])
    if "error" in answer.told:
        raise ModelError(answer.told["error"])
    return {name: answer.arrays[f"layer_{number}"] for number, name in enumerate(names)}


def serve(request: Message) -> Message:
    """The other side: load the network, run it once, give what every named layer gives."""
    from converters.errors import ConversionError
    from converters.errors import MissingExtraError as MissingSourceExtraError
    from converters.keras.loading import load_keras
    from converters.keras.reader import read_keras

    told = request.told
    try:
        network = load_keras(
            read_keras(
                request.arrays["model"].tobytes(), told["file"], "h5" if told["format"] == "h5" else "keras"
            ),
            threads=told["threads"],
        )
        outputs = network.layer_outputs(request.arrays["rescaled"], told["names"])
    except MissingSourceExtraError as error:
        return Message({"missing": [error.what, error.extra]})
    except (ConversionError, ValueError, RuntimeError, MemoryError) as error:
        return Message({"error": " ".join(str(error).split()) or type(error).__name__})
    return Message({}, {f"layer_{number}": array for number, array in enumerate(outputs)})


if __name__ == "__main__":
    serve_apart(serve)
