"""The detector that comes with xdet: a TFLite file, converted once into the user's cache.

The cached file's name holds the source's SHA-256 and xdet's version, so a new release converts anew. It is
written beside its place and renamed there, so that processes which start together never see half a file.
Where the cache cannot be written, the conversion lives in memory.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xdet import __version__
from xdet.errors import ModelError

if TYPE_CHECKING:
    from xdet.runtimes.base import Runtime

SOURCE = Path(__file__).parent / "data" / "tiny_yolo_v2_person_224_int8.tflite"
CACHE_VARIABLE = "XDET_CACHE_DIR"


def open_embedded(*, provider: str | None = None, threads: int | None = None) -> Runtime:
    """Open the embedded detector on ONNX Runtime; the first call of all converts it.

    Raises:
        RuntimeUnavailableError: the provider is not there.
    """
    from xdet.runtimes.onnxruntime import open_onnxruntime
    from xdet.runtimes.providers import resolve_provider

    resolve_provider(provider)  # before any work
    cached = cache_path()
    try:
        return open_onnxruntime(cached.read_bytes(), file=str(cached), provider=provider, threads=threads)
    except (OSError, ModelError):  # not there yet, or damaged since: a cache may be made again
        model = _convert(SOURCE)
    place = str(cached) if _store(cached, model) else cached.name
    return open_onnxruntime(model, file=place, provider=provider, threads=threads)


def cache_path() -> Path:
    """Where the converted model is kept; the environment variable ``XDET_CACHE_DIR`` names another folder."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    return _cache_folder() / f"{SOURCE.stem}-{digest[:16]}-{__version__}.onnx"


def _cache_folder() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("xdet", appauthor=False)


def _convert(source: Path) -> bytes:
    from converters.options import ConvertOptions
    from converters.pipeline import convert_to_bytes

    return convert_to_bytes(source, ConvertOptions()).model


def _store(path: Path, model: bytes) -> bool:
    """Put the model into the cache in one step; False where that is not possible."""
    from converters.errors import OutputError
    from converters.files import write_output

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, model)
    except (OSError, OutputError):  # a read-only home, a full disk
        return False
    return True
