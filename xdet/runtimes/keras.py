"""A Keras source file on Keras itself, with the numpy head: the float witness that its conversions are compared with.

The file is scanned as for a conversion before Keras gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import MissingExtraError, ModelError, UsageError
from xdet.runtimes.base import Capabilities, VendorErrors, require_images, require_names, vendor_errors
from xdet.runtimes.finished import SourceRuntime, raw_outputs_of, require_numbers, run_in_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.sources.keras.loading import LoadedKeras
    from converters.spec import DetectorSpec
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

PROVIDER = "cpu"
CHUNK = 8  # images per call: a network of this family then needs some 100 MB
ERRORS = VendorErrors(model=(ValueError, TypeError, RuntimeError, MemoryError))


class KerasRuntime(SourceRuntime):
    """A Keras network, open on TensorFlow's CPU kernels; for one thread at a time.

    Args:
        network: loaded by ``converters.sources.keras``, which scanned it first.
        file: its name, for messages.
        spec: what turns its head into boxes.
    """

    def __init__(self, network: LoadedKeras, *, file: str, spec: DetectorSpec) -> None:
        super().__init__(network.source.data, file=file, spec=spec)
        self._network: LoadedKeras | None = network

    @property
    def name(self) -> str:
        """``keras:cpu``."""
        return f"keras:{PROVIDER}"

    @property
    def batch(self) -> int | None:
        """Any number of images; at most ``CHUNK`` at once."""
        return None

    @property
    def capabilities(self) -> Capabilities:
        """Everything but exact integers: the network is float."""
        return Capabilities(thresholds=True, max_detections=None, head=True, tensors=True, exact=False)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs of uint8 ``(N, height, width, 3)``; see ``Runtime.head``."""
        require_images(images, self._spec)
        network = self._require_open()
        outputs = run_in_chunks(
            images,
            None if len(images) <= CHUNK else CHUNK,
            lambda chunk: self._guarded(lambda: network.outputs(self._rescaled(chunk))),
        )
        return require_numbers(raw_outputs_of(outputs, self._spec, file=self._file), self)

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """What layers give, by their names, float32 NHWC; see ``Runtime.tensors``."""
        require_images(images, self._spec)
        network = self._require_open()
        require_names(names, network.layer_names(), file=self._file)
        wanted = list(dict.fromkeys(names))
        arrays = run_in_chunks(
            images,
            None if len(images) <= CHUNK else CHUNK,
            lambda chunk: self._guarded(lambda: network.layer_outputs(self._rescaled(chunk), wanted)),
        )
        return dict(zip(wanted, arrays, strict=True))

    def close(self) -> None:
        """Let go of the network."""
        self._network = None

    def _require_open(self) -> LoadedKeras:
        if self._network is None:
            raise UsageError(f"'{self._file}' was closed; open it again")
        return self._network

    def _rescaled(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rescaling = self._spec.image.rescaling
        return images.astype(np.float32) * np.float32(rescaling.scale) + np.float32(rescaling.offset)

    def _guarded(self, run: Callable[[], list[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        advice = "see that the network takes one image and gives one grid"
        with vendor_errors(ERRORS, file=self._file, doing="Keras failed while running it", advice=advice):
            return run()


def open_model(model: ModelFile, choices: RuntimeChoices) -> KerasRuntime:
    """Scan and load a Keras file that is in memory; its sidecar describes it unless ``choices.spec`` does.

    Raises:
        MissingExtraError: TensorFlow or the Keras of that file is not installed.
        ModelError: damaged, refused by the scan, or not a detector of this family.
        UsageError: its anchors or classes are stated nowhere, or threads were asked of a TensorFlow that runs already.
    """
    from converters import errors
    from converters.description import statements as settings
    from converters.sources.keras.importer import facts_from_keras
    from converters.sources.keras.loading import load_keras
    from converters.sources.keras.stored import read_keras

    try:
        source = read_keras(model.data, model.file)
        network = load_keras(source, threads=choices.threads)
        spec = choices.spec
        if spec is None:
            facts = facts_from_keras(network)
            spec = settings.describe_source(model.path, facts, choices.source_options or settings.SourceOptions()).spec
    except errors.OptionError as error:
        raise UsageError(*error.lines) from error
    except errors.MissingExtraError as error:
        raise MissingExtraError(error.what, error.extra) from error
    except errors.ConversionError as error:
        raise ModelError(*error.lines) from error
    return KerasRuntime(network, file=model.file, spec=spec)


def providers() -> tuple[str, ...]:
    """What stands behind ``keras:`` here.

    Raises:
        MissingExtraError: TensorFlow or a Keras is not installed.
    """
    from importlib.util import find_spec

    for module in ("tensorflow", "tf_keras", "keras"):
        if find_spec(module) is None:
            raise MissingExtraError(f"{module}, which runs Keras files,", "keras")
    return (PROVIDER,)
