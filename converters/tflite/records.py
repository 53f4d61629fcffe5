"""A TFLite file as frozen records: what the reader hands to importers and inspectors.

Everything in a record has been checked against the file: indices are in range, shapes are static and
non-negative, constants have exactly the bytes their shape asks for, and operators stand in an order in
which they can run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from converters.quant import QuantParams

OptionValue = int | float | bool | str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """One tensor of the only subgraph.

    Attributes:
        index: its position in ``TfliteModel.tensors``.
        name: as in the file; may be empty and need not be unique.
        dtype: numpy's name (``"int8"``, ``"float32"``, ``"bool"``) or, where numpy has no such type, the
            schema's in lower case (``"int4"``, ``"bfloat16"``, ``"string"``); a number newer than the schema
            reads ``"type_99"``.
        shape: sizes in the file's layout (activations NHWC); a dynamic batch reads 1.
        quant: scale and zero-point, or None for a tensor that is not quantised.
        data: read-only array of ``shape``, a view into the file's bytes (bool: a copy), for constants of a
            numpy type; else None.
        is_constant: whether the file holds a value, even one that is not decoded (int4, string).
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    quant: QuantParams | None
    data: NDArray[Any] | None
    is_constant: bool = False


@dataclass(frozen=True)
class TfliteOperator:
    """One operator, in execution order.

    Attributes:
        index: its position in ``TfliteModel.operators``.
        op: the schema's name (``"CONV_2D"``); ``"BUILTIN_999"`` where newer than the schema;
            ``"CUSTOM:name"``.
        version: the operator version the writer asked for.
        inputs: tensor indices; -1 is an absent optional input.
        outputs: tensor indices.
        options: the operator's parameters under the names of ``schema.OPTIONS``, the schema's default where
            the file has none; empty for operators that are not listed there.
    """

    index: int
    op: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, OptionValue]


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A whole file.

    Attributes:
        file: the file's name, for messages.
        description: the writer's own words, such as ``"MLIR Converted."``.
        tensors: all tensors, by index.
        operators: all operators, in execution order.
        inputs: indices of the tensors the caller feeds.
        outputs: indices of the tensors the caller reads.
    """

    file: str
    description: str
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
