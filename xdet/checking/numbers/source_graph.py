"""The TFLite source of a check: its tensors and operators by name, read by the converter's own reader.

Names are those of the document's tensor map: a tensor without a name is ``tensor_7``, one whose name is taken
``conv#7``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from converters.facts import match_outputs
from converters.sources.tflite.operators import OPERATORS, case_of
from converters.spec import CONTRACT_NAMES
from xdet.checking.layer_records import SourceLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
    from converters.spec import ModelDocument, RawOutput

ACTIVATIONS = frozenset({"LEAKY_RELU", "RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE"})
CODES = ("int8", "uint8")
POOLS = frozenset({"MAX_POOL_2D", "AVERAGE_POOL_2D"})


def number(op: TfliteOperator, name: str, default: float) -> float:
    """An operator's option that is a number; ``default`` for operators without it."""
    value = op.options.get(name, default)
    assert isinstance(value, int | float)  # noqa: S101 - the schema's type
    return value


class SourceGraph:
    """A TFLite model by names; ``rounded`` is the file where ``model`` is its float network (``--dequantize``)."""

    def __init__(self, model: TfliteModel, rounded: TfliteModel | None = None) -> None:
        self.model, self._rounded = model, rounded
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

    def layers(self, document: ModelDocument) -> tuple[SourceLayer, ...]:
        """Tensors of codes, in the order in which they are computed; of a file that has none, its float tensors."""
        if self._rounded is not None:
            return tuple(map(self._unrounded, SourceGraph(self._rounded).layers(document)))
        steps: list[tuple[str, tuple[int, ...], tuple[int, ...], int]] = [("input", (), self.model.inputs, 0)]
        steps += [(op.op, op.inputs, op.outputs, self._bound(op, document)) for op in self.model.operators]
        tensors = self.model.tensors
        integer = any(tensors[index].dtype in CODES for _, _, outputs, _ in steps for index in outputs)
        wanted = CODES if integer else ("float32",)
        return tuple(
            SourceLayer(
                self.names[index],
                name,
                tuple(self.names[number] for number in inputs if number >= 0),
                tensors[index].dtype if integer else None,
                bound,
                # LiteRT shows the first of equal names only
                is_compared=tensors[index].dtype in wanted and self.names[index] == tensors[index].name,
            )
            for name, inputs, outputs, bound in steps
            for index in outputs
        )

    def _unrounded(self, layer: SourceLayer) -> SourceLayer:
        """A layer whose twin is float: within one step, and half a step more of each QUANTIZE that is left out."""
        assert self._rounded is not None  # noqa: S101 - the caller looked
        tensors = self._rounded.tensors
        quant = tensors[self.indices[layer.name]].quant
        if layer.codes is None or quant is None:
            return replace(layer, is_compared=False)
        before = tensors[self.indices[layer.reads[0]]].quant if layer.operator == "QUANTIZE" else None
        more = 0.0 if before is None else float(before.scalar_scale) / float(quant.scalar_scale) / 2
        info = np.iinfo(layer.codes)
        return replace(layer, bound=1 + math.ceil(more), quant=quant, code_range=(int(info.min), int(info.max)))

    def _bound(self, op: TfliteOperator, document: ModelDocument) -> int:
        """How many LSB an operator's translation may be off: its row says it, and the document where none was exact."""
        case = case_of(self.model, op)
        tensors = [repr(self.model.tensors[index].name) for index in op.outputs]
        noted = any("<= 1 LSB" in note and any(name in note for name in tensors) for note in document.notes)
        plain = document.leaky_relu != "litert" and op.op in OPERATORS and OPERATORS[op.op].ties
        return max(1 if case is None else case.bound_lsb, int(noted or plain))

    def output_name(self, op: TfliteOperator) -> str:
        """How messages call an operator: by its output."""
        return self.names[op.outputs[0]]

    def head_step(self, wanted: Sequence[RawOutput]) -> float | NDArray[np.float64] | None:
        """The quantisation step of the raw head, in front of a final DEQUANTIZE if there is one.

        One number, or one per value of ``wanted``, the joined outputs; None for floats or other outputs.
        """
        steps = [step for step in map(self._step_of, self.model.outputs) if step is not None]
        if len(steps) < len(self.model.outputs):
            return None
        if len(set(steps)) == 1:
            return steps[0]
        try:
            order = match_outputs([self.model.tensors[i].shape[1:] for i in self.model.outputs], wanted)
        except ValueError:  # another source, as part static and LiteRT tell
            return None
        return np.repeat([steps[place] for place in order], [output.size for output in wanted])

    def _step_of(self, index: int) -> float | None:
        """The step of one output."""
        maker = self.makers.get(index)
        if maker is not None and maker.op == "DEQUANTIZE":
            index = maker.inputs[0]
        quant = (self._rounded or self.model).tensors[index].quant
        return None if quant is None or quant.scale.size != 1 else float(quant.scalar_scale)
