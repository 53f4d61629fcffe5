"""Whether a file that ONNX Runtime did not load is too new for it: the file's document names the oldest release that does."""

from __future__ import annotations

from converters.spec import METADATA_KEY, ModelDocument
from converters.spec.releases import is_older
from xdet.errors import RuntimeUnavailableError
from xdet.model.wire import read_metadata


def require_new_enough(model: bytes, file: str, installed: str) -> None:
    """Refuse a finished model that names a newer ONNX Runtime; what names none passes.

    Args:
        model: the file's bytes, damaged perhaps.
        file: its name, for messages.
        installed: the release that is here.

    Raises:
        RuntimeUnavailableError: says both releases and how to convert for the one that is here.
    """
    try:
        document = ModelDocument.from_json(read_metadata(model).get(METADATA_KEY, ""))
    except ValueError:  # no file of ours, whose fault is another
        return
    oldest = document.oldest_runtimes.get("onnxruntime")
    if oldest is None or not is_older(installed, oldest):
        return
    other = "`target` portable" if document.target == "cpu" else "a lower `opset`"
    raise RuntimeUnavailableError(
        f"'{file}' needs ONNX Runtime {oldest} or newer, found {installed}; install a newer onnxruntime, or "
        f"convert the source again with {other}"
    )
