"""Headless Chromium for tests, over the pipe of its DevTools protocol: nothing but the browser is needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import http.server
import itertools
import json
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_S = 60.0


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder's address on localhost, until the block ends."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: the test says what went wrong."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def _far(pipe: tuple[int, int]) -> tuple[int, int]:
    """The same pipe at numbers that stay out of the way of 3 and 4."""
    moved = fcntl.fcntl(pipe[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(pipe[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for number in pipe:
        os.close(number)
    return moved


class Browser:
    """One tab of a headless Chromium with a profile of its own; a context manager that ends it."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_read, self._write = _far(os.pipe())
        self._read, theirs_write = _far(os.pipe())
        arguments = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--user-data-dir={profile}",
        ]  # fmt: skip
        files = [
            (os.POSIX_SPAWN_DUP2, theirs_read, 3),  # where the browser looks for the pipe
            (os.POSIX_SPAWN_DUP2, theirs_write, 4),
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)),
        ]
        self._process = os.posix_spawn(program, arguments, os.environ, file_actions=files, setsid=True)
        os.close(theirs_read)
        os.close(theirs_write)
        self._numbers = itertools.count(1)
        self._waiting = b""
        self.errors: list[str] = []  # uncaught exceptions and refusals of the page's security policy
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._read], [], [], ANSWER_S)
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser ended"
            self._waiting += piece
        first, _, self._waiting = self._waiting.partition(b"\0")
        event: dict[str, Any] = json.loads(first)
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        entry = event.get("params", {}).get("entry", {}) if event.get("method") == "Log.entryAdded" else {}
        if entry.get("source") == "security":
            self.errors.append(entry["text"])
        return event

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; of a promise, what it resolves to."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = ANSWER_S) -> Any:
        """Wait until an expression is true in the page, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}; the page says {self.status()!r}"
            time.sleep(0.02)
        return value

    def open(self, address: str) -> None:
        """Go to an address and wait until its document has been read."""
        self.send("Page.navigate", url=address)
        self.wait_for(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input of the page, as a person would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def status(self) -> str:
        """What the page says to people."""
        return str(self.evaluate("document.getElementById('status')?.textContent ?? ''"))

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the screen in CSS pixels, and its colours."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[colours])

    def screenshot(self, path: Path) -> None:
        """The page as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))
