"""A finished model on ONNX Runtime in JavaScript, in a process of Node or of a browser that is asked by frames.

``onnxruntime-node`` runs the CPU's kernels behind another language, ``onnxruntime-web`` what browsers run: ``wasm`` the
WebAssembly kernels in Node, ``chromium`` the same in a Chromium, and ``chromium-webgpu`` the WebGPU kernels there,
where it has an adapter.

An npm package is looked for in the folder that ``XDET_NODE_MODULES`` names, else in ``./node_modules``. The other end
is ``xdet/data/ort_core.mjs``, which describes the frames. The optional thresholds cannot be fed (the web's build
throws, Node's ignores them), so a file runs at its own.

Chromium is the program that ``XDET_CHROMIUM`` names, else the first of ``PROGRAMS`` on the PATH; its profile is a
temporary folder. ``xdet/data/ort_page.html`` is its page, which fetches frames from a server of ours. That one listens
on the loopback address, under a path that nobody can guess, and serves the page, its script and the package's files.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from converters.spec import IMAGE
from converters.spec.document import INT8_ENTRY
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.model.wire import fixed_batch
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, showing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

FOLDER = "XDET_NODE_MODULES"  # names the node_modules folder
DATA = Path(__file__).parent.parent / "data"
SCRIPT = DATA / "ort_node.mjs"
LENGTHS = struct.Struct("<II")
STOP_S = 5.0
IN_NODE = {"onnxruntime-node": ("cpu",), "onnxruntime-web": ("wasm",)}
IN_CHROMIUM = {"chromium": "wasm", "chromium-webgpu": "webgpu"}
CHROMIUM = "XDET_CHROMIUM"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--no-default-browser-check",
)
GPU_FLAGS: Mapping[str, tuple[str, ...]] = {
    "wasm": ("--disable-gpu",),
    "webgpu": ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"),
}
TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}
START_S = 60.0
ANSWER_S = 600.0  # a page that crashed says nothing
POLL_S = 0.2


class Peer(Protocol):
    """A process that answers frames, one at a time."""

    def exchange(self, frame: bytes) -> bytes:
        """Send a frame and wait for its answer.

        Raises:
            OSError, EOFError: the process ended.
        """

    def last_words(self) -> str:
        """Why it ended, on one line."""

    def stop(self) -> None:
        """End it."""


class JavaScriptRuntime(FinishedModelRuntime):
    """A finished model in ONNX Runtime's JavaScript; for one thread at a time. It ends the peer.

    Raises:
        ModelError: the package cannot load the file.
        RuntimeUnavailableError: the process ended.
    """

    def __init__(self, model: ModelFile, choices: RuntimeChoices, peer: Peer) -> None:
        self._package, self._peer = str(choices.runtime), peer  # runtimes are called as their packages
        with ExitStack() as undo:
            undo.callback(peer.stop)  # an interrupt, too, leaves no process behind
            super().__init__(model, choices.name, batch=fixed_batch(model.data))
            self._own = self._shown = self._open(model.data)
            self._require_outputs(self._own)
            undo.pop_all()

    def _open(self, model: bytes) -> list[str]:
        """Let the package load a file in the place of the one before; its outputs."""
        header = {"op": "open", "extra": session_extra(self.document)}
        outputs: list[str] = self._ask(header, model)[0]["outputs"]
        return outputs

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        if not set(names) <= set(self._shown):
            self._shown = self._open(showing(self.model.data, [name for name in names if name not in self._own]))
        image = np.ascontiguousarray(feeds[IMAGE])
        answer, body = self._ask({"op": "run", "dims": list(image.shape), "names": list(names)}, image.tobytes())
        arrays, start = [], 0
        for tensor in answer["tensors"]:
            piece = body[start : start + tensor["size"]]
            arrays.append(np.frombuffer(piece, tensor["dtype"]).reshape(tensor["dims"]))
            start += tensor["size"]
        return arrays

    def _ask(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        text = json.dumps(header).encode()
        try:
            reply = self._peer.exchange(LENGTHS.pack(len(text), len(body)) + text + body)
        except (OSError, EOFError) as error:
            raise RuntimeUnavailableError(
                f"'{self.file}': {self._package} ended: {self._peer.last_words()}; see that the Node package "
                f"{self._package} is whole: npm install {self._package}"
            ) from error
        size, _ = LENGTHS.unpack_from(reply)
        answer: dict[str, Any] = json.loads(reply[LENGTHS.size : LENGTHS.size + size])
        if "error" in answer:
            what = " ".join(str(answer["error"]).split())
            raise ModelError(
                f"'{self.file}': {self._package} failed on it: {what}; see that the file is a complete ONNX model"
            )
        return answer, reply[LENGTHS.size + size :]

    def _free(self) -> None:
        self._peer.stop()


class NodeProcess(Peer):
    """Node with ``ort_node.mjs``; what it prints on stderr is kept for messages.

    Raises:
        RuntimeUnavailableError: Node is not there.
    """

    def __init__(self, package: Path, provider: str) -> None:
        node = shutil.which("node")
        if node is None:
            raise RuntimeUnavailableError(
                f"{package.name} needs Node, which is not on the PATH; install it from nodejs.org"
            )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(  # noqa: S603 - Node from the PATH, our own script, a folder the user named
            [node, str(SCRIPT), str(package), provider],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def exchange(self, frame: bytes) -> bytes:
        """See ``Peer``."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        stdin.write(frame)
        stdin.flush()
        sizes = _read(stdout, LENGTHS.size)
        return sizes + _read(stdout, sum(LENGTHS.unpack(sizes)))

    def last_words(self) -> str:
        """See ``Peer``."""
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if re.match(r"\w*Error: ", line)] or lines[-1:]
        return errors[0].strip() if errors else f"exit code {self.process.returncode}"

    def stop(self) -> None:
        """End the process: its input is closed; it is killed if it does not follow."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        end_process(self.process)
        self._stderr.close()


class Chromium(Peer):
    """A headless Chromium with our page; ``provider`` is ``"wasm"`` or ``"webgpu"``.

    Raises:
        RuntimeUnavailableError: there is none, it does not start, or it has no adapter for WebGPU.
    """

    def __init__(self, package: Path, provider: str) -> None:
        program = find_chromium()
        if program is None:
            raise RuntimeUnavailableError(
                f"Chromium is not on the PATH; install it (Debian: apt-get install chromium), or let {CHROMIUM} name it"
            )
        self._server = _Server(package / "dist")
        self._profile = tempfile.TemporaryDirectory(prefix="xdet-chromium-", ignore_cleanup_errors=True)
        root = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []  # its sandbox refuses root
        self._process = subprocess.Popen(  # noqa: S603 - a program the user named, or from the PATH, and our own page
            [
                program,
                *FLAGS,
                *GPU_FLAGS[provider],
                *root,
                f"--user-data-dir={self._profile.name}",
                f"{self._server.address}/ort_page.html#{provider}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            problem = self._next(START_S).decode("utf-8", "replace")
        except (EOFError, OSError) as error:
            self.stop()
            raise RuntimeUnavailableError(
                f"Chromium ('{program}') did not open our page: {error}; see that it starts with --headless"
            ) from error
        if problem:
            self.stop()
            raise RuntimeUnavailableError(f"Chromium has no WebGPU here: {problem}; use onnxruntime-web:chromium")

    def exchange(self, frame: bytes) -> bytes:
        """See ``Peer``."""
        self._server.requests.put(frame)
        return self._next(ANSWER_S)

    def last_words(self) -> str:
        """How the process ended: Chromium's own words are about its sandbox and its buses."""
        code = self._process.poll()
        return "Chromium's page ended" if code is None else f"Chromium ended with exit code {code}"

    def stop(self) -> None:
        """End the browser, the server and the profile."""
        self._server.stop()
        self._process.terminate()
        end_process(self._process)
        self._profile.cleanup()

    def _next(self, longest_s: float) -> bytes:
        """The next POST's body."""
        started = time.monotonic()
        while True:
            try:
                return self._server.answers.get(timeout=POLL_S)
            except queue.Empty:
                if self._process.poll() is not None:
                    raise EOFError(f"it ended with exit code {self._process.returncode}") from None
                if time.monotonic() - started > longest_s:
                    raise EOFError(f"nothing within {longest_s:.0f} s") from None


