"""Any runtime of the table in a subprocess: native code that crashes on a hostile or broken file ends it, and nothing else.

Before -> after: a row's ``Runtime`` in this process -> the same runtime behind pipes, one subprocess per opened runtime.
Numeric effect: none; arrays come back as they are.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.heads.base import BatchDetections
from converters.spec import DetectorSpec, Thresholds
from xdet.errors import RuntimeCrashedError, UsageError
from xdet.model.file import ModelFile, hash_model
from xdet.runtimes.base import Capabilities, Runtime
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.worker import Message, SubprocessEndedError, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DETECTIONS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")


class SubprocessRuntime(Runtime):
    """A model that is open on a runtime in a subprocess; for one thread at a time.

    Args:
        model: the file, which the subprocess gets as bytes; it reads the sidecar beside a source itself.
        choices: with the runtime's name and provider.
        module: the module behind the runtime's row.

    Raises:
        RuntimeCrashedError: the subprocess ended while it opened the model.
        XdetError: as the module's ``open_model`` raises.
    """

    def __init__(self, model: ModelFile, choices: RuntimeChoices, module: str) -> None:
        self._model, self._asked = model, f"{choices.runtime}:{choices.provider}"
        self._worker = Worker("xdet.runtimes.subprocess_runtime:ServedRuntime")
        fields = {
            "module": module,
            "path": str(model.path),
            "format": model.format,
            "choices": {**asdict(replace(choices, spec=None, provider_options={}))},
            "provider_options": dict(choices.provider_options),
            "spec": None if choices.spec is None else choices.spec.to_dict(),
        }
        try:
            opened = self._ask("opening it", fields, {"model": np.frombuffer(model.data, np.uint8)}).fields
        except BaseException:  # whatever it is, it must leave no subprocess behind; it goes on
            self._worker.stop()
            raise
        self._name: str = opened["name"]
        self._batch: int | None = opened["batch"]
        self._spec = DetectorSpec.from_dict(opened["spec"])
        self._capabilities = Capabilities(**opened["capabilities"])

    @property
    def name(self) -> str:
        """The runtime's own."""
        return self._name

    @property
    def file(self) -> str:
        """The model's name as messages give it."""
        return self._model.file

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, hex digits."""
        return hash_model(self._model.data)

    @property
    def spec(self) -> DetectorSpec:
        """The detector that the model holds."""
        return self._spec

    @property
    def capabilities(self) -> Capabilities:
        """The runtime's own."""
        return self._capabilities

    @property
    def batch(self) -> int | None:
        """Images per call, None for any number."""
        return self._batch

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes; see ``Runtime.detect``."""
        found = self._ask("finding boxes", {"detect": asdict(thresholds)}, {"images": images}).arrays
        return BatchDetections(*(found[name] for name in DETECTIONS))

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head; see ``Runtime.head``."""
        return self._ask("running it", {"head": True}, {"images": images}).arrays["head"]

    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Inner values by name; see ``Runtime.tensors``."""
        answer = self._ask("showing inner values", {"tensors": list(names)}, {"images": images})
        return {name: answer.arrays[str(i)] for i, name in enumerate(answer.fields["names"])}

    def close(self) -> None:
        """End the subprocess."""
        self._worker.stop()

    def _ask(self, doing: str, fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Message:
        if not self._worker.stop.alive:
            raise UsageError(f"'{self.file}' was closed; open it again")
        try:
            return self._worker.ask(Message(fields, arrays))
        except SubprocessEndedError as error:
            raise RuntimeCrashedError(
                f"'{self.file}': {self._asked} crashed while {doing}: its process ended with {error}; see that the file is "
                f"whole and of a maker whom you trust, or try another runtime"
            ) from error


class ServedRuntime:
    """The other side: the first message opens the model, every other one asks it for something."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def __call__(self, message: Message) -> Message:
        """Answer a message of ``SubprocessRuntime``."""
        fields = message.fields
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
            found = self._runtime.detect(images, Thresholds(**fields["detect"]))
            return Message(arrays={name: getattr(found, name) for name in DETECTIONS})
        if "head" in fields:
            return Message(arrays={"head": self._runtime.head(images)})
        shown = self._runtime.tensors(images, fields["tensors"])
        return Message({"names": list(shown)}, {str(i): array for i, array in enumerate(shown.values())})


def _open(message: Message) -> Runtime:
    fields = message.fields
    model = ModelFile(Path(fields["path"]), message.arrays["model"].tobytes(), fields["format"])
    choices = RuntimeChoices(**fields["choices"])
    spec = None if fields["spec"] is None else DetectorSpec.from_dict(fields["spec"])
    opened: Runtime = import_module(fields["module"]).open_model(
        model, replace(choices, spec=spec, provider_options=fields["provider_options"])
    )
    return opened
