"""A finished model in the ``dnn`` module of OpenCV 5 or newer, on its new engine. Its only importer (extra ``opencv``).

The engine of OpenCV 4, which version 5 keeps as "classic" and falls back to unless told otherwise, computes quantised
heads up to 35 steps off without a word: it is never used. Version 5.0.0 computes the last positions of 1 x 1
convolutions of codes wrong on some processors: what it gives for the golden picture of the file's metadata decides.
OpenCV folds thresholds into constants.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.golden import GENERATOR, compare_head, golden_image
from converters.spec import IMAGE
from xdet.errors import RuntimeUnavailableError
from xdet.runtimes.compiled import CompiledRuntime, as_file

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.compiled import Program

ENGINE = "OPENCV_FORCE_DNN_ENGINE"  # an environment variable that overrules the engine asked for


class OpenCvRuntime(CompiledRuntime):
    """A finished model in OpenCV."""

    TITLE, EXTRA, MODULE = "OpenCV", "opencv", "cv2"
    WHY = "older ones, and the classic engine, compute quantised heads up to 35 steps off without a word"

    def _errors(self) -> tuple[type[Exception], ...]:
        return (*super()._errors(), self._package.error)

    def _program(self, model: ir.Model, names: tuple[str, ...]) -> Program:
        cv2 = self._package
        forced, own = os.environ.get(ENGINE), str(cv2.dnn.ENGINE_NEW)
        if forced not in (None, own):
            raise RuntimeUnavailableError(f"{ENGINE} is {forced!r}, expected none or {own!r}: {self.WHY}; unset it")
        if self.threads is not None:
            cv2.setNumThreads(self.threads)
        data = np.frombuffer(as_file(model), np.uint8)
        net = cv2.dnn.readNetFromONNX(data, cv2.dnn.ENGINE_NEW)
        if net.empty():  # the reason went to stderr
            operators = sorted({node.op_type for node in model.graph})
            raise ValueError(f"it has no network for the file's operators, {', '.join(operators)}")

        def run(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
            net.setInput(images, IMAGE)
            return list(net.forward(list(names)))

        return run


def open_model(model: ModelFile, choices: RuntimeChoices) -> OpenCvRuntime:
    """Open a finished model in OpenCV.

    Raises:
        RuntimeUnavailableError: OpenCV is too old, the environment asks for the classic engine, or OpenCV computes this
            file wrong.
    """
    runtime = OpenCvRuntime(model, choices)
    _require_golden(runtime)
    return runtime


def _require_golden(runtime: OpenCvRuntime) -> None:
    """Refuse where the head of the golden picture is further from its codes than kernels that round differently get."""
    vector, image = runtime.document.golden, runtime.spec.image
    if vector is None or vector.generator != GENERATOR:
        return
    picture = golden_image(image.height, image.width, vector.seed, channels=image.channels)
    worst, most = compare_head(runtime.head(image.as_fed(picture))[0], vector).worst_lsb, vector.other_kernels_lsb
    if worst > most:
        raise RuntimeUnavailableError(
            f"'{runtime.file}': OpenCV {runtime.release} errs on this processor: its head for the golden picture is "
            f"{worst} steps off, expected at most {most}; use another runtime, or another release of OpenCV"
        )
