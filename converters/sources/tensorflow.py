"""TensorFlow imported without its start-up messages, on the CPU, apart from the user's Keras settings.

The messages come from C++ before any log level is read, so the process's stderr points nowhere while the import lasts.

The border to tf2onnx: imported where it is used, quiet, and its exceptions told as ours.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from converters.errors import MissingExtraError, OptionError, SourceFileError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


def import_quietly(*names: str) -> list[Any]:
    """Import modules that need TensorFlow, TensorFlow first.

    Raises:
        MissingExtraError: one of them is not installed.
        SourceFileError: Keras is already loaded here with another backend.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="xdet-keras-") as home, _quiet({**SETTINGS, "KERAS_HOME": home}):
            tensorflow = import_module("tensorflow")
            modules = [import_module(name) for name in names]
    except ImportError as error:
        raise MissingExtraError(f"{error.name or 'TensorFlow'}, which loads Keras files,", "keras") from error
    with suppress(RuntimeError):  # it runs already: where, is settled
        tensorflow.config.set_visible_devices([], "GPU")
    keras = sys.modules.get("keras")
    if "keras" in names and keras is not None and keras.backend.backend() != "tensorflow":
        raise SourceFileError(
            f"Keras is loaded in this process with the {keras.backend.backend()} backend, which cannot be exported; "
            "start a new process with KERAS_BACKEND=tensorflow"
        )
    return modules


def set_threads(threads: int) -> None:
    """Have TensorFlow use so many threads inside an operator.

    Raises:
        OptionError: it runs already, with another number.
    """
    import tensorflow as tf

    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise OptionError(
            f"TensorFlow runs in this process already, not with {threads} threads; choose them before the first Keras "
            "file is opened"
        ) from error


@contextmanager
def silenced_warnings() -> Iterator[None]:
    """Keep Python warnings of TensorFlow, Keras and tf2onnx to themselves: they speak to those who write models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _quiet(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables set and stderr's file descriptor pointing nowhere, both only for a while."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with silenced_warnings():
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


TF2ONNX_OPSET = 18  # the newest it writes; ``converters.sources.tf2onnx`` brings it to the contract's
ERRORS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError)


@contextmanager
def exporting(file: str) -> Iterator[Any]:
    """Yield the module ``tf2onnx`` for one export of ``file``.

    Raises:
        MissingExtraError: TensorFlow, without which tf2onnx cannot be imported, is not installed.
        UnsupportedModelError: tf2onnx cannot translate the network.
    """
    (tf2onnx,) = import_quietly("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        with silenced_warnings():
            yield tf2onnx
    except ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnsupportedModelError(
            f"{file}: tf2onnx cannot translate it: {reason}; if there is another form of the model, convert that"
        ) from error
