"""A piece of work in a process of its own: what it runs may take the process down with it, and ours goes on.

A module that works apart has a function from ``Message`` to ``Message``; its caller uses ``call_apart``, and its ``__main__``
part hands the function to ``serve_apart``. Numbers travel as arrays in files, the rest as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

TOLD = "told"  # the array that holds the JSON


class ProcessEndedError(Exception):
    """The process ended before it answered; the message says how, with the last words of its stderr."""


@dataclass(frozen=True, eq=False)
class Message:
    """What goes there or comes back.

    Attributes:
        told: what JSON can hold.
        arrays: by names other than ``"told"``, of any numeric dtype.
    """

    told: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def call_apart(worker: Sequence[str], message: Message) -> Message:
    """Let a module of this package answer in a process of its own.

    Args:
        worker: this interpreter's arguments, such as ``("-m", "xdet.checking.runs")``.
        message: what it is asked.

    Raises:
        ProcessEndedError: it gave no answer.
    """
    with tempfile.TemporaryDirectory(prefix="xdet-apart-") as folder:
        request, answer = Path(folder) / "request.npz", Path(folder) / "answer.npz"
        _write(request, message)
        process = subprocess.run(  # noqa: S603 - this interpreter, our own module
            [sys.executable, *worker, str(request), str(answer)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if answer.is_file():
            return _read(answer)
    words = " ".join(process.stderr.split())[-200:]
    raise ProcessEndedError(f"code {process.returncode}{': ' + words if words else ''}")


def serve_apart(work: Callable[[Message], Message]) -> None:
    """The other side: answer the request that the command line names."""
    request, answer = map(Path, sys.argv[1:])
    whole = answer.with_suffix(".part.npz")
    _write(whole, work(_read(request)))
    whole.replace(answer)


def _write(path: Path, message: Message) -> None:
    np.savez(path, **{TOLD: np.array(json.dumps(message.told)), **message.arrays})  # type: ignore[arg-type]  # arrays all


def _read(path: Path) -> Message:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Message(json.loads(str(arrays.pop(TOLD))), arrays)
