"""The TFLite source of a check by the names of the document's tensor map, and whose codes a value of the graph holds.

A tensor without a name is ``tensor_7``, one whose name is taken ``conv#7``. A value that carries a source tensor is
found in the tensor map. Values between (a pool that changed places with an activation, the views of a wide stem, a
clamp) take the quantisation of what they only move, of the product behind which they stand, or of what they are clamped
to.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import match_outputs
from converters.sources.tflite.operators import OPERATORS, WEIGHTED, case_of
from converters.spec import CONTRACT_NAMES
from xdet.checking.numbers.comparison import MOVERS, SourceLayer, StaticComparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
    from converters.spec import ModelDocument, RawOutput
    from xdet.model.graph import Node


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
        taken, names = set(CONTRACT_NAMES), []
        for tensor in model.tensors:
            name = tensor.name or f"tensor_{tensor.index}"
            names.append(f"{name}#{tensor.index}" if name in taken else name)
            taken.add(names[-1])
        self.names = tuple(names)
        self.indices: Mapping[str, int] = {name: index for index, name in enumerate(names)}

    @cached_property
    def readers(self) -> Mapping[int, tuple[TfliteOperator, ...]]:
        """Tensor index -> the operators that read it."""
        by_tensor: dict[int, list[TfliteOperator]] = {}
        for op in self.model.operators:
            for index in dict.fromkeys(op.inputs):
                by_tensor.setdefault(index, []).append(op)
        return {index: tuple(ops) for index, ops in by_tensor.items()}

    @cached_property
    def makers(self) -> Mapping[int, TfliteOperator]:
        """Tensor index -> the operator that computes it."""
        return {index: op for op in self.model.operators for index in op.outputs}

    def activations_of(self, index: int) -> tuple[TfliteOperator, ...]:
        """LeakyReLUs and requantisations that read a tensor."""
        return tuple(op for op in self.readers.get(index, ()) if op.op in ("LEAKY_RELU", "QUANTIZE"))

    def pools_behind(self, index: int) -> tuple[TfliteOperator, ...]:
        """Pools that read a tensor, or read it through activations."""
        pools: list[TfliteOperator] = []
        for op in self.readers.get(index, ()):
            if op.op in POOLS:
                pools.append(op)
            elif op.op in ACTIVATIONS:
                pools += self.pools_behind(op.outputs[0])
        return tuple(pools)

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
        steps = []
        for index in self.model.outputs:
            maker = self.makers.get(index)
            rounded = maker.inputs[0] if maker is not None and maker.op == "DEQUANTIZE" else index
            quant = (self._rounded or self.model).tensors[rounded].quant
            if quant is None or quant.scale.size != 1:
                return None
            steps.append(float(quant.scalar_scale))
        if len(set(steps)) == 1:
            return steps[0]
        try:
            order = match_outputs([self.model.tensors[i].shape[1:] for i in self.model.outputs], wanted)
        except ValueError:  # another source, as part static and LiteRT tell
            return None
        return np.repeat([steps[place] for place in order], [output.size for output in wanted])


PRODUCTS = frozenset({"Conv", "Gemm"})


@dataclass(eq=False)
class TfliteComparison(StaticComparison):
    """A comparison with a TFLite source."""

    source: SourceGraph

    def tensor(self, index: int) -> TfliteTensor:
        """A tensor of the source."""
        return self.source.model.tensors[index]

    def quant(self, index: int) -> QuantParams:
        """The scale and zero-point of a tensor that has them."""
        quant = self.tensor(index).quant
        assert quant is not None  # noqa: S101 - the caller knows: owners are quantised
        return quant

    @cached_property
    def tensors_by_value(self) -> Mapping[str, tuple[int, ...]]:
        """ONNX value -> the source tensors that it carries."""
        by_value: dict[str, list[int]] = defaultdict(list)
        for name, twin in self.document.tensors.items():
            if twin.onnx is not None and name in self.source.indices:
                by_value[twin.onnx].append(self.source.indices[name])
        return {value: tuple(indices) for value, indices in by_value.items()}

    def is_computed(self, value: str) -> bool:
        """See the base; requantised pixels may be the pixels."""
        makers = (self.source.makers.get(index) for index in self.tensors_by_value.get(value, ()))
        return any(op is not None and op.op != "QUANTIZE" for op in makers)

    def reader_of_weights(self, node: Node) -> TfliteOperator | None:
        """The source operator whose weights a Conv or Gemm reads: by its name where several share them."""
        weights = self.uncast(node.inputs[1])
        producer = self.graph.producers.get(weights)
        readers = (
            op
            for index in self.tensors_by_value.get(weights if producer is None else producer.inputs[0], ())
            for op in self.source.readers.get(index, ())
            if op.op in WEIGHTED or op.op == "TRANSPOSE_CONV"
        )
        by_name = {self.source.output_name(op): op for op in readers}
        named = (op for name, op in by_name.items() if node.name.startswith(name))
        return next(named, next(iter(by_name.values()), None))


def owners_of(context: TfliteComparison, codes: str, visited: set[str] | None = None) -> tuple[int, ...]:
    """The quantised source tensors whose codes a value holds; empty where that cannot be told."""
    visited = set() if visited is None else visited
    if codes in visited:
        return ()
    visited.add(codes)
    own = tuple(i for i in context.tensors_by_value.get(codes, ()) if context.tensor(i).quant is not None)
    return own or _owners_before(context, codes, visited) or _owners_behind(context, codes, visited)


def _owners_before(context: TfliteComparison, codes: str, visited: set[str]) -> tuple[int, ...]:
    """From what the value is computed of, back to the next value with an owner."""
    node = context.graph.producers.get(codes)
    while node is not None:
        if node.op in PRODUCTS:
            op = context.reader_of_weights(node)
            return () if op is None else (op.outputs[0],)
        if node.op == "DequantizeLinear":
            return owners_of(context, node.inputs[0], visited)
        if node.op != "QuantizeLinear" and node.op not in MOVERS:
            return ()
        before = next((name for name in node.inputs if context.graph.constant(name) is None), node.inputs[0])
        if node.op in MOVERS and (own := context.tensors_by_value.get(before)):
            return tuple(i for i in own if context.tensor(i).quant is not None)
        node = context.graph.producers.get(before)
    return ()


def _owners_behind(context: TfliteComparison, codes: str, visited: set[str]) -> tuple[int, ...]:
    """From a value in front of a clamp, or of a change between uint8 and int8, to the codes behind it."""
    for reader in context.graph.readers(codes):
        if reader.op == "Clip":  # of the codes themselves
            return owners_of(context, reader.outputs[0], visited)
        clip = context.graph.only_reader(reader.outputs[0]) if reader.outputs else None
        if clip is not None and clip.op == "QuantizeLinear":
            return owners_of(context, clip.outputs[0], visited)
        quantize = context.graph.only_reader(clip.outputs[0]) if clip and clip.op in MOVERS else None
        if quantize is not None and quantize.op == "QuantizeLinear":
            return owners_of(context, quantize.outputs[0], visited)
    return ()


def shift_of(context: TfliteComparison, index: int, *, unsigned: bool) -> int:
    """What turns the source's codes into the graph's: 128, -128 or 0."""
    source_unsigned = context.tensor(index).dtype == "uint8"
    return 128 * (int(unsigned) - int(source_unsigned))
