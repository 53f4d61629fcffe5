"""Part (a), static: the file holds the source's numbers. Nothing is run.

Every weight, bias, scale, zero-point, stride, padding, window and slope is compared through the document's tensor map, and
the detector's description (anchors with their unit, classes, picture, thresholds) with the source's sidecar and the graph's own
defaults. Deliberate differences are proven one by one (``static_proofs``), never taken on trust. The comparison shares the file
readers with the converter, but none of its translation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.checking.numbers.context import Comparison, StaticContext
from xdet.checking.numbers.description import compare_description, compare_picture
from xdet.checking.numbers.keras import compare_keras
from xdet.checking.numbers.onnx_nodes import NodeComparison, compare_nodes
from xdet.checking.numbers.scales import compare_activations
from xdet.checking.numbers.segments import KerasContext
from xdet.checking.numbers.steps import compare_steps
from xdet.checking.numbers.tflite_layers import compare_operators
from xdet.checking.result import Finding, PartVerdict, ProvenChange

if TYPE_CHECKING:
    import onnx_ir as ir

    from xdet.checking.pair import OpenedPair


def check_static(pair: OpenedPair) -> tuple[PartVerdict, tuple[ProvenChange, ...]]:
    """Compare the two files; the verdict, and what differs on purpose."""
    findings = compare_description(pair)
    if pair.source_nodes is not None:
        return _check_onnx(pair, pair.source_nodes, findings), ()
    taken_over = pair.source_graph is not None and pair.document.is_taken_over
    if taken_over or (pair.source_graph is None and pair.source_steps is None):
        why = "tf2onnx wrote the graph in its own form, spread and head judge it"
        summary = f"only the description was compared: {why if taken_over else pair.source_problem}"
        return PartVerdict("static", "failed" if findings else "skipped", summary, findings), ()
    same_source = not any(finding.cause == "another-source" for finding in findings)
    context = _compared(pair, same_source=same_source)
    proven = tuple(dict.fromkeys(context.proven))
    summary = f"{context.compared:,} numbers compared"
    if pair.source_graph is None:
        summary += " with the source's, as folded"
        summary += "" if pair.document.activations == "float32" else " and quantised"
    if pair.source_graph is not None or proven:
        summary += f", {len(proven)} differ on purpose and are proven"
    if context.unaccounted:
        summary += f"; {len(context.unaccounted)} pairs belong to no source tensor: {', '.join(context.unaccounted[:3])}"
    if context.uncompared:
        summary += f"; not compared: {', '.join(dict.fromkeys(context.uncompared))}"
    findings = (*findings, *context.findings)
    return PartVerdict("static", "failed" if findings else "passed", summary, findings), proven


def _compared(pair: OpenedPair, *, same_source: bool) -> Comparison:
    """The numbers of both files, compared where the source is the model's."""
    if pair.source_graph is None:
        assert pair.source_steps is not None  # noqa: S101 - the caller looked
        keras = KerasContext(pair.graph, pair.document, pair.source_steps)
        if same_source:
            compare_picture(keras)
            compare_keras(keras)
        return keras
    context = StaticContext(pair.graph, pair.document, pair.source_graph)
    if same_source:
        compare_picture(context)
        compare_operators(context)
        compare_steps(context)
        compare_activations(context)
    return context


def _check_onnx(pair: OpenedPair, source: ir.Graph, findings: tuple[Finding, ...]) -> PartVerdict:
    """Compare with an ONNX source, whose operators the model holds as they are."""
    done = NodeComparison()
    if not any(finding.cause == "another-source" for finding in findings):
        done = compare_nodes(source, pair.graph, pair.document)
    findings = (*findings, *done.findings)
    summary = f"{done.compared:,} numbers compared with the source's, bit for bit"
    if done.absent:
        summary += f"; {len(done.absent)} operators were rewritten ({', '.join(pair.document.passes)}), the outputs judge them"
    return PartVerdict("static", "failed" if findings else "passed", summary, findings)
