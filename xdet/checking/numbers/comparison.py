"""What a source gives to a check in the words of no format: its tensors, its layers in numbers, a comparison to fill.

Each format makes layers of its own operators (``tflite``, ``keras_layers``); every comparison with the graph is written
for these. Numbers are real ones in float64, which conversion folds and rounds, or those that the graph holds as they
are: codes with scale and zero-point, or float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.convolution import same_padding
from converters.spec import IMAGE
from xdet.checking.result import Cause, Finding, ProvenChange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.facts import SourceFacts
    from converters.quant import QuantParams
    from converters.spec import ModelDocument
    from xdet.checking.numbers.tflite_source import SourceGraph
    from xdet.model.graph import FinishedGraph, Node

Pads = tuple[int, int, int, int]  # top, left, bottom, right
Size = tuple[int, int, int]  # height, width, channels
NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """A convolution, or a product with a matrix, and what is folded into it."""

    # ``(O, I / groups, H, W)``, or ``(O, I)`` of a matrix; without values where it is computed at run time
    kernel: NDArray[Any]
    bias: NDArray[Any]  # ``(O,)``
    strides: tuple[int, int] = (1, 1)  # down, right
    dilations: tuple[int, int] = (1, 1)  # likewise
    groups: int = 1  # as ONNX counts them
    # those of a layer in front of it that was folded included; None where the input's size is not known
    pads: Pads | None = NO_PADS
    # height and width of what it reads, in front of all ``pads``; None where that is not known
    size: tuple[int, int] | None = None
    # float64 ``(O,)``, the sum of the magnitudes that the bias was added up from: what its rounding is relative to;
    # None where the graph holds these very numbers
    terms: NDArray[np.float64] | None = None
    # of the kernel's codes, ``(O,)`` or ``(1,)``; None where the graph holds numbers without a scale
    scales: NDArray[Any] | None = None
    zero_point: int = 0  # of the kernel's codes
    # of its input's codes, the likeliest first: the bias has one of them times the kernel's; none where the graph's
    # bias has no scale
    input_scales: tuple[np.float32, ...] = ()
    layers: tuple[str, ...] = ()  # the source's layers in it
    # what messages call the kernel and the bias; the layers where they have no names of their own
    tensors: tuple[str, ...] = ()

    def then(self, affine: ChannelAffine, layer: str) -> Product:
        """With ``y = factor * x + offset`` behind it."""
        assert self.terms is not None  # noqa: S101 - only real numbers are folded
        return replace(
            self,
            kernel=self.kernel * affine.factor.reshape(-1, 1, 1, 1),
            bias=self.bias * affine.factor + affine.offset,
            terms=self.terms * np.abs(affine.factor) + affine.terms,
            layers=(*self.layers, layer),
        )

    def repeated(self, kernel: NDArray[Any], **geometry: Any) -> Product:
        """With the copies that ``kernel`` holds of every output channel."""
        copies = len(kernel) // len(self.kernel)
        one_for_all = self.scales is None or self.scales.size == 1
        return replace(
            self,
            kernel=kernel,
            bias=np.tile(self.bias, copies),
            terms=None if self.terms is None else np.tile(self.terms, copies),
            scales=self.scales if one_for_all else np.tile(np.asarray(self.scales), copies),
            **geometry,
        )

    @property
    def title(self) -> str:
        """The layers in words."""
        first, *rest = (repr(layer) for layer in self.layers)
        return f"{first} (with {', '.join(rest)} folded in)" if rest else first


@dataclass(frozen=True, eq=False, slots=True)
class ChannelAffine:
    """``y = factor * x + offset`` per channel, float64.

    ``terms`` is the sum of the magnitudes that the offset was added up from: what its rounding is relative to.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    terms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leaky:
    """LeakyReLU."""

    slope: float


@dataclass(frozen=True, slots=True)
class Clamp:
    """ReLU: lower limit 0, upper limit or None."""

    high: float | None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool; ``pads`` is None where the input's size is not known."""

    op: str
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads | None


@dataclass(frozen=True, slots=True)
class Padding:
    """Zeros around the picture."""

    pads: Pads


@dataclass(frozen=True, slots=True)
class Other:
    """What is not compared in numbers, by its source's name for it."""

    kind: str


Act = Product | ChannelAffine | Leaky | Clamp | Pool | Padding | Other


