"""Is it really int8? The share of multiply-accumulates that end in integer kernels, read back from ONNX Runtime itself.

ONNX Runtime saves the graph it is going to run; each convolution and matrix product of the file is found there again by
its weights, and counts as integer if an integer operator holds them. Operations are counted in the file's own graph,
whose shapes are known. What did not become integer is listed with the rule that blocked it, as far as the file shows
it.

``find_two_scales`` finds quantised tensors of an ONNX graph that are read with another scale than they were written
with. Such graphs are legal, and xdet writes them on purpose: the DequantizeLinear in front of a LeakyRelu has a scale
of its own, so that ONNX Runtime's table equals LiteRT's (docs/contract.md), and so have both readings of a LeakyReLU
that stands as a sum. Compilers that keep one scale per tensor compute something else.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.graph import constant_at
from converters.spec import METADATA_KEY, ModelDocument
from xdet.model.graph import (
    INTEGER_OPERATORS,
    WEIGHT_INPUT,
    constant_values,
    inferred_model,
    load_onnx,
    node_macs,
    readers_of,
    root_of,
)

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import onnx
    import onnx_ir as ir

    from xdet.runtimes.ort_session import SessionChoices

# What ONNX Runtime's CPU provider runs on integers, beside the standard operators.
INTEGER_KERNELS = INTEGER_OPERATORS | {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"}
RENAMED = re.compile(r"_token_\d+$")  # what layout optimisation adds to a node's name
BIAS_TOLERANCE = 0.01  # beyond, ONNX Runtime does not fuse
# fmt: off
MOVERS = frozenset({  # operators whose output codes are among their first input's
    "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Miss:
    """A convolution or matrix product that runs in float: its node's name, and the rule that blocked it."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a model runs on integers on one provider."""

    provider: str  # execution provider, short
    macs_total: int  # multiply-accumulates of its convolutions and matrix products, for one image
    macs_integer: int | None  # those in integer kernels; None where the provider does not show its kernels
    misses: tuple[Miss, ...] = ()  # what runs in float, in the file's order

    @property
    def share(self) -> float | None:
        """Integer share, 0..1; None where it is not known."""
        if self.macs_integer is None:
            return None
        return self.macs_integer / self.macs_total if self.macs_total else 0.0


def integer_coverage(
    model: bytes, provider: str | None = None, *, file: str = "model", inferred: ir.Model | None = None
) -> Coverage:
    """Find out how much of an ONNX model, whoever made it, runs on integers.

    ``provider`` is a short or full name; None is the CPU. Others compile the graph and do not show it. ``inferred`` is
    the model as ``inferred_model`` reads it, for callers that have done so.

    Raises:
        ModelError: the file is damaged, has shapes that are not fixed, or ONNX Runtime cannot load it.
        RuntimeUnavailableError: the provider is not there.
    """
    from xdet.runtimes.ort_session import CPU, SessionChoices, resolve_provider, short_name

    full = resolve_provider(provider)
    inferred = inferred or inferred_model(load_onnx(model, file), file)
    optimized = None
    if full == CPU:
        choices = SessionChoices(provider=full, threads=1, exact_for=_exact_for(inferred))
        optimized = _optimized(model, file, choices)
    return coverage_of(inferred.graph, short_name(full), optimized, file=file)


def coverage_of(graph: ir.Graph, provider: str, optimized: bytes | None, *, file: str = "model") -> Coverage:
    """As ``integer_coverage``, of a model that is decoded and open already: its graph as ``inferred_model`` gives it.

    ``optimized`` is the graph that the provider, a short name, runs, as an ONNX file; None where it does not show it.
    """
    nodes = [node for node in graph if node.op_type in WEIGHT_INPUT]
    macs = [node_macs(node, file) for node in nodes]
    if optimized is None:
        return Coverage(provider, sum(macs), None)
    integer = _became_integer(nodes, constant_values(graph), load_onnx(optimized, file).graph)
    misses = [
        Miss(str(node.name or node.outputs[0].name), _reason(node))
        for place, node in enumerate(nodes)
        if not integer[place]
    ]
    return Coverage(provider, sum(macs), sum(itertools.compress(macs, integer)), tuple(misses))


def _optimized(model: bytes, file: str, choices: SessionChoices) -> bytes:
    """The graph as ONNX Runtime is going to run it, as an ONNX file."""
    from xdet.runtimes.ort_session import OrtSession

    with tempfile.TemporaryDirectory(prefix="xdet-") as folder:
        path = Path(folder) / "optimized.onnx"
        OrtSession(model, file=file, choices=replace(choices, optimized_path=str(path))).close()
        return path.read_bytes()


def _exact_for(model: ir.Model) -> str | None:
    """The kernels that ``open_onnxruntime`` would ask for."""
    from xdet.runtimes.ort_session import inexact_codes

    try:
        document = ModelDocument.from_json(model.metadata_props.get(METADATA_KEY, ""))
    except ValueError:  # no file of ours
        return None
    return inexact_codes(document.activations, in_float=document.multiplies_in_float)


