"""Addresses of pictures, films and streams; what they show in messages and results holds no password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from xdet.errors import UsageError

SCHEMES = ("http", "https")
STREAM_SCHEMES = ("rtsp", "rtsps")
STORES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")  # what pyarrow.fs opens
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # longer than a drive's letter


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a picture or a film."""

    url: str  # as it was given
    in_store: bool = False  # a picture that pyarrow reads, such as s3://bucket/photo.jpg; others are of schemes above

    def __post_init__(self) -> None:
        if self.in_store:
            return
        schemes = (*SCHEMES, *STREAM_SCHEMES)
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme.lower() in schemes and bool(parts.hostname) and self.url.isprintable()
        except ValueError:
            fits = False
        if is_stored(self.url) and not self.url.lower().startswith("file:"):
            raise UsageError(f"'{self}' lies in a store; add `engine` ray (extra: ray), or download it")
        if not fits or " " in self.url:
            raise UsageError(
                f"'{self}' is no address that xdet reads; expected {', '.join(f'{s}://' for s in schemes)}"
            )

    def __str__(self) -> str:
        """Without user and password; in a store the container stands there."""
        return self.url if self.in_store else re.sub(r"(?<=://)[^/?#]*@", "", self.url)

    @property
    def path(self) -> str:
        """The host and the path on it, without what follows."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}{unquote(parts.path)}"

    @property
    def suffix(self) -> str:
        """Of the file that the path names, in lower case."""
        return PurePosixPath(self.path).suffix.lower() if self.path.count("/") else ""

    @property
    def is_stream(self) -> bool:
        """Whether its scheme is that of a stream."""
        return urlsplit(self.url).scheme.lower() in STREAM_SCHEMES


def is_address(text: str) -> bool:
    """Whether a word is meant as an address, of whatever scheme."""
    return _ADDRESS.match(text) is not None


def is_stored(name: str) -> bool:
    """Whether a word is an address in a store that ``xdet.ray`` reads."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.lower() in STORES
