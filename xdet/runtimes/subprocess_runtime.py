"""A runtime of the table, or a function of this package, in a subprocess: what crashes there ends that alone.

``Worker("module:name")`` starts this interpreter, which imports the module and calls the function for every
``Message``. A class is instantiated first, so that it can keep what it opened. Messages travel through pipes: JSON, and
the bytes of arrays. An ``XdetError`` that the function raises is raised here. The subprocess prints to no terminal: its
stdout joins its stderr, which is kept for the message of a crash. It ends with its input, and by Ctrl-C.

Before -> after: a row's ``Runtime`` in this process -> the same runtime behind pipes, one subprocess per opened
runtime. Numeric effect: none; arrays come back as they are.

Starting one costs 0.4 s, and TensorFlow's 4. So a runtime that is closed leaves its subprocess to the next model of the
same row, unless it holds more than ``MOST_KEPT_BYTES``: one per kind is kept, of this process alone, until it exits. A
subprocess that ran other models before and crashes while it opens one may crash for their sake: the model is opened
once more, in a new one.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from converters.heads.base import BatchDetections
from converters.spec import DetectorSpec, Thresholds
from xdet import errors
from xdet.errors import RuntimeCrashedError, RuntimeUnavailableError, XdetError
from xdet.model.file import ModelFile, read_model_file
from xdet.runtimes.base import Capabilities, Runtime, RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

MOST_KEPT_BYTES = 1 << 30  # of an idle subprocess: TensorFlow with a small network has 0.6 GB
CLOSING_S = 10.0
RUNS = 3  # of a model whose memory is measured
DETECTIONS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")
SERVED = "xdet.runtimes.subprocess_runtime:ServedRuntime"
LENGTH = struct.Struct("<Q")
WORDS = 200  # characters of stderr in a message
STARTUP = ("-P", "-m", "xdet.runtimes.subprocess_runtime")  # -P: imports nothing from the working directory


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


def measure_memory(request: Message) -> Message:
    """The memory that this process takes before and while it opens ``model`` and runs it three times.

    It stands here since little else is loaded then: nothing but numpy and what every runtime needs.
    """
    import psutil  # the caller has looked that it is installed

    from xdet.runtimes.table import open_model

    try:
        before = int(psutil.Process().memory_info().rss)
    except psutil.Error as error:
        raise RuntimeUnavailableError("the system tells no process' memory; is /proc mounted?") from error
    model = read_model_file(Path(request.fields["model"]))
    with open_model(model, RuntimeChoices.from_dict(request.fields["choices"]), subprocess=False) as opened:
        image = opened.spec.image
        pixels = image.as_fed(np.zeros((opened.batch or 1, *image.shape), np.uint8))
        for _ in range(RUNS):
            opened.detect(pixels, opened.spec.thresholds)
        return Message({"before_bytes": before, "peak_bytes": _peak_bytes(psutil)})


def _peak_bytes(psutil: Any) -> int:
    """The highest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, which counts the process that started this one, too
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return peaks[0]
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS counts bytes


def _resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
