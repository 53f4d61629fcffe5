"""A model file in memory: read once, so that what is checked is what runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.files import read_model_bytes
from converters.sources import FINISHED, sniff_format
from xdet.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, eq=False, slots=True)
class ModelFile:
    """A model's bytes and where they came from."""

    path: Path  # the file, as the caller named it; a source's sidecar lies beside it
    data: bytes  # its bytes; the beginning where no format is known
    format: str | None  # FINISHED or a row of SOURCES, both of converters.sources; None where no format is known

    @property
    def is_finished(self) -> bool:
        """Whether it is a finished model, and no source."""
        return self.format == FINISHED

    @property
    def file(self) -> str:
        """The path as messages give it."""
        return str(self.path)


def read_model_file(path: Path) -> ModelFile:
    """Read a model file and tell its format from its bytes.

    Raises:
        ModelError: as ``read_model``.
    """
    data = read_model(path)
    return ModelFile(path, data, sniff_format(data))


def require_source(models: Sequence[Path], source_options: object) -> None:
    """Refuse a description where every model describes itself: it would be dropped without a word.

    Raises:
        UsageError: something is said, and none of the files is a source.
        ModelError: as ``read_model``.
    """
    if source_options is not None and all(sniff_format(read_model(path)) == FINISHED for path in models):
        listed = ", ".join(f"'{path}'" for path in models)
        raise UsageError(
            f"{listed}: a finished model describes itself; `classes`, `resize` and the like are about sources: convert "
            f"the source again with them, or leave them out"
        )


def read_model(path: Path) -> bytes:
    """A model file's bytes; of a large file that is no model, its beginning.

    Raises:
        ModelError: missing, no regular file, unreadable, empty, or larger than any model can be.
    """
    try:
        data = read_model_bytes(path, sniff_format)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        advice = "" if ";" in str(reason) else "; check the path"
        raise ModelError(f"cannot read model '{path}': {reason}{advice}") from error
    if not data:
        raise ModelError(f"'{path}' is empty; give an ONNX file made by xdet convert, or a TFLite detector")
    return data


def hash_model(data: bytes) -> str:
    """SHA-256 of a model's bytes, as hex digits: how reports name a model."""
    return hashlib.sha256(data).hexdigest()
