"""A Keras source file on Keras itself, with the numpy head: the float witness that its conversions are compared with.

The file is scanned as for a conversion before Keras gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdet.errors import converter_errors
from xdet.runtimes.finished import SourceRuntime, describe_source, rescaled, run_in_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.sources.keras.importer import LoadedKeras
    from converters.spec import DetectorSpec
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.finished import Arrays

CHUNK = 8  # images per call: a network of this family then needs some 100 MB


class KerasRuntime(SourceRuntime):
    """A Keras network that was scanned and loaded, open on TensorFlow's CPU kernels; for one thread at a time."""

    TITLE, ADVICE = "Keras", "see that the network takes one image and gives one grid"

    def __init__(self, model: ModelFile, network: LoadedKeras, spec: DetectorSpec) -> None:
        super().__init__(model, name="keras:cpu", spec=spec, batch=None, exact=False)
        self._network: Any = network

    def _outputs(self, images: NDArray[np.uint8]) -> Arrays:
        return self._run(images, self._network.outputs)

    @property
    def _value_names(self) -> Collection[str]:
        names: Collection[str] = self._network.layer_names()
        return names

    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        """What layers give, float32 NHWC."""
        return self._run(images, lambda pixels: self._network.layer_outputs(pixels, names))

    def _free(self) -> None:
        self._network = None

    def _run(self, images: NDArray[np.uint8], run: Callable[[NDArray[np.float32]], Arrays]) -> Arrays:
        with self._border("failed while running it"):
            chunk = CHUNK if len(images) > CHUNK else None
            return run_in_chunks(images, chunk, lambda few: run(rescaled(few, self.spec)))


def open_model(model: ModelFile, choices: RuntimeChoices) -> KerasRuntime:
    """Scan and load a Keras file that is in memory; its sidecar describes it unless ``choices.spec`` does.

    Raises:
        MissingExtraError: TensorFlow or the Keras of that file is not installed.
        ModelError: damaged, refused by the scan, or not a detector of this family.
        UsageError: its anchors or classes are stated nowhere, or threads were asked of a TensorFlow that runs already.
    """
    from converters.sources.keras.importer import facts_from_keras, load_keras
    from converters.sources.keras.stored import read_keras

    with converter_errors():
        network = load_keras(read_keras(model.data, model.file), threads=choices.threads)
        spec = choices.spec or describe_source(model, facts_from_keras(network), choices)
    return KerasRuntime(model, network, spec)
