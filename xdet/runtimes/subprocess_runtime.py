"""Any runtime of the table in a subprocess: native code that crashes on a hostile or broken file ends that alone.

Before -> after: a row's ``Runtime`` in this process -> the same runtime behind pipes, one subprocess per opened
runtime. Numeric effect: none; arrays come back as they are.

Starting one costs 0.4 s, and TensorFlow's 4. So a runtime that is closed leaves its subprocess to the next model of the
same row, unless it holds more than ``MOST_KEPT_BYTES``. A subprocess that ran other models before and crashes while it
opens one may crash for their sake: the model is opened once more, in a new one.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.heads.base import BatchDetections
from converters.spec import DetectorSpec, Thresholds
from xdet.errors import RuntimeCrashedError, XdetError
from xdet.model.file import ModelFile
from xdet.runtimes.base import Capabilities, Runtime, RuntimeChoices
from xdet.runtimes.worker import Message, SubprocessEndedError, Worker, keep_idle, take_idle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MOST_KEPT_BYTES = 1 << 30  # of an idle subprocess: TensorFlow with a small network has 0.6 GB
CLOSING_S = 10.0
DETECTIONS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")
SERVED = "xdet.runtimes.subprocess_runtime:ServedRuntime"


class SubprocessRuntime(Runtime):
    """A model that is open on a runtime in a subprocess; for one thread at a time.

    The subprocess gets the file as bytes and reads the sidecar beside a source itself.
    """

    def __init__(self, model: ModelFile, choices: RuntimeChoices, module: str) -> None:
        self.model, self._closed = model, False
        self._requested = f"{choices.runtime}:{choices.provider}"
        self._kind = module, (choices.threads, choices.workers)
        fields = {
            "module": module,
            "path": str(model.path),
            "folder": str(Path.cwd()) if not model.path.is_absolute() and model.path.exists() else None,
            "format": model.format,
            "choices": choices.to_dict(),
        }
        opened = self._opened(fields)
        super().__init__(
            model,
            name=opened["name"],
            spec=DetectorSpec.from_dict(opened["spec"]),
            capabilities=Capabilities(**opened["capabilities"]),
            batch=opened["batch"],
        )

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes; see ``Runtime.detect``."""
        arrays = self._ask("finding boxes", {"detect": asdict(thresholds)}, {"images": images}).arrays
        return BatchDetections(*(arrays[name] for name in DETECTIONS))

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head; see ``Runtime.head``."""
        return self._ask("running it", {"head": True}, {"images": images}).arrays["head"]

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Inner values by name; see ``Runtime.tensors``."""
        return dict(self._ask("showing inner values", {"tensors": list(names)}, {"images": images}).arrays)

    def _free(self) -> None:
        """The subprocess is kept for the next model, or ends."""
        if self._worker.is_ready:
            self._let_go()
        else:
            self._worker.stop()

    def _opened(self, fields: dict[str, Any]) -> Mapping[str, Any]:
        """What the subprocess tells of the opened model; ``_worker`` is the one that has it."""
        arrays = {"model": np.frombuffer(self.model.data, np.uint8)}
        used = take_idle(*self._kind)
        if used is not None:
            with suppress(RuntimeCrashedError):
                return self._open_in(used, fields, arrays)
        return self._open_in(Worker(SERVED), fields, arrays)

    def _open_in(self, worker: Worker, fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Mapping[str, Any]:
        self._worker = worker
        try:
            return self._ask("opening it", fields, arrays).fields
        except BaseException as error:  # an interrupt, too, must leave no subprocess behind
            if isinstance(error, XdetError) and not isinstance(error, RuntimeCrashedError):
                self._let_go()  # the model is refused, and the subprocess as good as before
            else:
                worker.stop()
            raise

    def _let_go(self) -> None:
        """Keep the subprocess for the next model if it is well and small, else end it."""
        try:
            held = self._worker.ask(Message({"close": True}), longest_s=CLOSING_S).fields["resident"]
        except (SubprocessEndedError, XdetError):
            held = MOST_KEPT_BYTES
        if held < MOST_KEPT_BYTES:
            keep_idle(*self._kind, self._worker)
        else:
            self._worker.stop()

    def _ask(self, doing: str, fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Message:
        self._closed = self._closed or not self._worker.stop.alive
        self._require_open()
        try:
            return self._worker.ask(Message(fields, arrays))
        except SubprocessEndedError as error:
            raise RuntimeCrashedError(
                f"'{self.file}': {self._requested} crashed while {doing}: its process ended with {error}; see that the "
                f"file is whole and of a maker whom you trust, or try another runtime"
            ) from error


class ServedRuntime:
    """The other side: a message opens a model, others ask it for something, and one closes it for the next."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def __call__(self, message: Message) -> Message:
        """Answer a message of ``SubprocessRuntime``."""
        fields = message.fields
        if "close" in fields:
            if self._runtime is not None:
                self._runtime.close()
            self._runtime = None
            gc.collect()
            return Message({"resident": _resident_bytes()})
        if self._runtime is None:
            self._runtime = _open(message)
            return Message(
                {
                    "name": self._runtime.name,
                    "batch": self._runtime.batch,
                    "spec": self._runtime.spec.to_dict(),
                    "capabilities": asdict(self._runtime.capabilities),
                }
            )
        images = message.arrays["images"]
        if "detect" in fields:
            detections = self._runtime.detect(images, Thresholds(**fields["detect"]))
            return Message(arrays={name: getattr(detections, name) for name in DETECTIONS})
        if "head" in fields:
            return Message(arrays={"head": self._runtime.head(images)})
        return Message(arrays=self._runtime.tensors(images, fields["tensors"]))


def _open(message: Message) -> Runtime:
    fields = message.fields
    if fields["folder"] is not None:
        os.chdir(fields["folder"])  # the caller's may be another than it was for the model before
    model = ModelFile(Path(fields["path"]), message.arrays["model"].tobytes(), fields["format"])
    opened: Runtime = import_module(fields["module"]).open_model(model, RuntimeChoices.from_dict(fields["choices"]))
    return opened


def _resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
