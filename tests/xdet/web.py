"""A web server on this machine: pictures, films, and what servers do wrong."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Site:
    """What a server has.

    Attributes:
        files: path to content type and bytes.
        moved: path to the address that it redirects to.
        parts: path to the JPEG files of an endless film, which ends when all were sent.
        asked: the paths that were asked for, with the Authorization header.
    """

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def patience() -> Iterator[None]:
    """Nobody gives up on a server of this machine, which may be busy with other work for longer than 10 s."""
    with mock.patch.multiple("xdet.pictures.video", OPENING_S=600.0, READING_S=600.0):
        yield


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The site at ``site.address`` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Authorization")))
            if self.path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[self.path])
                self.end_headers()
            elif self.path in site.parts:
                self._stream(site.parts[self.path])
            elif self.path in site.files:
                self._whole(*site.files[self.path])
            else:
                self.send_error(404)

        def _whole(self, kind: str, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data) + (99 if "cut" in self.path else 0)))
            self.end_headers()
            if "slow" in self.path:
                time.sleep(1.5)
            self.wfile.write(data)

        def _stream(self, parts: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for part in parts:
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(0.02)
            self.wfile.write(b"--next--\r\n")

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the reader has enough
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        with patience():
            yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
