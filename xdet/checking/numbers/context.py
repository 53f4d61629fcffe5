"""What the static comparisons share: both graphs, the map between them, and what was found so far.

Whose codes a value of the graph holds, and by which scale and zero-point a node reads or writes them.

A value that carries a source tensor is found in the tensor map. Values between (a pool that changed places with
an activation, the views of a wide stem, a clamp) take the quantisation of what they only move, of the product behind
which they stand, or of what they are clamped to.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from converters.sources.tflite.operators import WEIGHTED
from converters.spec import IMAGE
from xdet.checking.result import Cause, Finding, ProvenChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
    from converters.spec import ModelDocument
    from xdet.checking.numbers.source_graph import SourceGraph
    from xdet.model.graph import FinishedGraph, Node

PRODUCTS = frozenset({"Conv", "Gemm"})
PICTURES = ("pixels/rescaled", "pixels")  # what the network reads, where it is not the image; the nearest to it first
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(eq=False)
class StaticComparison:
    """A finished model beside a source of any format; filled by the comparisons."""

    graph: FinishedGraph
    document: ModelDocument
    findings: list[Finding] = field(default_factory=list, kw_only=True)  # what is wrong, each once
    proven: list[ProvenChange] = field(default_factory=list, kw_only=True)  # what differs on purpose, with proofs
    uncompared: list[str] = field(default_factory=list, kw_only=True)  # what no comparison knows, in words
    compared: int = field(default=0, kw_only=True)  # numbers that were compared, arrays by their size

    @property
    def how(self) -> str:
        """In what way the numbers were compared, to be said behind their count."""
        return ""

    def remarks(self) -> Iterator[str]:
        """What else is to be said of the comparison."""
        if self.uncompared:
            yield f"not compared: {', '.join(dict.fromkeys(self.uncompared))}"

    def fault(self, cause: Cause, layer: str | None, message: str) -> None:
        """Remember something that is wrong."""
        finding = Finding("static", cause, message, layer=layer)
        if finding not in self.findings:
            self.findings.append(finding)

    def prove(
        self,
        tensor: str,
        operator: str,
        kind: str,
        proof: str,
        *,
        source: float | None = None,
        written: float | None = None,
    ) -> None:
        """Remember something that differs on purpose."""
        self.proven.append(ProvenChange(tensor, operator, kind, source, written, proof))

    def value_of(self, name: str) -> str:
        """The value of the graph that carries a tensor or layer of the source; empty text without one."""
        twin = self.document.tensors.get(name)
        return "" if twin is None or twin.onnx is None else twin.onnx

    def writer_of(self, name: str) -> Node | None:
        """The node that computes it."""
        return self.graph.producers.get(self.value_of(name))

    @cached_property
    def picture(self) -> str:
        """The value that the network reads."""
        names = (name for name in PICTURES if name in self.graph.producers and not self.is_computed(name))
        return next(names, IMAGE)

    def is_computed(self, value: str) -> bool:  # noqa: ARG002  a source may know
        """Whether a value of the graph carries what an operator of the source computes."""
        return False

    def uncast(self, name: str) -> str:
        """The value in front of a Cast (in models of float16), or the value itself."""
        node = self.graph.producers.get(name)
        return node.inputs[0] if node is not None and node.op == "Cast" else name


@dataclass(eq=False)
class StaticContext(StaticComparison):
    """A comparison with a TFLite source; ``unaccounted`` are quantised values that belong to none of its tensors."""

    source: SourceGraph
    unaccounted: list[str] = field(default_factory=list)

    def remarks(self) -> Iterator[str]:
        """Also how many pairs are unaccounted for."""
        if self.unaccounted:
            named = ", ".join(self.unaccounted[:3])
            yield f"{len(self.unaccounted)} pairs belong to no source tensor: {named}"
        yield from super().remarks()

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
        found: dict[str, list[int]] = defaultdict(list)
        for name, twin in self.document.tensors.items():
            if twin.onnx is not None and name in self.source.indices:
                found[twin.onnx].append(self.source.indices[name])
        return {value: tuple(indices) for value, indices in found.items()}

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
        found = {self.source.output_name(op): op for op in readers}
        named = (op for name, op in found.items() if node.name.startswith(name))
        return next(named, next(iter(found.values()), None))


# They give on what they get, or choose among it: the same codes mean the same numbers behind them.
MOVERS = frozenset({
    "Transpose", "Reshape", "Max", "Min", "MaxPool", "Pad", "Slice", "Concat", "Identity", "Gather", "Split",
    "Tile", "Clip", "ReduceMax", "ReduceMin",
})  # fmt: skip


def owners_of(context: StaticContext, codes: str, seen: set[str] | None = None) -> tuple[int, ...]:
    """The quantised source tensors whose codes a value holds; empty where that cannot be told."""
    seen = set() if seen is None else seen
    if codes in seen:
        return ()
    seen.add(codes)
    own = tuple(i for i in context.tensors_by_value.get(codes, ()) if context.tensor(i).quant is not None)
    return own or _owners_before(context, codes, seen) or _owners_behind(context, codes, seen)


def _owners_before(context: StaticContext, codes: str, seen: set[str]) -> tuple[int, ...]:
    """From what the value is computed of, back to the next value with an owner."""
    node = context.graph.producers.get(codes)
    while node is not None:
        if node.op in PRODUCTS:
            op = context.reader_of_weights(node)
            return () if op is None else (op.outputs[0],)
        if node.op == "DequantizeLinear":
            return owners_of(context, node.inputs[0], seen)
        if node.op != "QuantizeLinear" and node.op not in MOVERS:
            return ()
        before = next((name for name in node.inputs if context.graph.constant(name) is None), node.inputs[0])
        if node.op in MOVERS and (own := context.tensors_by_value.get(before)):
            return tuple(i for i in own if context.tensor(i).quant is not None)
        node = context.graph.producers.get(before)
    return ()


def _owners_behind(context: StaticContext, codes: str, seen: set[str]) -> tuple[int, ...]:
    """From a value in front of a clamp, or of a change between uint8 and int8, to the codes behind it."""
    for dequantize in context.graph.readers(codes):
        clip = context.graph.only_reader(dequantize.outputs[0]) if dequantize.outputs else None
        if clip is not None and clip.op == "QuantizeLinear":
            return owners_of(context, clip.outputs[0], seen)
        quantize = context.graph.only_reader(clip.outputs[0]) if clip and clip.op in MOVERS else None
        if quantize is not None and quantize.op == "QuantizeLinear":
            return owners_of(context, quantize.outputs[0], seen)
    return ()


def pair_of(context: StaticComparison, node: Node) -> tuple[np.float32, int, bool] | None:
    """Scale, zero-point, and whether the codes are unsigned, of a QuantizeLinear or DequantizeLinear."""
    scale = context.graph.constant(node.inputs[1])
    zero_point = context.graph.constant(node.inputs[2]) if len(node.inputs) > 2 else np.array(0, np.uint8)
    if scale is None or zero_point is None or scale.size != 1:
        return None
    return np.float32(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0]), zero_point.dtype == np.uint8


def shift_of(context: StaticContext, index: int, *, unsigned: bool) -> int:
    """What turns the source's codes into the graph's: 128, -128 or 0."""
    source_unsigned = context.tensor(index).dtype == "uint8"
    return 128 * (int(unsigned) - int(source_unsigned))
