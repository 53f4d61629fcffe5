"""Proof that a translation kept every shape: ONNX's own shape inference against the source's tensors."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from converters.errors import ContractError
from converters.graph import IR_VERSION
from converters.tflite.context import ImportContext, transposed


def require_source_shapes(context: ImportContext) -> None:
    """Infer the graph's shapes and compare every value with the source tensor it carries.

    Raises:
        ContractError: the first tensor whose shape differs; its leading size counts once per image.
    """
    common.ShapeInferencePass(data_prop=True)(ir.Model(context.writer.graph, ir_version=IR_VERSION))
    for index, value in context.values.items():
        if index in context.constants:
            continue
        expected = transposed(context.tensor(index).shape)
        found = None if value.shape is None else list(value.shape)
        if found is None or not _agree(found, expected, context.batch):
            msg = (
                f"{context.model.file}: tensor {context.names[index]!r} has shape {list(expected)} in the graph's layout, "
                f"the operators in front of it give {found}; export the model again, or report this with the file"
            )
            raise ContractError(msg)


def _agree(found: list[int | ir.SymbolicDim], expected: tuple[int, ...], batch: int | str) -> bool:
    if len(found) != len(expected) or list(found[1:]) != list(expected[1:]):
        return False
    return not found or isinstance(batch, str) or found[0] == expected[0] * batch
