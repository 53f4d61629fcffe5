"""What the static comparisons share: both graphs, the map between them, and what was found so far."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from xdet.checking.result import Cause, Finding, ProvenChange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.spec import ModelDocument
    from converters.tflite.records import TfliteOperator
    from xdet.checking.finished_graph import FinishedGraph, Node
    from xdet.checking.source_graph import SourceGraph

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
PRODUCTS = frozenset({"Conv", "Gemm"})


@dataclass(eq=False)
class StaticContext:
    """The two graphs side by side; filled by the comparisons.

    Attributes:
        graph: the finished model's.
        source: the source's.
        document: the finished model's metadata, with the tensor map.
        findings: what is wrong.
        proven: what differs on purpose, with proofs.
        compared: numbers that were compared, arrays by their size.
        unaccounted: quantised values that belong to no source tensor.
    """

    graph: FinishedGraph
    source: SourceGraph
    document: ModelDocument
    findings: list[Finding] = field(default_factory=list)
    proven: list[ProvenChange] = field(default_factory=list)
    compared: int = 0
    unaccounted: list[str] = field(default_factory=list)

    def fault(self, cause: Cause, layer: str | None, message: str) -> None:
        """Remember something that is wrong."""
        self.findings.append(Finding("static", cause, message, layer=layer))

    @cached_property
    def tensors_by_value(self) -> Mapping[str, tuple[int, ...]]:
        """ONNX value -> the source tensors that it carries."""
        found: dict[str, list[int]] = defaultdict(list)
        for name, twin in self.document.tensors.items():
            if twin.onnx is not None and name in self.source.indices:
                found[twin.onnx].append(self.source.indices[name])
        return {value: tuple(indices) for value, indices in found.items()}

    def operator_of(self, node: Node) -> TfliteOperator | None:
        """The source operator whose weights a Conv or Gemm reads; None where it reads no mapped constant."""
        producer = self.graph.producers.get(node.inputs[1]) if len(node.inputs) > 1 else None
        codes = node.inputs[1] if producer is None else producer.inputs[0]
        owners = [
            op
            for index in self.tensors_by_value.get(codes, ())
            for op in self.source.readers.get(index, ())
            if op.op in WEIGHTED
        ]
        if len(owners) < 2:
            return owners[0] if owners else None
        outputs = {self.source.output_name(op): op for op in owners}  # weights that several operators share
        return next((op for name, op in outputs.items() if node.name.startswith(name)), owners[0])

    def is_replicated(self, node: Node) -> bool:
        """Whether a Conv holds copies of its source's weights (pass ``wide stem``)."""
        producer = self.graph.producers.get(node.inputs[1])
        codes = None if producer is None else producer.inputs[0]
        return any(t.onnx == codes and t.fate == "replicated" for t in self.document.tensors.values())
