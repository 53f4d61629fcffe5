"""What the layers of a Keras file give, computed in a process of its own: TensorFlow stays in it, and may crash there.

The file is scanned as for a conversion, and needs no description: pixels are rescaled by whoever asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import ModelError, RuntimeUnavailableError

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
        RuntimeUnavailableError: TensorFlow is missing, or the process ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="xdet-keras-") as folder:
        request, answer = Path(folder) / "request.npz", Path(folder) / "answer.npz"
        told = {"file": model.file, "format": model.format, "names": list(names), "threads": threads}
        np.savez(
            request,
            rescaled=rescaled_nhwc,
            model=np.frombuffer(model.data, np.uint8),
            told=np.array(json.dumps(told)),
        )
        process = subprocess.run(  # noqa: S603 - this interpreter, our own module
            [sys.executable, *WORKER, str(request), str(answer)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.is_file():
            words = " ".join(process.stderr.split())[-200:]
            raise RuntimeUnavailableError(
                f"'{model.file}': Keras ended its process with code {process.returncode} before it gave its layers"
                f"{': ' + words if words else ''}; {MEMORY_HINT}"
            )
        with np.load(answer) as stored:
            if "error" in stored:
                raise ModelError(str(stored["error"]))
            return {name: stored[f"layer_{number}"] for number, name in enumerate(names)}


def serve(request: Path, answer: Path) -> None:
    """The other side: load the network, run it once, write what every named layer gives."""
    with np.load(request) as stored:
        told: dict[str, Any] = json.loads(str(stored["told"]))
        rescaled, data = stored["rescaled"], stored["model"].tobytes()
    from converters.errors import ConversionError
    from converters.keras.loading import load_keras
    from converters.keras.reader import read_keras

    arrays: dict[str, NDArray[Any]]
    try:
        network = load_keras(
            read_keras(data, told["file"], "h5" if told["format"] == "h5" else "keras"),
            threads=told["threads"],
        )
        outputs = network.layer_outputs(rescaled, told["names"])
    except (ConversionError, ValueError, RuntimeError, MemoryError) as error:
        arrays = {"error": np.array(" ".join(str(error).split()) or type(error).__name__)}
    else:
        arrays = {f"layer_{number}": array for number, array in enumerate(outputs)}
    whole = answer.with_suffix(".part.npz")
    np.savez(whole, **arrays)  # type: ignore[arg-type]  # arrays all
    whole.replace(answer)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
