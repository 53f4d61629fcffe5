"""The TFLite source of a check: its tensors and operators by name, read by the converter's own reader.

Names are those of the document's tensor map: a tensor without a name is ``tensor_7``, one whose name is taken ``conv#7``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from converters.spec import CONTRACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor

ACTIVATIONS = frozenset({"LEAKY_RELU", "RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE"})
POOLS = frozenset({"MAX_POOL_2D", "AVERAGE_POOL_2D"})


def number(op: TfliteOperator, name: str, default: float) -> float:
    """An operator's option that is a number; ``default`` for operators without it."""
    value = op.options.get(name, default)
    assert isinstance(value, int | float)  # noqa: S101 - the schema's type
    return value


@dataclass(frozen=True, slots=True)
class HeadSteps:
    """The quantisation of the source's raw head: ``real = scale * (code - zero_point)``."""

    scale: float
    zero_point: int


class SourceGraph:
    """A TFLite model by names.

    Args:
        model: what ``converters.sources.tflite.reader`` made of the file.
    """

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        seen, names = set(CONTRACT_NAMES), []
        for tensor in model.tensors:
            name = tensor.name or f"tensor_{tensor.index}"
            names.append(f"{name}#{tensor.index}" if name in seen else name)
            seen.add(names[-1])
        self.names = tuple(names)
        self.indices: Mapping[str, int] = {name: index for index, name in enumerate(names)}

    def tensor(self, name: str) -> TfliteTensor | None:
        """The tensor that the map calls ``name``."""
        index = self.indices.get(name)
        return None if index is None else self.model.tensors[index]

    @cached_property
    def readers(self) -> Mapping[int, tuple[TfliteOperator, ...]]:
        """Tensor index -> the operators that read it."""
        found: dict[int, list[TfliteOperator]] = {}
        for op in self.model.operators:
            for index in dict.fromkeys(op.inputs):
                found.setdefault(index, []).append(op)
        return {index: tuple(ops) for index, ops in found.items()}

    @cached_property
    def makers(self) -> Mapping[int, TfliteOperator]:
        """Tensor index -> the operator that computes it."""
        return {index: op for op in self.model.operators for index in op.outputs}

    def activations_of(self, index: int) -> tuple[TfliteOperator, ...]:
        """LeakyReLUs and requantisations that read a tensor."""
        return tuple(op for op in self.readers.get(index, ()) if op.op in ("LEAKY_RELU", "QUANTIZE"))

    def pools_behind(self, index: int) -> tuple[TfliteOperator, ...]:
        """Pools that read a tensor, or read it through activations."""
        found: list[TfliteOperator] = []
        for op in self.readers.get(index, ()):
            if op.op in POOLS:
                found.append(op)
            elif op.op in ACTIVATIONS:
                found += self.pools_behind(op.outputs[0])
        return tuple(found)

    def output_name(self, op: TfliteOperator) -> str:
        """How messages call an operator: by its output."""
        return self.names[op.outputs[0]]

    @cached_property
    def head_steps(self) -> HeadSteps | None:
        """The quantisation of the raw head, in front of a final DEQUANTIZE if there is one; None for float heads."""
        index = self.model.outputs[0]
        maker = self.makers.get(index)
        if maker is not None and maker.op == "DEQUANTIZE":
            index = maker.inputs[0]
        quant = self.model.tensors[index].quant
        if quant is None or quant.scale.size != 1:
            return None
        scale: np.float32 = quant.scalar_scale
        return HeadSteps(float(scale), quant.scalar_zero_point)
