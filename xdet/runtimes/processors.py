"""How a model is to be run (``RuntimeChoices``), and how many processors a stream of photographs may share.

One photograph can keep every processor busy only inside its network, and a small network is soon short of work for two
threads. Many photographs share better: each worker takes one all the way (``xdet.pictures.preparation``), in a network
of few threads or one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from xdet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.description.statements import SourceOptions
    from converters.spec import DetectorSpec

MOST_WORKERS = 64
MOST_BY_DEFAULT = 8  # photographs at a time: one of a camera's takes some 100 MB while it is read


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


@dataclass(frozen=True, slots=True)
class RuntimeChoices:
    """What a caller chooses; None leaves it to xdet or to the back end."""

    runtime: str | None = None  # a name of xdet.runtimes.table.RUNTIMES; None is the one for the file's format
    provider: str | None = None  # execution provider of ONNX Runtime, kernels of LiteRT
    threads: int | None = None  # inside an operator, at least 1
    workers: int = (
        1  # threads that call the runtime, 1 to 64; with several, the default of threads leaves room for each
    )
    provider_options: Mapping[str, str] = field(
        default_factory=dict
    )  # of ONNX Runtime's provider; handed on as they are
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


def most_threads() -> int:
    """The most threads that can be asked for: four per processor, at least 16; each takes memory, used or not."""
    return max(16, 4 * (os.cpu_count() or 1))
