"""Part (a), static: the file holds the source's numbers. Nothing is run.

Every weight, bias, scale, zero-point, stride, padding, window and slope is compared through the document's tensor map, and
the detector's description (anchors with their unit, classes, picture, thresholds) with the source's sidecar and the graph's own
defaults. Deliberate differences are proven one by one (``static_proofs``), never taken on trust. The comparison shares the file
readers with the converter, but none of its translation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.checking.numbers.constants import compare_constants
from xdet.checking.numbers.context import StaticContext
from xdet.checking.numbers.description import compare_description
from xdet.checking.numbers.keras_operators import compare_keras
from xdet.checking.numbers.keras_segments import KerasContext
from xdet.checking.numbers.onnx_nodes import NodeComparison, compare_nodes
from xdet.checking.numbers.operators import compare_operators
from xdet.checking.numbers.scales import compare_activations
from xdet.checking.numbers.steps import compare_steps
from xdet.checking.result import PartVerdict, ProvenChange

if TYPE_CHECKING:
    import onnx_ir as ir

    from xdet.checking.pair import OpenedPair


def check_static(pair: OpenedPair) -> tuple[PartVerdict, tuple[ProvenChange, ...]]:
    """Compare the two files; the verdict, and what differs on purpose."""
    if pair.source_nodes is not None:
        return _check_onnx(pair, pair.source_nodes), ()
    if pair.source_graph is None:
        return _check_keras(pair), ()
    if pair.document.is_taken_over:
        findings = compare_description(pair)
        summary = "only the description was compared: tf2onnx wrote the graph in its own form, spread and head judge it"
        return PartVerdict("static", "failed" if findings else "skipped", summary, findings), ()
    context = StaticContext(pair.graph, pair.document, pair.source_graph)
    context.findings += compare_description(pair)
    if not any(finding.cause == "another-source" for finding in context.findings):
        compare_constants(context)
        compare_operators(context)
        compare_steps(context)
        compare_activations(context)
    proven = tuple(dict.fromkeys(context.proven))
    summary = f"{context.compared:,} numbers compared, {len(proven)} differ on purpose and are proven"
    if context.unaccounted:
        summary += f"; {len(context.unaccounted)} pairs belong to no source tensor: {', '.join(context.unaccounted[:3])}"
    findings = tuple(context.findings)
    return PartVerdict("static", "failed" if findings else "passed", summary, findings), proven


def _check_onnx(pair: OpenedPair, source: ir.Graph) -> PartVerdict:
    """Compare with an ONNX source, whose operators the model holds as they are."""
    findings = list(compare_description(pair))
    done = NodeComparison()
    if not any(finding.cause == "another-source" for finding in findings):
        done = compare_nodes(source, pair.graph, pair.document)
    findings += done.findings
    summary = f"{done.compared:,} numbers compared with the source's, bit for bit"
    if done.absent:
        summary += f"; {len(done.absent)} operators were rewritten ({', '.join(pair.document.passes)}), the outputs judge them"
    return PartVerdict("static", "failed" if findings else "passed", summary, tuple(findings))


def _check_keras(pair: OpenedPair) -> PartVerdict:
    """Compare with a Keras source, whose numbers were folded, and perhaps quantised, on the way."""
    findings = compare_description(pair)
    if pair.source_steps is None:
        summary = f"only the description was compared: {pair.source_problem}"
        return PartVerdict("static", "failed" if findings else "skipped", summary, findings)
    context = KerasContext(pair.graph, pair.document, pair.source_steps)
    context.findings += findings
    if not any(finding.cause == "another-source" for finding in findings):
        compare_keras(context)
    folded = "as folded" if pair.document.activations == "float32" else "as folded and quantised"
    summary = f"{context.compared:,} numbers compared with the source's, {folded}"
    if context.uncompared:
        summary += f"; not compared: {', '.join(dict.fromkeys(context.uncompared))}"
    findings = tuple(context.findings)
    return PartVerdict("static", "failed" if findings else "passed", summary, findings)
