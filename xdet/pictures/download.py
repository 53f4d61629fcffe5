"""Pictures at addresses: http and https, and stores that pyarrow reads.

Bounded in bytes, in time and in redirections, which never leave http and https.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from base64 import b64encode
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from xdet.errors import ImageError
from xdet.pictures.addresses import SCHEMES
from xdet.pictures.images import LARGEST_PICTURE
from xdet.writing.text import one_line, reason

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from xdet.pictures.addresses import Address

LARGEST_DOWNLOAD = 100 << 20  # bytes
SILENCE_S = 10.0  # without a byte from the server
LONGEST_DOWNLOAD_S = 60.0
_BLOCK = 1 << 16
_FILMS = re.compile(r"video/|multipart/x-mixed-replace|application/(vnd\.apple\.mpegurl|x-mpegurl)", re.IGNORECASE)


def is_film(address: Address) -> bool:
    """Whether the server calls it a video; False where it does not answer: fetching it tells why."""
    try:
        with _open(address) as response:
            return _FILMS.match(response.headers.get("Content-Type", "")) is not None
    except ImageError:
        return False


def fetch(address: Address) -> bytes:
    """The bytes behind an http or https address, or one in a store.

    Raises:
        ImageError: it is not there, there is no answer, too many bytes, or too slow.
    """
    if address.in_store:
        return _read_stored(address)
    until = time.monotonic() + LONGEST_DOWNLOAD_S
    blocks, size = [], 0
    with _open(address) as response:
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, HTTPException) as error:
                raise ImageError(f"cannot fetch '{address}': {_reason(error)}") from error
            if not block:
                break
            blocks.append(block)
            size += len(block)
            if size > LARGEST_DOWNLOAD:
                raise ImageError(
                    f"'{address}' has more than {LARGEST_DOWNLOAD >> 20} MiB: too large; download it yourself"
                )
            if time.monotonic() > until:
                raise ImageError(f"'{address}' takes longer than {LONGEST_DOWNLOAD_S:.0f} s; download it yourself")
    missing = response.length  # what the server announced and did not send
    if missing:
        raise ImageError(f"cannot fetch '{address}': the connection ended {missing} bytes too early")
    return b"".join(blocks)


def _read_stored(address: Address) -> bytes:
    from pyarrow import fs

    try:
        store, path = fs.FileSystem.from_uri(address.url)
        with store.open_input_file(path) as file:
            if file.size() > LARGEST_PICTURE:
                raise ImageError(f"'{address}' has {file.size()} bytes; at most {LARGEST_PICTURE} are read")
            data: bytes = file.read()
    except (OSError, ValueError, NotImplementedError) as error:
        raise ImageError(f"cannot read '{address}': {reason(error)}") from error
    return data


class _SameKind(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https alone: never to files of this machine or its ftp servers."""

    max_redirections = 5

    def redirect_request(  # noqa: PLR0917 - the standard library's signature
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in SCHEMES:
            raise urllib.error.HTTPError(
                req.full_url, code, f"and sends on to '{newurl}', which is not fetched", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: Address) -> HTTPResponse:
    headers = {"User-Agent": "xdet", "Accept": "image/*, video/*, */*;q=0.5"}
    user = urlsplit(address.url).netloc.rpartition("@")[0]
    if user:
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    request = urllib.request.Request(str(address), headers=headers)  # noqa: S310 - Address knows its schemes
    opener = urllib.request.build_opener(_SameKind)
    try:
        response: HTTPResponse = opener.open(request, timeout=SILENCE_S)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ImageError(f"cannot fetch '{address}': {_reason(error)}") from error
    return response


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return one_line(f"the server answers {error.code} {error.msg}")
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer for {SILENCE_S:.0f} s"
    return reason(inner)
