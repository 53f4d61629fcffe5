"""The border to tf2onnx: imported where it is used, quiet, and its exceptions told as ours."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from converters.errors import UnsupportedModelError
from converters.tensorflow_quiet import import_quietly, silenced_warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

TF2ONNX_OPSET = 18  # the newest it writes; ``converters.tf2onnx_graph`` brings it to the contract's
ERRORS = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    AssertionError,
)


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
        msg = f"{file}: tf2onnx cannot translate it: {reason}; if there is another form of the model, convert that"
        raise UnsupportedModelError(msg) from error
