"""Which rewrites run for which target, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.passes.cancel_transposes import CancelTransposes
from converters.passes.fold_pad import FoldPad
from converters.passes.pool_before_activation import PoolBeforeActivation
from converters.passes.wide_stem import WideStem

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from converters.options import Target
    from converters.passes.base import Rewrite

PIPELINES: Mapping[Target, tuple[Rewrite, ...]] = {
    "portable": (CancelTransposes(), FoldPad(), PoolBeforeActivation()),
    "cpu": (CancelTransposes(), FoldPad(), PoolBeforeActivation(), WideStem(), CancelTransposes()),
}


def run_pipeline(model: ir.Model, target: Target) -> tuple[str, ...]:
    """Run the target's rewrites on ``model`` in place; return the titles of those that changed something."""
    return tuple(rewrite.title for rewrite in PIPELINES[target] if rewrite(model).modified)
