"""Which rewrites run for which target, in order; behind each, what it left unused is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx_ir.passes import common

from converters.passes.cancel_transposes import CancelTransposes
from converters.passes.fold_affine import FoldAffine
from converters.passes.fold_pad import FoldPad
from converters.passes.leaky_as_sum import LeakyAsSum
from converters.passes.pool_before_activation import PoolBeforeActivation
from converters.passes.twins import follow_twins
from converters.passes.wide_stem import WideStem

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from converters.passes.base import Rewrite
    from converters.spec import Target, TensorTwin

PIPELINES: Mapping[Target, tuple[Rewrite, ...]] = {
    "portable": (CancelTransposes(), FoldAffine(), FoldPad(), PoolBeforeActivation()),
    "cpu": (
        CancelTransposes(),
        FoldAffine(),
        FoldPad(),
        PoolBeforeActivation(),
        WideStem(),
        CancelTransposes(),
        LeakyAsSum(),
    ),
}
UNUSED = "remove unused"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a pipeline did.

    Attributes:
        passes: titles of the rewrites that changed something, in order.
        twins: source tensor name -> where it is now.
    """

    passes: tuple[str, ...]
    twins: Mapping[str, TensorTwin]


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
