"""The document in a finished model's metadata, read from the file's bytes; nothing is loaded."""

from __future__ import annotations

from converters.spec import METADATA_KEY, ModelDocument
from xdet.errors import ModelError
from xdet.model.contract import require_contract_graph
from xdet.model.wire import read_metadata


def read_document(model: bytes, *, file: str) -> ModelDocument:
    """The metadata of a finished model, whose graph is looked through, too: whoever runs a file has read its document.

    Raises:
        ModelError: the file is damaged, not made by xdet, by another version of it, or holds more than the contract allows.
    """
    try:
        text = read_metadata(model).get(METADATA_KEY)
    except ValueError as error:
        raise ModelError(
            f"'{file}' is no ONNX file or a damaged one: {error}; see that it is complete"
        ) from error
    if text is None:
        raise ModelError(
            f"'{file}' is an ONNX model but not one that xdet made (metadata key {METADATA_KEY!r} is "
            f"missing); convert its TFLite or Keras source with xdet convert"
        )
    try:
        document = ModelDocument.from_json(text)
    except ValueError as error:
        raise ModelError(
            f"'{file}': metadata key {METADATA_KEY!r} cannot be read: {error}; "
            f"convert the source again with this version of xdet"
        ) from error
    require_contract_graph(model, file)
    return document
