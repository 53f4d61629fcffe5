"""An RTSP server for one film: MPEG transport stream in RTP, over the connection itself (RFC 2326, 10.12; RFC 2250)."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.xdet.web import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKETS = 7 * 188  # bytes of the stream in one RTP packet
TRANSPORT_STREAM = 33  # RTP's payload type
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
SDP += "m=video 0 RTP/AVP 33\r\nc=IN IP4 127.0.0.1\r\na=control:track\r\n"
ANSWERS = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
}


@contextmanager
def streaming(film: bytes) -> Iterator[str]:
    """The address of a server that plays ``film`` to everyone who asks, and then closes the connection."""
    with patience(), socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=_answer, args=(client, film)).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"


def _answer(client: socket.socket, film: bytes) -> None:
    with client, client.makefile("rb") as lines, suppress(OSError):
        while request := lines.readline().decode("ascii").split():
            headers = dict(line.decode("ascii").split(": ", 1) for line in iter(lines.readline, b"\r\n"))
            body = SDP if request[0] == "DESCRIBE" else ""
            head = f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq'].strip()}\r\n{ANSWERS.get(request[0], '')}\r\n{body}"
            client.sendall(head.encode("ascii"))
            if request[0] == "PLAY":
                for number, start in enumerate(range(0, len(film), PACKETS)):
                    packet = struct.pack(">BBHII", 0x80, TRANSPORT_STREAM, number & 0xFFFF, number, 1)
                    packet += film[start : start + PACKETS]
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                return
