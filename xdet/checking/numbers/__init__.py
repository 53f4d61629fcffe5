"""Part (a), static: the file holds the source's numbers. Nothing is run.

The detector's description (anchors with their unit, classes, picture, thresholds) is compared here with the source's
sidecar and the graph's own defaults; every weight, bias, scale, zero-point, stride, padding, window and slope by the
source's format (``tflite``, ``keras``, ``onnx``), in the form that passes gave them (``rewrites``), and which tensors
each operator reads (``wiring``). Deliberate differences are proven one by one (``activations``, ``codes``, ``slopes``),
never taken on trust. The comparison shares the file readers with the converter, but none of its translation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.grids import AnchorHead
from converters.heads.ssd import Ssd
from converters.heads.yolo_v2 import YoloV2
from converters.spec import THRESHOLD_INPUTS
from xdet.checking.numbers.comparison import StaticComparison
from xdet.checking.result import Cause, Finding, PartVerdict, ProvenChange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.heads.base import Head
    from converters.spec import DetectorSpec
    from xdet.checking.pair import OpenedPair


def check_static(pair: OpenedPair) -> tuple[PartVerdict, tuple[ProvenChange, ...]]:
    """Compare the two files; the verdict, and what differs on purpose."""
    findings = compare_description(pair)
    if pair.origin.compare is None:
        summary = f"only the description was compared: {pair.origin.problem}"
        return PartVerdict("static", "failed" if findings else "skipped", summary, findings), ()
    comparison = StaticComparison(pair.graph, pair.document)
    if not any(finding.cause == "another-source" for finding in findings):
        comparison = pair.origin.compare(pair.graph, pair.document)
    proven = tuple(dict.fromkeys(comparison.proven))
    summary = f"{comparison.compared:,} numbers compared{comparison.how}"
    summary += f", {len(proven)} differ on purpose and are proven" if proven else ""
    summary = "; ".join([summary, *comparison.remarks])
    if comparison.uncompared:
        summary += f"; not compared: {', '.join(dict.fromkeys(comparison.uncompared))}"
    findings = (*findings, *comparison.findings)
    return PartVerdict("static", "failed" if findings else "passed", summary, findings), proven


Sizes = tuple[tuple[float, float], ...]


def compare_description(pair: OpenedPair) -> tuple[Finding, ...]:
    """Compare source, anchors, classes, picture and thresholds."""
    faults: list[tuple[Cause, str]] = []
    made_of = pair.document.source
    if made_of.sha256 != pair.source_sha256:
        expected = f"'{pair.model.file}' was made of {made_of.name!r} (SHA-256 {made_of.sha256[:12]}...)"
        other = f"'{pair.source.file}' is {pair.source_sha256[:12]}..."
        message = f"{expected}, but {other}; give the file it was made of, or convert this one"
        faults.append(("another-source", message))
    faults += [*_threshold_faults(pair), *_description_faults(pair.document.spec, pair)]
    return tuple(Finding("static", cause, message) for cause, message in faults)


def uncompared(pair: OpenedPair) -> tuple[str, ...]:
    """What the model says of the detector and nobody states of the source."""
    spec, stated = pair.document.spec, pair.stated
    takes_anchors = spec.head is not None and bool(spec.head.anchor_units)
    takes_priors = spec.head is not None and spec.head.asks_for_priors(pair.origin.facts)
    has_list = stated.anchors is not None or stated.head is not None
    facts = {
        "anchors": takes_anchors and not has_list and not stated.lacks_unit,
        "anchor-unit": takes_anchors and stated.lacks_unit,
        "priors": takes_priors and stated.head is None,
        "classes": bool(spec.class_names) and stated.class_names is None,
        "rescaling": stated.rescaling is None,
        "resize": stated.resize is None,
        "color": spec.image.color != "rgb" and stated.color is None,  # rgb is what every source has unless it says so
    }
    return tuple(name for name, missing in facts.items() if missing)


def _description_faults(spec: DetectorSpec, pair: OpenedPair) -> Iterator[tuple[Cause, str]]:
    stated, image = pair.stated, spec.image
    if isinstance(spec.head, YoloV2) and stated.anchors is not None:
        yield from _anchor_faults(spec.head, replace(spec.head, anchors=stated.anchors))
    if spec.head is not None and stated.head is not None:
        yield from _head_faults(spec.head, stated.head)
    if stated.class_names and spec.class_names and spec.class_names != stated.class_names:
        message = f"the source says {list(stated.class_names)}, the model {list(spec.class_names)}"
        yield "classes", f"class names: {message}"
    for what, ours, theirs in (
        ("height and width", (image.height, image.width), (pair.origin.facts.height, pair.origin.facts.width)),
        ("rescaling", image.rescaling, stated.rescaling),
        ("resize", image.resize, stated.resize),
        ("color", image.color, stated.color),
    ):
        if theirs is not None and ours != theirs:
            yield "image-input", f"the picture's {what}: the source says {theirs}, the model {ours}"


def _anchor_faults(model: YoloV2, source: YoloV2) -> Iterator[tuple[Cause, str]]:
    if _are_close(model.anchor_fractions, source.anchor_fractions):
        return  # as the float32 of the graph sees them
    ours, theirs = model.anchors, source.anchors
    if ours.unit != theirs.unit and _are_close(ours.sizes_wh, theirs.sizes_wh):
        message = (
            f"the source says {theirs.unit!r}, the model {ours.unit!r}: every box is {model.grid_w} times too wide or"
        )
        what = f"the anchors are the source's, in another unit: {message} too narrow"
        yield "anchor-unit", f"{what}; convert with --anchor-unit {theirs.unit}"
        return
    message = f"the source says {theirs.sizes_wh} in {theirs.unit}s, the model {ours.sizes_wh} in {ours.unit}s"
    yield "anchors", f"anchors: {message}"


def _head_faults(model: Head, source: Head) -> Iterator[tuple[Cause, str]]:
    """Faults of anchors of several grids, and of priors: the first that differs stands for all."""
    if isinstance(model, AnchorHead) and isinstance(source, AnchorHead):
        for ours, theirs in zip(model.grids, source.grids, strict=False):  # another source may have others
            if not _are_close(ours.anchors_px, theirs.anchors_px) or ours.xy_scale != theirs.xy_scale:
                says = [f"{grid.anchors_px} in pixels, scale_x_y {grid.xy_scale:g}" for grid in (theirs, ours)]
                what = f"anchors of the grid {ours.rows} x {ours.columns}"
                yield "anchors", f"{what}: the source says {says[0]}, the model {says[1]}"
                return
    if isinstance(model, Ssd) and isinstance(source, Ssd):
        for name in ("coding", "yx_first", "scales", "activation"):
            if getattr(model, name) != getattr(source, name):
                message = f"the source says {getattr(source, name)}, the model {getattr(model, name)}"
                yield "priors", f"{name} of the SSD head: {message}"
        for index, (prior, stated) in enumerate(zip(model.priors or (), source.priors or (), strict=False)):
            if prior != stated:
                yield "priors", f"prior {index}: the source says {stated}, the model {prior}"
                return


def _are_close(one: Sizes, other: Sizes) -> bool:
    """Equal but for the rounding to float32 that a sidecar's decimals and a document's may not share."""
    return len(one) == len(other) and bool(np.allclose(np.array(one), np.array(other), rtol=1e-6, atol=0))


def _threshold_faults(pair: OpenedPair) -> Iterator[tuple[Cause, str]]:
    """The graph's own defaults against the document's, where they are initialisers."""
    thresholds = pair.document.spec.thresholds
    wanted = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    constants = [pair.graph.constant(name) for name in wanted]
    held = [np.float32(c.item() if c.size == 1 else np.nan) for c in constants if c is not None]
    expected = [np.float32(value) for value in wanted.values()]
    if len(held) < len(expected) or held == expected:
        return
    is_swapped = held == expected[::-1]
    message = ", ".join(
        f"{name} is {float(value):.9g}, expected {wanted[name]:.9g}"
        for name, value in zip(wanted, held, strict=True)
        if value != np.float32(wanted[name])
    )
    swapped = "the two thresholds are swapped: " if is_swapped else ""
    message = f"{swapped}{message}; the document and the graph must agree, convert the source again"
    yield "thresholds-swapped" if is_swapped else "thresholds", message


def compare_picture(context: StaticComparison) -> None:
    """What stands between the image and the network: a transposition, and the rescaling."""
    rescaling = context.document.spec.image.rescaling
    wanted = {"Mul": rescaling.scale, "Add": rescaling.offset}
    name = context.picture
    while (node := context.graph.producers.get(name)) is not None:
        constants = [context.graph.constant(value) for value in node.inputs[1:]]
        constant = constants[0] if constants else None
        if node.op == "Gather" and constant is not None and constant.tolist() == [2, 1, 0]:
            message = f"Gather {node.name!r} exchanges red and blue in front of the network"
            context.fault("colour-order", None, f"{message}: the graph takes BGR where the contract says RGB")
        elif node.op in wanted and constant is not None:
            context.compared += 1
            expected = np.float32(wanted[node.op])
            if constant.size != 1 or constant.reshape(-1)[0] != expected:
                message = f"expected {expected:.9g}, found {constant.reshape(-1)[:4].tolist()}"
                context.fault("image-input", None, f"the rescaling {node.op} {node.name!r}: {message}")
        elif node.op not in ("Transpose", "Cast", "QuantizeLinear", "DequantizeLinear"):
            message = f"{node.op} {node.name!r} stands between the image and the network, expected none"
            context.fault("image-input", None, f"{message}; convert the source again")
        name = node.inputs[0]
