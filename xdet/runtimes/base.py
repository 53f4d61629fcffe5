"""What every runtime offers and asks of its caller, how the caller has it run, and a vendor's exceptions as ours.

One photograph can keep every processor busy only inside its network, and a small network is soon short of work for two
threads. Many photographs share better: each worker takes one all the way (``xdet.pictures.preparation``), in a network
of few threads or one.
"""

from __future__ import annotations

import abc
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from converters.spec import PHOTOGRAPH_SIZE
from converters.spec.contract import is_older
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import hash_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from converters.description.statements import SourceOptions
    from converters.heads.base import BatchDetections
    from converters.spec import DetectorSpec, Thresholds
    from xdet.model.file import ModelFile

LONGEST = 1000  # characters of a vendor's message: compilers print whole graphs
MOST_WORKERS = 64
MOST_BY_DEFAULT = 8  # photographs at a time: one of a camera's takes some 100 MB while it is read


@dataclass(frozen=True, slots=True)
class RuntimeChoices:
    """What a caller chooses; None leaves it to xdet or to the back end."""

    runtime: str | None = None  # a name of xdet.runtimes.table.RUNTIMES; None is the one for the file's format
    provider: str | None = None  # execution provider of ONNX Runtime, kernels of LiteRT
    threads: int | None = None  # inside an operator, at least 1
    workers: int = 1  # threads that call it, 1 to 64; with several, the default of ``threads`` leaves room for each
    provider_options: Mapping[str, str] = field(default_factory=dict)  # of ONNX Runtime's provider, as they are
    device: str | None = None  # of ONNX Runtime's execution provider, as xdet providers lists it
    spec: DetectorSpec | None = None  # of a source, where its finished model describes it; else file and sidecar do
    source_options: SourceOptions | None = None  # what the caller says of a source; finished files describe themselves

    def __post_init__(self) -> None:
        require_workers(self.workers)
        most = most_threads()
        if self.threads is not None and not 1 <= self.threads <= most:
            bound = "at least 1" if self.threads < 1 else f"at most {most} here, four per processor"
            raise UsageError(f"threads must be {bound}, got {self.threads}; leave it out for the runtime's default")

    @property
    def name(self) -> str:
        """The runtime as reports name it: ``"litert:xnnpack"``, ``"onnxruntime:openvino (device=gpu, threads=2)"``."""
        settings = [f"device={self.device}"] if self.device else []
        settings += [f"{key}={value}" for key, value in sorted(self.provider_options.items())]
        return f"{self.runtime}:{self.provider}" + (f" ({', '.join(settings)})" if settings else "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, for another process."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}
        return {
            **values,
            "provider_options": dict(self.provider_options),
            "spec": None if self.spec is None else self.spec.to_dict(),
            "source_options": None if self.source_options is None else self.source_options.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What ``to_dict`` wrote."""
        from converters.description.statements import SourceOptions
        from converters.spec import DetectorSpec

        spec, source_options = data["spec"], data["source_options"]
        described = {
            "spec": None if spec is None else DetectorSpec.from_dict(spec),
            "source_options": None if source_options is None else SourceOptions.from_dict(source_options),
        }
        return cls(**{**data, **described})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runtime can do with the model it holds."""

    thresholds: bool  # it takes any score and IoU threshold at run time; otherwise only a higher score
    max_detections: int | None  # the most boxes per image that the model holds, or None where it sets no limit
    exact: bool  # the network runs in integer kernels that neither saturate nor fall back to float


class Runtime(abc.ABC):
    """A model that is open and ready on one back end; a context manager that closes it.

    Args:
        model: the file.
        name: back end and provider or kernels, as ``--runtimes`` takes them: ``"onnxruntime:cpu"``,
            ``"litert:xnnpack"``.
        spec: the detector that the model holds.
        capabilities: what this runtime can do with this model.
        batch: images per call of the back end, None for any number; ``detect`` takes any number in any case.

    Attributes:
        turns: what a thread that shares the runtime holds while it calls ``detect``: a lock, or nothing where several
            may call at the same time, and gain by it.
    """

    def __init__(
        self, model: ModelFile, *, name: str, spec: DetectorSpec, capabilities: Capabilities, batch: int | None
    ) -> None:
        self.name, self.spec, self.capabilities, self.batch = name, spec, capabilities, batch
        self.model, self._closed = model, False
        self.turns: AbstractContextManager[object] = Lock()

    @property
    def file(self) -> str:
        """The model's name as messages give it."""
        return self.model.file

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the model file's bytes, hex digits."""
        return hash_model(self.model.data)

    @abc.abstractmethod
    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes in uint8 images ``(N, height, width, channels)`` as the model takes them, N >= 1.

        A model of any size takes RGB photographs, all of one size in one call (``ImageInput.any_size``).

        Raises:
            UsageError: wrong images, or thresholds that this model cannot take.
            ModelError: the back end failed on the model.
        """

    @abc.abstractmethod
    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw outputs of uint8 ``(N, height, width, 3)`` as one array, float32.

        One output is ``(N, *shape)``; several are flattened side by side (``converters.heads.base.join_outputs``).

        Raises:
            UsageError: wrong images.
            ModelError: the back end failed on the model.
        """

    def network(self, images: NDArray[np.uint8]) -> object:
        """The raw outputs of ``batch`` images as the back end gives them, without checks: what a benchmark times."""
        return self.head(images)

    @abc.abstractmethod
    def tensors(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Inner values by the names they have in this runtime's file.

        Args:
            images: uint8 ``(N, height, width, 3)``.
            names: values that the graph computes.

        Returns:
            One array per name, in the file's dtype (codes where it is quantised) and layout, the images joined along
            the first axis.

        Raises:
            UsageError: names that the file does not hold, or wrong images.
            ModelError: the back end failed on the model.
        """

    def close(self) -> None:
        """Free what the back end holds; what is asked afterwards is a ``UsageError``. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._free()

    @abc.abstractmethod
    def _free(self) -> None:
        """Free what the back end holds."""

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError(f"'{self.file}' was closed; open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def vendor_errors(
    model: tuple[type[Exception], ...], runtime: tuple[type[Exception], ...] = (), *, file: str, doing: str, advice: str
) -> Iterator[None]:
    """Turn a back end's exceptions into ours, told in one line: what failed in ``doing``, and what to do.

    Those in ``model`` blame the model and become a ``ModelError``; those in ``runtime`` blame a device, driver or
    library and become a ``RuntimeUnavailableError``.
    """
    try:
        yield
    except runtime as error:
        raise RuntimeUnavailableError(f"'{file}': {doing}: {_one_line(error)}; {advice}") from error
    except model as error:
        raise ModelError(f"'{file}': {doing}: {_one_line(error)}; {advice}") from error


def require_images(images: NDArray[np.uint8], spec: DetectorSpec) -> None:
    """Refuse images that are not uint8 ``(N >= 1, height, width, channels)`` at network size, or RGB for any size."""
    expected: tuple[int | str, ...] = spec.image.shape
    advice = "resize them with xdet.pictures.images.resize_image"
    fits = images.ndim == 4 and images.shape[1:] == expected
    if spec.image.any_size:
        expected, fits = (*PHOTOGRAPH_SIZE, 3), images.ndim == 4 and images.shape[3] == 3
        advice = "give RGB photographs, all of one size in one call"
    if images.dtype != np.uint8 or not fits or not images.size:
        shape = ", ".join(map(str, expected))
        raise UsageError(
            f"expected images as uint8 (N, {shape}) with N of at least 1, found {images.dtype} {images.shape}; {advice}"
        )


def require_thresholds(requested: Thresholds, runtime: Runtime) -> None:
    """Refuse thresholds that the runtime's model cannot honour.

    Constants in a graph leave one freedom: a higher score threshold, because dropping low scores afterwards
    gives what suppression without them would have given (a box is only ever suppressed by a better one).
    """
    own, most = runtime.spec.thresholds, runtime.capabilities.max_detections
    if most is not None and requested.max_detections > most:
        raise UsageError(
            f"'{runtime.file}' holds at most {most} detections per image, {requested.max_detections} were asked; "
            f"ask for fewer, or convert the source again with `max_detections` {requested.max_detections}"
        )
    if runtime.capabilities.thresholds:
        return
    again = "convert the source again without `freeze_thresholds`"
    if requested.iou != own.iou:
        raise UsageError(
            f"'{runtime.file}' has its IoU threshold frozen at {own.iou}, {requested.iou} was asked; "
            f"leave it out, or {again}"
        )
    if requested.score < own.score:
        raise UsageError(
            f"'{runtime.file}' has its score threshold frozen at {own.score}, {requested.score} is below it; "
            f"ask for {own.score} or more, or {again}"
        )


def _one_line(error: Exception) -> str:
    """A vendor's message without line breaks and without ONNX Runtime's code prefix; of a long one, its beginning."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", text).rstrip(". ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def require_release(title: str, installed: str, oldest: str, *, extra: str, why: str) -> None:
    """Refuse a release of a back end that is older than xdet knows it, by name.

    Raises:
        RuntimeUnavailableError: says both releases, why, and the line to type.
    """
    if is_older(installed, oldest):
        raise RuntimeUnavailableError(
            f"{title} {installed} is installed, expected {oldest} or newer: {why}; install it with: "
            f'pip install --upgrade "xdet[{extra}]"'
        )


def usable_processors() -> int:
    """Logical processors that this process is allowed to run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_workers(workers: int | None = None) -> int:
    """Photographs to work on at the same time: as many as are requested, else one per processor, eight at most."""
    if workers is None:
        return min(MOST_BY_DEFAULT, usable_processors())
    require_workers(workers)
    return workers


def require_workers(workers: int) -> None:
    """Refuse a number of workers out of range."""
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"`workers` must lie in 1..{MOST_WORKERS}, got {workers}; leave it out for one per processor")


def threads_per_network(workers: int) -> int:
    """Threads inside an operator where every worker runs its own photograph through the network."""
    return max(1, usable_processors() // workers)


def threads_of_one_network(workers: int) -> int:
    """Threads inside an operator where one worker is in the network; others read, on at most half of the processors."""
    return max(1, usable_processors() - min(workers - 1, usable_processors() // 2))


def most_threads() -> int:
    """The most threads that can be asked for: four per processor, at least 16; each takes memory, used or not."""
    return max(16, 4 * (os.cpu_count() or 1))
