"""A function of this package in a subprocess: what it runs may crash there, and this process goes on.

``Worker("module:name")`` starts this interpreter, which imports the module and calls the function for every
``Message``. A class is instantiated first, so that it can keep what it opened. Messages travel through pipes: JSON, and
the bytes of arrays. An ``XdetError`` that the function raises is raised here. The subprocess prints to no terminal: its
stdout joins its stderr, which is kept for the message of a crash. It ends with its input, and by Ctrl-C.

An idle worker may be kept for the next caller who needs its like (``keep_idle``, ``take_idle``): one per kind, of this
process alone, until it exits.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from threading import Timer
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from xdet import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from numpy.typing import NDArray

LENGTH = struct.Struct("<Q")
WORDS = 200  # characters of stderr in a message
STARTUP = ("-P", "-m", "xdet.runtimes.worker")  # -P: no module of the working directory is imported by its name


class SubprocessEndedError(Exception):
    """The subprocess ended before it answered; the message says how, with the last words of its stderr."""


@dataclass(frozen=True, eq=False)
class Message:
    """What goes there or comes back."""

    fields: Mapping[str, Any] = field(default_factory=dict)  # what JSON can hold
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # of any numeric dtype, by name


class Worker:
    """A subprocess that answers messages, one at a time; a context manager that ends it.

    Args:
        target: ``"module:name"`` of a function from ``Message`` to ``Message``, or of a class whose objects are called
            so.
        python: the interpreter, instead of this one.
        environment: what it gets beside this process's.
    """

    def __init__(self, target: str, *, python: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        paths = [path or str(os.getcwd()) for path in sys.path]  # noqa: PTH109 - "" in sys.path is this folder
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - _end closes it
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [python or sys.executable, *STARTUP, target],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self._owner = os.getpid()
        self.stop = weakref.finalize(self, _end, self._process, self._stderr, self._owner)

    def ask(self, message: Message, *, longest_s: float | None = None) -> Message:
        """Send a message and wait for its answer; after ``longest_s`` seconds the subprocess is killed.

        Raises:
            SubprocessEndedError: it gave no answer.
            XdetError: the function raised it.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if not self.stop.alive or stdin is None or stdout is None:
            raise SubprocessEndedError("it was stopped")
        limit = None if longest_s is None else Timer(longest_s, self._process.kill)
        if limit is not None:
            limit.start()
        try:
            _write(stdin, message)
            answer = _read(stdout)
        except (OSError, EOFError) as error:
            raise SubprocessEndedError(self._last_words()) from error
        except BaseException:  # an interrupt leaves half a message in the pipe
            self.stop()
            raise
        finally:
            if limit is not None:
                limit.cancel()
        if "error" in answer.fields:
            kind, arguments = answer.fields["error"]
            raised: errors.XdetError = getattr(errors, kind)(*arguments)
            raise raised
        return answer

    @property
    def is_ready(self) -> bool:
        """Whether it runs, and is this process's: a fork has copies of what its parent started."""
        return self.stop.alive and self._owner == os.getpid() and self._process.poll() is None

    def forget_words(self) -> None:
        """Empty what it has written to stderr so far."""
        self._stderr.seek(0)
        self._stderr.truncate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _last_words(self) -> str:
        """How the subprocess ended, and the last line of its stderr."""
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").splitlines()
        words = [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("INFO:")]
        return f"{how}{': ' + words[-1][-WORDS:] if words else ''}"


def call_in_subprocess(
    target: str,
    message: Message,
    *,
    longest_s: float | None = None,
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Message:
    """Ask a new ``Worker`` one thing and end it; raises as ``Worker.ask``."""
    with Worker(target, python=python, environment=environment) as worker:
        return worker.ask(message, longest_s=longest_s)


_idle: dict[str, tuple[Hashable, Worker]] = {}


def keep_idle(kind: str, settings: Hashable, worker: Worker) -> None:
    """Keep an idle worker; another of its kind ends. ``settings`` are those that hold for as long as it runs."""
    before = _idle.pop(kind, None)  # each step by itself is safe among threads
    _idle[kind] = settings, worker
    if before is not None:
        before[1].stop()


def take_idle(kind: str, settings: Hashable) -> Worker | None:
    """A worker that was kept, if it still runs and has these settings; one of others ends."""
    kept, worker = _idle.pop(kind, (None, None))
    if worker is not None and kept == settings and worker.is_ready:
        worker.forget_words()
        return worker
    if worker is not None:
        worker.stop()
    return None


def main() -> None:
    """The subprocess: answer messages until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, whatever library holds the thread
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no message
    module, _, name = sys.argv[1].partition(":")
    target = getattr(import_module(module), name)
    answer: Callable[[Message], Message] = target() if isinstance(target, type) else target
    while True:
        try:
            message = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = answer(message)
        except errors.MissingExtraError as error:
            result = Message({"error": ["MissingExtraError", [error.what, error.extra]]})
        except errors.XdetError as error:
            result = Message({"error": [type(error).__name__, list(error.lines)]})
        _write(answers, result)


def _write(stream: IO[bytes], message: Message) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    # ascontiguousarray makes (1,) of an array without dimensions
    layout = [[name, arrays[name].dtype.str, message.arrays[name].shape] for name in arrays]
    head = json.dumps({"fields": dict(message.fields), "arrays": layout}).encode()
    stream.write(LENGTH.pack(len(head)) + head)
    for array in arrays.values():
        stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def _read(stream: IO[bytes]) -> Message:
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
    head = json.loads(_exactly(stream, length))
    arrays = {}
    for name, dtype, shape in head["arrays"]:
        kind = np.dtype(dtype)
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(_exactly(stream, size), kind).reshape(shape)
    return Message(head["fields"], arrays)


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)  # writable, as arrays of a runtime are
    view, done = memoryview(data), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]  # of every buffered stream
        if not count:
            raise EOFError(f"{done} of {size} bytes")
        done += count
    return data


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes], owner: int) -> None:
    """Kill the subprocess, which has nothing to save, and close its pipes; a fork of its owner closes its copies."""
    if owner == os.getpid():
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, stderr):
        if pipe is not None:
            with suppress(OSError):  # what was buffered for a process that is gone
                pipe.close()


if __name__ == "__main__":
    main()
