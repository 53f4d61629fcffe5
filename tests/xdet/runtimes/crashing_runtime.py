"""A runtime whose native code crashes, at the moment that its file's name says: ``open``, ``detect``, ``hang``.

``second`` crashes while it is opened where another model was open before.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from xdet.runtimes import onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from converters.spec import Thresholds
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import Runtime, RuntimeChoices


class Crashing(onnxruntime.OnnxRuntime):
    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        if "hang" in self.file:
            time.sleep(600)
        crash()
        return super().detect(images, thresholds)


opened_before: list[str] = []


def open_model(model: ModelFile, choices: RuntimeChoices) -> Runtime:
    if "second" in model.file and opened_before:
        crash()
    print("not a message", flush=True)  # noqa: T201 - as native libraries do
    opened = onnxruntime.open_model(model, choices)
    if "detect" not in model.file and "hang" not in model.file:
        crash()
    opened_before.append(model.file)
    opened.__class__ = Crashing
    return opened


def crash() -> None:
    print("INFO: all is well\nout of luck", file=sys.stderr, flush=True)  # noqa: T201 - likewise
    os.kill(os.getpid(), signal.SIGSEGV)
