"""What a head that is too far off can be blamed on: swapped colours, or the first layer that leaves the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.checking.result import Finding
from xdet.checking.runs import open_litert
from xdet.runtimes.choices import RuntimeChoices
from xdet.runtimes.opening import open_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdet.checking.opened import OpenedPair
    from xdet.checking.result import PartName
    from xdet.checking.runs import Run

XNNPACK = RuntimeChoices("litert", "xnnpack", 1)
ORT = RuntimeChoices("onnxruntime", "cpu", None)
COLOURS_FACTOR = 4  # with swapped colours the head must come that much nearer


def diagnose_head(
    pair: OpenedPair, pixels: NDArray[np.uint8], run: Run, source: Run, part: PartName
) -> list[Finding]:
    """Findings about one run whose head is too far from the source's, on the image where it is furthest."""
    if not run.name.startswith("onnxruntime:cpu"):
        return []
    count = min(len(run.heads), len(source.heads))
    off = np.abs(run.heads[:count] - source.heads[:count]).reshape(count, -1).max(axis=1)
    image = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    picture = pixels[image : image + 1]
    return [
        *_swapped_colours(
            pair, picture, source.heads[image : image + 1], float(off[image]), part=part, name=run.name
        ),
        *_first_divergence(pair, picture, part, run.name),
    ]


def _swapped_colours(
    pair: OpenedPair,
    picture: NDArray[np.uint8],
    wanted: NDArray[np.float32],
    off: float,
    *,
    part: PartName,
    name: str,
) -> list[Finding]:
    with open_model(pair.model, ORT) as runtime:
        swapped = runtime.head(np.ascontiguousarray(picture[..., ::-1]))
    nearer = float(np.abs(swapped - wanted).max())
    if not nearer * COLOURS_FACTOR < off:
        return []
    told = (
        f"fed with blue and red exchanged, {name} comes to {nearer:.4g} from the source's head instead of {off:.4g}: the graph "
        f"takes BGR where the contract says RGB"
    )
    return [Finding(part, "colour-order", told, runtime=name)]


def _first_divergence(
    pair: OpenedPair, picture: NDArray[np.uint8], part: PartName, name: str
) -> list[Finding]:
    """The first tensor of a TFLite source, in its order, whose codes differ."""
    twins = {} if pair.source_graph is None else _comparable(pair)
    if not twins:
        return []
    assert pair.source_graph is not None  # noqa: S101 - without it there are no twins
    source_names = [
        pair.source_graph.model.tensors[pair.source_graph.indices[tensor]].name for tensor in twins
    ]
    with (
        open_model(pair.model, ORT) as finished,
        open_litert(pair.source, pair.document.spec, XNNPACK) as source,
    ):
        here = finished.tensors(picture, [str(twin.onnx) for twin in twins.values()])
        there = source.tensors(picture, source_names)
    for (tensor, twin), source_name in zip(twins.items(), source_names, strict=True):
        found = _as_source(here[str(twin.onnx)], twin.layout, twin.zero_point_shift)
        steps = np.abs(found - there[source_name].astype(np.int64))
        if found.shape == steps.shape and steps.any():
            told = (
                f"the first layer whose codes leave the source's is {tensor!r}: {int((steps > 0).sum()):,} of {steps.size:,} "
                f"differ, by up to {int(steps.max())} LSB"
            )
            return [Finding(part, "layer", told, runtime=name, layer=tensor)]
    return []


def _comparable(pair: OpenedPair) -> dict[str, Any]:
    """Integer tensors that both sides compute, in the order in which the source computes them."""
    source = pair.source_graph
    assert source is not None  # noqa: S101 - the caller looked
    found = {}
    for op in source.model.operators:
        for index in op.outputs:
            twin = pair.document.tensors.get(source.names[index])
            computed = twin is not None and twin.onnx in pair.graph.producers
            if computed and source.model.tensors[index].dtype in ("int8", "uint8"):
                found[source.names[index]] = twin
    return found


def _as_source(codes: NDArray[Any], layout: str, shift: int) -> NDArray[np.int64]:
    """Codes of the graph in the source's layout and dialect."""
    if "->" in layout:
        before, after = layout.split("->")
        codes = np.transpose(codes, [after.index(axis) for axis in before])
    return codes.astype(np.int64) - shift