class _Server(ThreadingHTTPServer):
    """Serves the page and the package, and hands frames over."""

    daemon_threads = True

    def __init__(self, package: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[bytes] = queue.Queue()
        self.prefix = f"/{secrets.token_urlsafe(16)}"
        self.address = f"http://127.0.0.1:{self.server_port}{self.prefix}"
        self.files = {f"{self.prefix}/{name}": DATA / name for name in ("ort_page.html", "ort_core.mjs")}
        packed = (path for path in package.iterdir() if path.suffix in TYPES)
        self.files |= {f"{self.prefix}/package/{path.name}": path for path in packed}
        Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.requests.put(b"")  # the page's loop ends
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        file = self.server.files.get(self.path)
        if file is None:
            self.send_error(404)
        else:
            self._send(file.read_bytes(), TYPES[file.suffix])

    def do_POST(self) -> None:
        if self.path != f"{self.server.prefix}/next":
            self.send_error(404)
            return
        self.server.answers.put(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.server.requests.get(), "application/octet-stream")

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; kill it if it does not follow."""
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_package(name: str) -> Path:
    """The folder of an npm package.

    Raises:
        RuntimeUnavailableError: it is not installed; gives the line to type.
    """
    named = os.environ.get(FOLDER)
    modules = Path(named) if named else Path("node_modules")
    package = (modules / name).absolute()
    if not (package / "package.json").is_file():
        raise RuntimeUnavailableError(
            f"{name} is not in '{modules}'; install it with: npm install {name}, in the working directory, "
            f"or let {FOLDER} name the node_modules folder that holds it"
        )
    return package


def find_chromium() -> str | None:
    """The program to start."""
    named = os.environ.get(CHROMIUM)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, PROGRAMS)), None)


def session_extra(document: ModelDocument) -> dict[str, dict[str, str]]:
    """The session entries that a file needs, as ``SessionOptions.extra`` of ONNX Runtime's JavaScript nests them."""
    area, _, entry = INT8_ENTRY.partition(".")
    return {area: {entry: "1"}} if document.multiplies_in_float else {}


def open_model(model: ModelFile, choices: RuntimeChoices) -> JavaScriptRuntime:
    """Open a finished model in Node or in Chromium."""
    package, provider = find_package(str(choices.runtime)), str(choices.provider)
    if provider not in IN_CHROMIUM:
        return JavaScriptRuntime(model, choices, NodeProcess(package, provider))
    return JavaScriptRuntime(model, choices, Chromium(package, IN_CHROMIUM[provider]))


def providers(runtime: str) -> tuple[str, ...]:
    """Those whose program and package are here; whether there is an adapter for WebGPU shows only when it is opened."""
    try:
        find_package(runtime)
    except RuntimeUnavailableError:
        return ()
    in_node = IN_NODE[runtime] if shutil.which("node") else ()
    return (*in_node, "chromium") if runtime == "onnxruntime-web" and find_chromium() else in_node


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data
