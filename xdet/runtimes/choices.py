"""How a model is to be run: on which back end, with which provider or kernels, with how many threads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdet.errors import UsageError
from xdet.processors import require_workers

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RuntimeChoices:
    """What a caller chooses; None leaves it to xdet or to the back end.

    Attributes:
        runtime: a name of ``xdet.runtimes.opening.RUNTIMES``; None is the one for the file's format.
        provider: execution provider of ONNX Runtime, kernels of LiteRT; None is the back end's usual one.
        threads: threads inside an operator, at least 1; None is the back end's default.
        workers: threads that will call the runtime, 1 to 64; with several, the default of ``threads`` leaves processors for
            each of them.
        provider_options: of ONNX Runtime's execution provider, as its documentation names them; handed on as they are.
        device: of ONNX Runtime's execution provider, as ``xdet providers`` lists it; None is the provider's choice.
    """

    runtime: str | None = None
    provider: str | None = None
    threads: int | None = None
    workers: int = 1
    provider_options: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None

    def __post_init__(self) -> None:
        require_workers(self.workers)
        most = most_threads()
        if self.threads is not None and not 1 <= self.threads <= most:
            bound = "at least 1" if self.threads < 1 else f"at most {most} here, four per processor"
            raise UsageError(
                f"threads must be {bound}, got {self.threads}; leave it out for the runtime's default"
            )


def most_threads() -> int:
    """The most threads that can be asked for: four per processor, at least 16; each takes memory, used or not."""
    return max(16, 4 * (os.cpu_count() or 1))
