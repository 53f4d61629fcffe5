"""Part (a), static: the file holds the source's numbers. Nothing is run.

Every weight, bias, scale, zero-point, stride, padding, window and slope is compared with the source's layers
(``layers``), in the form that passes gave them (``rewrites``), and the detector's description (anchors with their unit,
classes, picture, thresholds) with the source's sidecar and the graph's own defaults. Deliberate differences are proven
one by one (``proofs``), never taken on trust. The comparison shares the file readers with the converter, but none of
its translation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.checking.numbers.codes import compare_steps
from xdet.checking.numbers.context import StaticComparison, StaticContext
from xdet.checking.numbers.description import compare_description, compare_picture
from xdet.checking.numbers.scales import compare_activations
from xdet.checking.numbers.tflite_layers import compare_operators
from xdet.checking.result import PartVerdict, ProvenChange

if TYPE_CHECKING:
    from converters.spec import ModelDocument
    from xdet.checking.numbers.source_graph import SourceGraph
    from xdet.checking.pair import OpenedPair
    from xdet.model.graph import FinishedGraph


def check_static(pair: OpenedPair) -> tuple[PartVerdict, tuple[ProvenChange, ...]]:
    """Compare the two files; the verdict, and what differs on purpose."""
    findings = compare_description(pair)
    if pair.origin.compare is None:
        summary = f"only the description was compared: {pair.origin.problem}"
        return PartVerdict("static", "failed" if findings else "skipped", summary, findings), ()
    found = StaticComparison(pair.graph, pair.document)
    if not any(finding.cause == "another-source" for finding in findings):
        found = pair.origin.compare(pair.graph, pair.document)
    proven = tuple(dict.fromkeys(found.proven))
    summary = f"{found.compared:,} numbers compared{found.how}"
    summary += f", {len(proven)} differ on purpose and are proven" if proven else ""
    findings = (*findings, *found.findings)
    return PartVerdict(
        "static", "failed" if findings else "passed", "; ".join([summary, *found.remarks()]), findings
    ), proven


def compare_tflite(source: SourceGraph, graph: FinishedGraph, document: ModelDocument) -> StaticComparison:
    """The numbers of a TFLite source: integers exactly, or proven to compute the same codes."""
    context = StaticContext(graph, document, source)
    compare_picture(context)
    compare_operators(context)
    compare_steps(context)
    compare_activations(context)
    return context
