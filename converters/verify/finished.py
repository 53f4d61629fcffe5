"""A finished model as the promises see it, and what a promise is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from converters.spec import ModelDocument


@dataclass(frozen=True, eq=False)
class Finished:
    """Everything a promise may look at.

    Attributes:
        model: the graph.
        proto: the same as it will be serialised.
        document: its metadata.
        batch: images per call, or the name of the dynamic dimension.
    """

    model: ir.Model
    proto: onnx.ModelProto
    document: ModelDocument
    batch: int | str


Promise = Callable[[Finished], Iterator[str]]
"""Yields one sentence per place where the promise is broken."""
