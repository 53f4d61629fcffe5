"""The codes of LiteRT's LOGISTIC, and the scale of a DequantizeLinear with which every runtime's Sigmoid gives them.

XNNPACK holds a table of 256 codes: the float32 nearest to ``1 / (1 + exp(-x))``, rounded to 256 steps as
``converters.integer.late_sum`` says. Runtimes compute the same function in approximations of their own, a few
ten-millionths away; only a result that lies that near to an edge between two codes could come out otherwise.
``settled_scale`` gives the tensor's own scale where none does, else the scale nearby that keeps all 256 results
furthest from their edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.integer.late_sum import late_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.leaky import LeakyCase, Table

STEPS = 256
ROOM = 3e-4  # steps by which runtimes may miss: a millionth of the function's range
TRIED = 255


def logistic_table(case: LeakyCase) -> Table:
    """int64 ``(256,)``: output code for input codes -128..127, at the only output scale there is; the slope is not used."""
    x = case.scale_in * (np.arange(-128, 128) - case.zero_point_in).astype(np.float32)
    with np.errstate(over="ignore"):
        return late_codes(case, (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32))


def settled_scale(case: LeakyCase, wanted: Table) -> np.float32 | None:
    """The scale with which results keep away from all edges: the tensor's own if it does; None if none does."""
    x = np.arange(-128, 128, dtype=np.float64) - case.zero_point_in
    if keeps_away(case, case.scale_in, wanted):
        return case.scale_in
    steps = wanted.astype(np.float64) + 128
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = [np.log(share / (1 - share)) for share in ((steps - 0.5) / STEPS, (steps + 0.5) / STEPS)]
    edges[0] = np.where(steps == 0, -np.inf, edges[0])
    edges[1] = np.where(steps == STEPS - 1, np.inf, edges[1])
    moved = x != 0
    bounds = np.sort([edge[moved] / x[moved] for edge in edges], axis=0)
    least, most = bounds[0].max(initial=0), bounds[1].min(initial=np.inf)
    if not (np.isfinite(most) and 0 < least < most):
        return None
    tried = np.linspace(least, most, TRIED + 2)[1:-1].astype(np.float32)
    rooms = [_room(x * float(scale), wanted) for scale in tried]
    best = int(np.argmax(rooms))
    return tried[best] if rooms[best] > ROOM else None


def keeps_away(case: LeakyCase, scale: np.float32, wanted: Table) -> bool:
    """Whether every runtime's Sigmoid gives the codes of a table with this scale."""
    x = np.arange(-128, 128, dtype=np.float64) - case.zero_point_in
    return _room(x * float(scale), wanted) > ROOM


def _room(reals: NDArray[np.float64], wanted: Table) -> float:
    """How far, in steps, results are from the next edge; below 0 where one gives another code."""
    with np.errstate(over="ignore"):
        steps = STEPS / (1 + np.exp(-reals))
    codes = wanted + 128
    above = np.where(codes == 0, np.inf, steps - (codes - 0.5))
    below = np.where(codes == STEPS - 1, np.inf, codes + 0.5 - steps)
    return float(np.minimum(above, below).min())