def _became_integer(nodes: Sequence[ir.Node], constants: Container[ir.Value], optimized: onnx.GraphProto) -> list[bool]:
    """Which matrix nodes an integer operator stands for: the one of their name, else one that reads their weights.

    ONNX Runtime keeps names through fusion, and weights unless it recodes them; a file may leave out names.
    """
    by_name, by_weights = defaultdict[str, deque[int]](deque), defaultdict[str, deque[int]](deque)
    initializers = {tensor.name for tensor in optimized.initializer}
    for number, kernel in enumerate(optimized.node):
        if kernel.op_type in INTEGER_KERNELS:
            by_name[RENAMED.sub("", kernel.name)].append(number)
            for weight in initializers.intersection(kernel.input):
                by_weights[weight].append(number)
    integer, used = [False] * len(nodes), set[int]()
    for index, node in enumerate(nodes):
        if node.name and by_name[node.name]:
            integer[index] = True
            used.add(by_name[node.name].popleft())
    for index, node in enumerate(nodes):
        root = root_of(node.inputs[WEIGHT_INPUT[node.op_type]], constants)
        readers = deque[int]() if root is None or integer[index] else by_weights[str(root.name)]
        while readers and not integer[index]:
            number = readers.popleft()
            integer[index] = number not in used
            used.add(number)
    return integer


def _reason(node: ir.Node) -> str:
    """The first rule of integer fusion that the file's graph breaks around a node."""
    place = WEIGHT_INPUT[node.op_type]
    if node.op_type in INTEGER_OPERATORS:
        return "ONNX Runtime replaced this integer operator"
    left, right = (_dequantizer(node.inputs[i]) for i in (0, place))
    if left is None:
        return f"its input {_name(node.inputs[0])!r} is float: no DequantizeLinear in front of it"
    if right is None:
        return f"its weights {_name(node.inputs[place])!r} are float: no DequantizeLinear behind them"
    if node.op_type == "Conv" and len(node.inputs) > 2:
        problem = _bias_problem(left, right, _dequantizer(node.inputs[2]))
        if problem is not None:
            return problem
    return _output_problem(node.outputs[0])


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that computes a value."""
    node = None if value is None else value.producer()
    return None if node is None or node.op_type != "DequantizeLinear" else node


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


def _bias_problem(left: ir.Node, right: ir.Node, bias: ir.Node | None) -> str | None:
    """The scale of a bias of codes must be input scale x weight scale."""
    if bias is None:
        return None  # ONNX Runtime quantises a constant float bias itself
    scales = [constant_at(dq, 1) for dq in (left, right, bias)]
    x, w, b = (None if scale is None else scale.astype(np.float64) for scale in scales)
    if x is None or w is None or b is None:
        return "a scale is no constant"
    if len({scale.shape for scale in (x, w, b) if scale.size != 1}) > 1:
        return f"its input, weights and bias have {x.size}, {w.size} and {b.size} scales"
    with np.errstate(divide="ignore", invalid="ignore"):
        off = float(np.nanmax(np.abs(b / (x * w) - 1), initial=0))
    if off > BIAS_TOLERANCE:
        return f"its bias scale is {off:.1%} off input scale x weight scale, more than {BIAS_TOLERANCE:.0%}"
    return None


def _output_problem(value: ir.Value) -> str:
    readers = readers_of(value)
    if value.is_graph_output():
        return f"its float result {value.name!r} is an output of the model"
    if len(readers) != 1:
        return f"its float result {value.name!r} is read by {len(readers)} operators, not by one QuantizeLinear"
    if readers[0].op_type != "QuantizeLinear":
        return f"its float result {value.name!r} goes to {readers[0].op_type}, not to a QuantizeLinear"
    return "ONNX Runtime keeps it in float although Q and DQ stand on all sides"


@dataclass(frozen=True, slots=True)
class TwoScales:
    """A tensor of codes with two scales; its name is that of the place where it is read."""

    tensor: str
    written: float  # the scale of the QuantizeLinear that made it
    read: float  # the scale of the DequantizeLinear that reads it


def find_two_scales(graph: ir.Graph) -> tuple[TwoScales, ...]:
    """Every reading of a tensor with another scale than it was written with, in the graph's order; per-tensor scales.

    Codes keep their scale through operators that only move or compare them.
    """
    scales: dict[ir.Value, float] = {}
    pairs: list[TwoScales] = []
    for node in graph:
        codes = node.inputs[0] if node.inputs else None
        if node.op_type == "QuantizeLinear":
            scale = _scale(node)
            if scale is not None:
                scales[node.outputs[0]] = scale
        elif node.op_type in MOVERS and codes in scales:
            scales.update(dict.fromkeys(node.outputs, scales[codes]))
        elif node.op_type == "DequantizeLinear" and codes in scales:
            written, read = scales[codes], _scale(node)
            if read is not None and written != read:
                pairs.append(TwoScales(str(codes.name), written, read))
    return tuple(pairs)


def _scale(node: ir.Node) -> float | None:
    """The scale of a Q or DQ node that has a constant one."""
    scale = constant_at(node, 1)
    return float(scale.reshape(())) if scale is not None and scale.dtype == np.float32 and scale.size == 1 else None
