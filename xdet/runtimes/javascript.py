"""A finished model on ONNX Runtime in JavaScript, in a process of Node or of a browser that is asked by frames.

``onnxruntime-node`` runs the CPU's kernels behind another language, ``onnxruntime-web`` what browsers run: ``wasm`` the
WebAssembly kernels in Node, ``chromium`` the same in a Chromium, and ``chromium-webgpu`` the WebGPU kernels there,
where it has an adapter.

An npm package is looked for in the folder that ``XDET_NODE_MODULES`` names, else in ``./node_modules``. The other end
is ``xdet/data/ort_core.mjs``, which describes the frames. The optional thresholds cannot be fed (the web's build
throws, Node's ignores them), so a file runs at its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from converters.spec import IMAGE
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.model.file import read_document
from xdet.model.wire import fixed_batch
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, require_graph_names, showing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

FOLDER = "XDET_NODE_MODULES"
DATA = Path(__file__).parent.parent / "data"
SCRIPT = DATA / "ort_node.mjs"
LENGTHS = struct.Struct("<II")
STOP_S = 5.0
IN_NODE = {"onnxruntime-node": ("cpu",), "onnxruntime-web": ("wasm",)}
IN_CHROMIUM = {"chromium": "wasm", "chromium-webgpu": "webgpu"}


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
            document = read_document(model.data, file=model.file)
            super().__init__(model, name=choices.name, document=document, batch=fixed_batch(model.data))
            self._own = self._shown = self._open(model.data)
            require_graph_names(self._own, document, file=model.file)
            undo.pop_all()

    def _open(self, model: bytes) -> list[str]:
        """Let the package load a file in the place of the one before; its outputs."""
        outputs: list[str] = self._ask({"op": "open"}, model)[0]["outputs"]
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


def open_model(model: ModelFile, choices: RuntimeChoices) -> JavaScriptRuntime:
    """Open a finished model in Node or in Chromium."""
    package, provider = find_package(str(choices.runtime)), str(choices.provider)
    if provider not in IN_CHROMIUM:
        return JavaScriptRuntime(model, choices, NodeProcess(package, provider))
    from xdet.runtimes.chromium import Chromium

    return JavaScriptRuntime(model, choices, Chromium(package, IN_CHROMIUM[provider]))


def providers(runtime: str) -> tuple[str, ...]:
    """Those whose program and package are here; whether there is an adapter for WebGPU shows only when it is opened."""
    from xdet.runtimes.chromium import find_chromium

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
