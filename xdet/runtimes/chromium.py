"""A Chromium that answers frames: a page of ours in it fetches them from a server of ours, on this host alone.

``xdet/data/ort_page.html`` is the page. The server listens on the loopback address, under a path that nobody can guess,
and serves the page, its script and the npm package's files. Chromium is the program that ``XDET_CHROMIUM`` names, else
the first of ``PROGRAMS`` on the PATH; its profile is a temporary folder.
"""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import subprocess
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

from xdet.errors import RuntimeUnavailableError
from xdet.runtimes.javascript import DATA, Peer, end_process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VARIABLE = "XDET_CHROMIUM"
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


class Chromium(Peer):
    """A headless Chromium with our page; ``provider`` is ``"wasm"`` or ``"webgpu"``.

    Raises:
        RuntimeUnavailableError: there is none, it does not start, or it has no adapter for WebGPU.
    """

    def __init__(self, package: Path, provider: str) -> None:
        program = find_chromium()
        if program is None:
            raise RuntimeUnavailableError(
                f"Chromium is not on the PATH; install it (Debian: apt-get install chromium), or let {VARIABLE} name it"
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


class _Server:
    """Serves the page and the package, and hands frames over."""

    def __init__(self, package: Path) -> None:
        self.requests: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[bytes] = queue.Queue()
        prefix = f"/{secrets.token_urlsafe(16)}"
        files = {f"{prefix}/{name}": DATA / name for name in ("ort_page.html", "ort_core.mjs")}
        files |= {f"{prefix}/package/{path.name}": path for path in package.iterdir() if path.suffix in TYPES}
        requests, answers = self.requests, self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = files.get(self.path)
                if file is None:
                    self.send_error(404)
                else:
                    self._send(file.read_bytes(), TYPES[file.suffix])

            def do_POST(self) -> None:
                if self.path != f"{prefix}/next":
                    self.send_error(404)
                    return
                answers.put(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(requests.get(), "application/octet-stream")

            def _send(self, content: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}{prefix}"
        Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.requests.put(b"")  # the page's loop ends
        self._http.shutdown()
        self._http.server_close()


def find_chromium() -> str | None:
    """The program to start."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, PROGRAMS)), None)