def same_pads(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...] = (1, 1)
) -> Pads:
    """SAME padding of both axes; ``size`` begins with height and width."""
    (top, bottom), (left, right) = (
        same_padding(size[axis], window[axis], strides[axis], dilations[axis]) for axis in (0, 1)
    )
    return (top, left, bottom, right)


def added(pads: Iterable[Pads]) -> Pads:
    """Several paddings, one around the other."""
    top, left, bottom, right = (sum(sides) for sides in zip(NO_PADS, *pads, strict=True))
    return (top, left, bottom, right)


# They give on what they get, or choose among it: the same codes mean the same numbers behind them.
MOVERS = frozenset({
    "Transpose", "Reshape", "Max", "Min", "MaxPool", "Pad", "Slice", "Concat", "Identity", "Gather", "Split",
    "Tile", "Clip", "ReduceMax", "ReduceMin",
})  # fmt: skip


@dataclass(eq=False)
class StaticComparison:
    """A finished model beside a source of any format; filled by the comparisons."""

    graph: FinishedGraph
    document: ModelDocument
    findings: list[Finding] = field(default_factory=list, kw_only=True)  # what is wrong, each once
    proven: list[ProvenChange] = field(default_factory=list, kw_only=True)  # what differs on purpose, with proofs
    uncompared: list[str] = field(default_factory=list, kw_only=True)  # what no comparison knows, in words
    compared: int = field(default=0, kw_only=True)  # numbers that were compared, arrays by their size
    how: str = field(default="", kw_only=True)  # in what way, to be said behind their count
    remarks: list[str] = field(default_factory=list, kw_only=True)  # what else is to be said of the comparison

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


PICTURES = ("pixels/rescaled", "pixels")  # what the network reads, where it is not the image; the nearest to it first


QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """A tensor of a source, in the words of no format."""

    name: str  # as the source's runtime and the document's tensor map call it
    operator: str  # what computes it, such as ``"CONV_2D"`` or ``"Conv2D"``; ``"input"`` for the picture
    reads: tuple[str, ...]  # names of the tensors that it is computed from
    codes: str | None  # ``"int8"`` or ``"uint8"``; None for real numbers
    bound: int = 0  # how many LSB its translation may be off
    is_compared: bool = True  # False for what only hands its bound on
    # by which the source rounds what the model leaves in float32 (``--dequantize``); None where both do the same
    quant: QuantParams | None = None
    code_range: tuple[int, int] = (-128, 127)  # the least and the greatest code, with ``quant``


@dataclass(frozen=True, eq=False, slots=True)
class CheckedSource:
    """A source's operators and description, as far as its format tells them."""

    facts: SourceFacts  # what it states of the detector
    layers: tuple[SourceLayer, ...] = ()  # its tensors, in the order in which they are computed
    # whether its own runtime rounds activations to codes that the model keeps in float
    rounds_at_run_time: bool = False
    graph: SourceGraph | None = None  # its tensors and operators; None for formats other than TFLite
    # compares its numbers with a graph and its document; None where ``problem`` says why not
    compare: Compare | None = None
    problem: str | None = None
    nodes: ir.Graph | None = None  # its operators; None for formats other than ONNX


Compare = Callable[["FinishedGraph", "ModelDocument"], "StaticComparison"]


def writer_past(graph: FinishedGraph, value: str, ops: Collection[str]) -> Node | None:
    """The node that computes a value, in front of operators that only move it; None where none does."""
    node = graph.producers.get(value)
    while node is not None and node.op in ops:
        node = graph.producers.get(node.inputs[0])
    return node


@dataclass(frozen=True, slots=True)
class Pair:
    """Scale and zero-point by which a QuantizeLinear or DequantizeLinear writes or reads codes."""

    node: Node
    scale: np.float32
    zero_point: int
    unsigned: bool

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.node.op} {self.node.name!r}"

    @property
    def codes(self) -> str:
        """The value that holds the codes."""
        return self.node.inputs[0] if self.node.op == "DequantizeLinear" else self.node.outputs[0]


def pair_of(context: StaticComparison, node: Node | None) -> Pair | None:
    """The numbers of a node; None where it is no such node, or they are not constant numbers."""
    if node is None or node.op not in QUANTIZERS:
        return None
    scale = context.graph.constant(node.inputs[1])
    zero_point = context.graph.constant(node.inputs[2]) if len(node.inputs) > 2 else np.array(0, np.uint8)
    if scale is None or zero_point is None or scale.size != 1:
        return None
    return Pair(node, np.float32(scale.reshape(-1)[0]), int(zero_point.reshape(-1)[0]), zero_point.dtype == np.uint8)
