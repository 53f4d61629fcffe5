"""A finished model on ONNX Runtime Web: the WebAssembly kernels that browsers run, in a Node process.

The npm package is looked for in the folder that ``XDET_NODE_MODULES`` names, else in ``./node_modules``.
``xdet/data/ort_web.mjs`` is the other end of the pipe and describes its frames. WebAssembly cannot feed the optional thresholds
(the package throws), so a file runs at its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from converters.heads.base import is_raw_output
from converters.spec import IMAGE
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.model.metadata import read_document
from xdet.model.wire import FLOAT, UNTOLD, with_outputs
from xdet.runtimes.finished import FinishedModelRuntime, Outputs, require_graph_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

PACKAGE = "onnxruntime-web"
FOLDER = "XDET_NODE_MODULES"
SCRIPT = Path(__file__).parent.parent / "data" / "ort_web.mjs"
LENGTHS = struct.Struct("<II")
STOP_S = 5.0


class OrtWebRuntime(FinishedModelRuntime):
    """A finished model in ONNX Runtime Web; for one thread at a time.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        document: what its metadata says.

    Raises:
        RuntimeUnavailableError: Node or the package is not there.
        ModelError: the package cannot load the file.
    """

    def __init__(self, model: bytes, *, file: str, document: ModelDocument) -> None:
        self._file = file
        self._node = _NodeProcess(find_package(), file=file)
        try:
            opened, _ = self._node.ask({"op": "open"}, model)
            require_graph_names(opened["outputs"], document, file=file)
        except BaseException:
            # An interrupt, too, must not leave the Node process behind; whatever came goes on.
            self._node.stop()
            raise
        self._shown: tuple[str, ...] = tuple(opened["outputs"])
        super().__init__(model, file=file, document=document, batch=opened["batch"])

    @property
    def name(self) -> str:
        """``onnxruntime-web:wasm``."""
        return "onnxruntime-web:wasm"

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        hidden = [name for name in names if name not in self._shown]
        if hidden:
            more = [(name, FLOAT if is_raw_output(name) else UNTOLD) for name in hidden]
            opened, _ = self._node.ask({"op": "open"}, with_outputs(self._model, more))
            self._shown = tuple(opened["outputs"])
        image = np.ascontiguousarray(feeds[IMAGE])
        answer, body = self._node.ask(
            {"op": "run", "dims": list(image.shape), "names": list(names)}, image.tobytes()
        )
        arrays, start = [], 0
        for tensor in answer["tensors"]:
            piece = body[start : start + tensor["size"]]
            arrays.append(np.frombuffer(piece, tensor["dtype"]).reshape(tensor["dims"]))
            start += tensor["size"]
        return arrays

    def _free(self) -> None:
        self._node.stop()


class _NodeProcess:
    """Node with ``ort_web.mjs``, asked one thing at a time; what it prints on stderr is kept for messages."""

    def __init__(self, package: Path, *, file: str) -> None:
        self._file = file
        node = shutil.which("node")
        if node is None:
            raise RuntimeUnavailableError(
                "ONNX Runtime Web needs Node, which is not on the PATH; install it from nodejs.org"
            )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603 - Node from the PATH, our own script, a folder the user named
            [node, str(SCRIPT), str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def ask(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a frame and wait for its answer."""
        text = json.dumps(header).encode()
        try:
            stdin, stdout = self._pipes()
            stdin.write(LENGTHS.pack(len(text), len(body)) + text + body)
            stdin.flush()
            head_size, body_size = LENGTHS.unpack(_read(stdout, LENGTHS.size))
            answer, content = json.loads(_read(stdout, head_size)), _read(stdout, body_size)
        except (OSError, EOFError) as error:
            raise RuntimeUnavailableError(
                f"'{self._file}': ONNX Runtime Web ended: {self._last_words()}; see that the Node package "
                f"{PACKAGE} is whole: npm install {PACKAGE}"
            ) from error
        if "error" in answer:
            what = " ".join(str(answer["error"]).split())
            raise ModelError(
                f"'{self._file}': ONNX Runtime Web failed on it: {what}; see that the file is a complete ONNX model"
            )
        return answer, content

    def stop(self) -> None:
        """End the process: its input is closed; it is killed if it does not follow."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        return stdin, stdout

    def _last_words(self) -> str:
        """The error that the process told on stderr, on one line."""
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if re.match(r"\w*Error: ", line)] or lines[-1:]
        return errors[0].strip() if errors else f"exit code {self._process.returncode}"


def find_package() -> Path:
    """The folder of the npm package.

    Raises:
        RuntimeUnavailableError: it is not installed; gives the line to type.
    """
    named = os.environ.get(FOLDER)
    modules = Path(named) if named else Path("node_modules")
    package = (modules / PACKAGE).absolute()
    if not (package / "package.json").is_file():
        raise RuntimeUnavailableError(
            f"ONNX Runtime Web is not in '{modules}'; install it with: npm install {PACKAGE}, in the working directory, "
            f"or let {FOLDER} name the node_modules folder that holds it"
        )
    return package


def open_model(model: ModelFile, choices: RuntimeChoices) -> OrtWebRuntime:  # noqa: ARG001 - there is no choice
    """Open a finished model in Node."""
    return OrtWebRuntime(model.data, file=model.file, document=read_document(model.data, file=model.file))


def providers() -> tuple[str, ...]:
    """``("wasm",)`` where Node and the package are here, else nothing."""
    try:
        find_package()
    except RuntimeUnavailableError:
        return ()
    return ("wasm",) if shutil.which("node") else ()


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data
