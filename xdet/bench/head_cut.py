"""The network of a finished model without its head: a scratch copy that ends at the value ``head``.

Before -> after: the model -> what ``xdet convert --head none`` would have written: the same nodes up to ``head``, which
becomes the only output; what only the decoder needs is left out. Numeric effect: none on the head.
"""

from __future__ import annotations

from dataclasses import replace

from converters.spec import HEAD, METADATA_KEY, ModelDocument, contract_io
from xdet.errors import ModelError
from xdet.onnx_graph import load_onnx


def cut_at_head(model: bytes, file: str) -> bytes:
    """Cut a finished model.

    Args:
        model: its bytes.
        file: its name, for messages.

    Returns:
        The bytes of the copy; the model itself where it ends at the raw head already.

    Raises:
        ModelError: damaged, not finished by xdet, or without the value ``head``.
    """
    from onnx import TensorProto, helper

    proto = load_onnx(model, file)
    graph = proto.graph
    document = _document({entry.key: entry.value for entry in proto.metadata_props}, file)
    if document.spec.head == "none":
        return model
    wanted, nodes = {HEAD}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    if not nodes:
        raise ModelError(f"'{file}' has no value named {HEAD!r}; convert its source again with xdet convert")
    image = next(value for value in graph.input if value.name in wanted)
    batch = image.type.tensor_type.shape.dim[0]
    cut = replace(document, spec=replace(document.spec, head="none"))
    _, (head,) = contract_io(cut.spec, batch.dim_value or batch.dim_param, freeze_thresholds=True)
    copy = helper.make_graph(
        nodes[::-1],
        graph.name,
        [value for value in graph.input if value.name in wanted],
        [helper.make_tensor_value_info(HEAD, TensorProto.FLOAT, head.shape)],
        [tensor for tensor in graph.initializer if tensor.name in wanted],
    )
    proto.graph.CopyFrom(copy)
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = cut.to_json()
    return bytes(proto.SerializeToString())


def _document(properties: dict[str, str], file: str) -> ModelDocument:
    try:
        return ModelDocument.from_json(properties[METADATA_KEY])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"'{file}' is no finished model of this xdet ({error}); convert its source with xdet convert"
        ) from error
