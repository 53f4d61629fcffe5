"""Graph rewrites: which run for which target, in order; behind each, what it left unused is removed.

A file's docstring says what its rewrites do. The name map across them tells which value carries a source tensor after a
pass, or which pass made it disappear. Before: source tensor -> the value the importer wrote. After: the same tensors,
each with its value of today (``"kept"``), the value that holds copies of it (``"replicated"``) or none (``"removed"``),
and the pass behind it. No tensor is ever dropped from the map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx_ir.passes import common

from converters.passes.activations import LeakyAsSum, PoolBeforeActivation
from converters.passes.codes import ClampCodes, PadCodes, RepeatPixels
from converters.passes.depthwise import AverageAsConvolution, ShiftedRows
from converters.passes.fold import FoldAffine, FoldPad
from converters.passes.full_channels import FullChannels, FullOutputs
from converters.passes.movements import CancelTransposes, ChannelChoice
from converters.passes.stems import StridedStem, WideStem
from converters.passes.weights import SignedWeights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from converters.passes.base import Moved, Rewrite
    from converters.spec import Target, TensorTwin

NO_MOVE = "same"


def follow_twins(
    twins: Mapping[str, TensorTwin], title: str, moves: Iterable[Moved], graph: ir.Graph
) -> dict[str, TensorTwin]:
    """The map behind a pass, from that in front of it, what the pass told and the graph that it left, cleaned."""
    alive = {str(value.name) for value in graph.inputs} | set(graph.initializers)
    alive |= {str(value.name) for node in graph for value in node.outputs}
    steps = tuple(moves)
    return {name: _follow(twin, title, steps, alive) for name, twin in twins.items()}


def _follow(twin: TensorTwin, title: str, moves: Sequence[Moved], alive: set[str]) -> TensorTwin:
    for move in moves:
        if twin.onnx == move.old and twin.onnx not in alive:
            layout, shift = permuted_layout(twin.layout, move.perm), twin.zero_point_shift + move.shift
            twin = replace(twin, onnx=move.new, layout=layout, zero_point_shift=shift)
            if move.replicated:
                twin = replace(twin, fate="replicated", by=title)
    if twin.onnx is None or twin.onnx in alive:
        return twin
    return replace(twin, onnx=None, fate="removed", by=title)


def permuted_layout(layout: str, perm: Sequence[int] | None) -> str:
    """``layout`` of a value whose axes were permuted once more; ``"same"`` where all permutations undo each other.

    Example:
        >>> permuted_layout("NHWC->NCHW", (0, 2, 3, 1))
        'same'
        >>> permuted_layout("same", (0, 2, 1))
        'ABC->ACB'
    """
    if perm is None:
        return layout
    source = "NHWC" if len(perm) == 4 else "ABCDEFGH"[: len(perm)]
    before, after = layout.split("->") if "->" in layout else (source, source)
    moved = "".join(after[axis] for axis in perm)
    return NO_MOVE if moved == before else f"{before}->{moved}"


PIPELINES: Mapping[Target, tuple[Rewrite, ...]] = {
    "portable": (CancelTransposes(), FoldAffine(), FoldPad(), PoolBeforeActivation()),
    "cpu": (
        ChannelChoice(),
        CancelTransposes(),
        AverageAsConvolution(),
        FoldAffine(),
        FoldPad(),
        PoolBeforeActivation(),
        SignedWeights(),
        FullChannels(),
        FullOutputs(),
        WideStem(),
        StridedStem(),
        ShiftedRows(),
        RepeatPixels(),
        CancelTransposes(),
        LeakyAsSum(),
        PadCodes(),
        ClampCodes(),
    ),
}
UNUSED = "remove unused"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a pipeline did."""

    passes: tuple[str, ...]  # titles of the rewrites that changed something, in order
    twins: Mapping[str, TensorTwin]  # source tensor name -> where it is now


def run_pipeline(model: ir.Model, target: Target, twins: Mapping[str, TensorTwin] | None = None) -> Rewritten:
    """Run the target's rewrites on ``model`` in place and follow the source's tensors through them."""
    passes = []
    common.RemoveUnusedNodesPass()(model)
    followed = follow_twins(twins or {}, UNUSED, (), model.graph)
    for rewrite in PIPELINES[target]:
        changes = rewrite.changes(model)
        if not changes:
            continue
        common.RemoveUnusedNodesPass()(model)
        moves = [move for change in changes for move in change.moved]
        followed = follow_twins(followed, rewrite.title, moves, model.graph)
        passes.append(rewrite.title)
    return Rewritten(tuple(passes), followed)
