"""A check as text and as JSON (schema ``xdet.check``, docs/json.md).

What other processors gave, in words: lines of a check's text, and the sentences that its page shares with them.

A self-test as text and as JSON (schema ``xdet.selftest``, docs/selftest.md).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from xdet.writing.text import format_count, format_distance, format_share, format_table, join_lines, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.integer.golden import Agreement
    from xdet.checking.layer_records import LayerComparison
    from xdet.checking.result import (
        CheckResult,
        CpuCheck,
        CpuSelfTest,
        DetectionChange,
        Finding,
        GoldenDistance,
        OtherCpu,
        Placement,
        RuntimeLine,
    )
    from xdet.checking.selftest import SelfTest
    from xdet.inspection.coverage import Coverage

MOST_FINDINGS = 3  # per processor; the JSON has all


def other_cpu_lines(cpus: Sequence[OtherCpu]) -> list[str]:
    """A few lines per processor: status, self-test, check, distances, troubles; nothing without processors."""
    lines = ["", "Other processors:"] if cpus else []
    for cpu in cpus:
        lines.append(
            f"{cpu.status.upper():10} {printable(name_cpu(cpu))}: {', '.join(map(printable, cpu.simd))}"
        )
        if cpu.selftest is not None:
            lines.append(f"           self-test {printable(selftest_words(cpu.selftest))}")
        if cpu.check is not None:
            lines.append(f"           check of {parts_words(cpu.check)}")
            lines += [
                f"             {printable(line)}" for line in map(_distance_line, cpu.check.runs) if line
            ]
        lines += [f"           {trouble}" for trouble in troubles(cpu)]
    return lines


def name_cpu(cpu: OtherCpu) -> str:
    """The processor, and whether it was there."""
    return f"{cpu.cpu} (emulated)" if cpu.emulated else cpu.cpu


def selftest_words(found: CpuSelfTest) -> str:
    """The verdict, its numbers, and what a program gets that does not ask for the exact kernels."""
    told = f"{found.verdict}: {_distance_words(found.agreement)}"
    if found.plain is not None:
        told += f"; without {found.exact_kernels} = 1: {_distance_words(found.plain)}"
    return told


def parts_words(found: CpuCheck) -> str:
    """How many photographs, and each part's status."""
    parts = ", ".join(f"{part.part} {part.status}" for part in found.parts)
    count = len(found.images)
    return f"{count} photograph{'s' * (count != 1)}: {parts}"


def troubles(cpu: OtherCpu) -> list[str]:
    """What is wrong there, or gave no result, one sentence each."""
    told = []
    for what, problem in (("self-test", cpu.selftest_problem), ("check", cpu.check_problem)):
        if problem is not None:
            told.append(f"the {what} gave no result: {printable(problem)}")
    if cpu.check is None:
        return told
    findings = [finding for part in cpu.check.parts for finding in part.findings]
    told += [printable(f"{f.part}: {f.cause}: {f.message}") for f in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        told.append(f"and {len(findings) - MOST_FINDINGS} more findings (--json has them all)")
    for missing in cpu.check.missing:
        if missing.asked or missing.crashed:
            what = "crashed" if missing.crashed else "did not run"
            told.append(printable(f"{missing.name} {what}: {missing.reason}"))
    return told


def _distance_line(run: RuntimeLine) -> str:
    found = run.nearest
    if found is None:
        return ""
    steps = f"max {format_distance(found.max_steps)}, mean {format_distance(found.mean_steps)}"
    return f"{run.name}: {found.differing:,} of {found.values:,} differ from {found.second} there ({steps})"


def _distance_words(found: GoldenDistance) -> str:
    told = f"{found.differing:,} of {found.compared:,} head values differ"
    return f"{told}, by up to {format_distance(found.worst_lsb)} LSB" if found.differing else told


CHECK_SCHEMA = "xdet.check"
CHECK_VERSION = 1
TITLES = {
    "static": "same numbers in the file",
    "exact": "equal to LiteRT XNNPACK",
    "spread": "no further than LiteRT from itself",
    "head": "boxes follow from the head",
}
ADVICE = {
    "another-source": "name the source that the model was made of, or convert again",
    "weight": "the file was edited or damaged: convert the source again",
    "bias": "the file was edited or damaged: convert the source again",
    "scale": "a quantisation was changed behind the conversion: convert again, and deploy the file as it is",
    "zero-point": "a quantisation was changed behind the conversion: convert again, and deploy the file as it is",
    "padding": "a tool moved the padding to the other side: convert again, and leave the graph alone",
    "attributes": "a tool changed an operator: convert again, and leave the graph alone",
    "slope": "a LeakyReLU was changed: convert again",
    "float-convolution": "a layer runs in float: convert again, and let no tool fold its DequantizeLinear or QuantizeLinear",
    "missing-tensor": "the graph is not the one that was converted: convert again",
    "anchors": "correct --anchors, or the source's sidecar",
    "anchor-unit": "correct --anchor-unit, or the source's sidecar",
    "classes": "correct --classes, or the source's sidecar",
    "image-input": "correct the source's sidecar (rescaling, resize), or convert again",
    "thresholds": "convert again with --score-threshold and --iou-threshold",
    "thresholds-swapped": "convert again: the two thresholds have changed places",
    "colour-order": "feed RGB, and convert again: the graph reads BGR",
    "layer": "--layers tells the first layer at fault, --repro FILE.onnx writes it as a model",
    "iou-rule": "choose an IoU threshold that no overlap equals, or another runtime",
    "rows": "report it, with the model and this output",
}
CHANGE_CAUSES = {
    "score": "score within rounding of the threshold",
    "iou": "IoU within rounding of the threshold",
    "order": "NMS tie: two boxes change places",
    "follows": "follows from another change",
    "limit": "number of rows or candidates",
    "iou-rule": "IoU equal to the threshold",
    "rounding": "rounding moves a corner",
    "layer": "a layer is further off than kernels may be",
    "head": "not from its own head",
}
UNSTATED = "give them (--config, --anchors, --anchor-unit, --classes, --rescaling, --resize), or a sidecar"
MOST_LINES = 12  # of findings and changes each; the JSON has all


def check_to_json(result: CheckResult) -> str:
    """JSON text with a final newline; equal results give equal bytes. A distance that is infinite is null."""
    data = asdict(result)
    document = {
        "schema": CHECK_SCHEMA,
        "version": CHECK_VERSION,
        "passed": result.passed,
        "complete": result.complete,
        "model": {"name": data.pop("model"), "sha256": data.pop("model_sha256")},
        "source": {"name": data.pop("source"), "sha256": data.pop("source_sha256")},
        **data,
    }
    if result.layers is not None:
        fault = result.layers.first_fault
        document["layers"] = {"first_fault": None if fault is None else fault.tensor, **data["layers"]}
    document["other_cpus"] = [
        {"cpu": cpu.cpu, "status": cpu.status, **entry}
        for cpu, entry in zip(result.other_cpus, data["other_cpus"], strict=True)
    ]
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_text(result: CheckResult, *, repro: bool = False) -> str:
    """The verdict, part by part; what is wrong and what to do; the runtimes; what changed between them.

    Args:
        result: the check.
        repro: the first layer at fault is written as a model, too, so nobody is advised to ask for it.
    """
    lines = [f"{result.model} against {result.source}, {len(result.images)} photographs", ""]
    if result.uncompared:
        listed = ", ".join(result.uncompared)
        lines[1:1] = [f"NOT COMPARED: {listed}: the source states none; {UNSTATED}"]
    for part in result.parts:
        lines.append(f"{part.status.upper():8} {part.part}: {TITLES[part.part]}")
        lines.append(f"         {part.summary}")
        lines += _finding_lines(part.findings, layer_advice(result, repro=repro))
    if result.runs:
        lines += ["", *_runs_table(result).splitlines()]
        lines += [f"{run.name} {note}" for run in result.runs for note in run.notes]
    lines += _layer_lines(result)
    lines += _change_lines(result)
    for missing in result.missing:
        what = "crashed" if missing.crashed else "did not run" if missing.asked else "could be added"
        lines.append(f"{missing.name} {what}: {missing.reason}")
    lines += other_cpu_lines(result.other_cpus)
    lines += ["", verdict_text(result)]
    return join_lines(lines)


def verdict_text(result: CheckResult) -> str:
    """The verdict in one line, with what was left out."""
    if not result.passed:
        causes: list[str] = list(dict.fromkeys(finding.cause for finding in result.findings))
        causes += [f"on {printable(cpu.cpu)}" for cpu in result.other_cpus if cpu.status == "failed"]
        return f"FAILED: {', '.join(causes)} (docs/check.md tells what to do)"
    skipped = [part.part for part in result.parts if part.status == "skipped"]
    left_out = [*skipped, *result.uncompared]
    notes = [f"not compared: {', '.join(left_out)}"] if left_out else []
    if any(missing.asked or missing.crashed for missing in result.missing):
        notes.append("a runtime that was asked for gave no result")
    if result.layers_problem is not None:
        notes.append("layers were not compared")
    gaps = [printable(cpu.cpu) for cpu in result.other_cpus if cpu.status == "incomplete"]
    if gaps:
        notes.append(f"not everything ran on {', '.join(gaps)}")
    return ("PASSED" if result.complete else "INCOMPLETE, nothing failed") + (
        f" ({'; '.join(notes)})" if notes else ""
    )


def layer_advice(result: CheckResult, *, repro: bool = False) -> str:
    """What to do about a layer at fault that was not done already."""
    if result.layers is None:
        return ADVICE["layer"]
    return (
        "report it, with the model that --repro wrote" if repro else "--repro FILE.onnx writes it as a model"
    )


def _finding_lines(findings: Sequence[Finding], about_layers: str) -> list[str]:
    lines = []
    for finding in findings[:MOST_LINES]:
        advice = about_layers if finding.cause == "layer" else ADVICE[finding.cause]
        lines += [f"         {finding.cause}: {finding.message}", f"           -> {advice}"]
    if len(findings) > MOST_LINES:
        lines.append(f"         ... and {len(findings) - MOST_LINES} more (--json has them all)")
    return lines


def _runs_table(result: CheckResult) -> str:
    largest = "max LSB" if result.unit == "LSB" else "max"
    headers = ("runtime", "images", "nearest", "differ", largest, "mean", "boxes", "must be")
    rows = [_run_row(result, run) for run in result.runs]
    yardstick = result.yardstick
    if yardstick is not None:
        distance = (
            f"{yardstick.differing:,}",
            format_distance(yardstick.max_steps),
            format_distance(yardstick.mean_steps),
        )
        rows.append((yardstick.first, "", yardstick.second, *distance, "", "the yardstick"))
    return format_table(headers, rows)


def _run_row(result: CheckResult, run: RuntimeLine) -> tuple[str, ...]:
    near = run.nearest
    distance = ("",) * 4
    if near is not None:
        distance = (
            near.second,
            f"{near.differing:,}",
            format_distance(near.max_steps),
            format_distance(near.mean_steps),
        )
    limit = "" if result.allowed_max is None else f"<= {format_distance(result.allowed_max)}"
    must = "exact" if run.must_be_exact else limit
    return (run.name, str(run.images), *distance, boxes_text(run), must)


def boxes_text(run: RuntimeLine) -> str:
    """Whether a runtime's boxes follow from its heads, and how many probes it followed."""
    boxes = {True: "follow", False: "DO NOT FOLLOW", None: ""}[run.head_equal]
    probes = [] if run.probes is None else [f"{run.probes_followed} of {run.probes} probes"]
    return "; ".join([boxes, *probes])


def _layer_lines(result: CheckResult) -> list[str]:
    """What ``--layers`` found: the layers in which anything differs, and what runs on integers."""
    lines = [""] if result.coverage or result.layers or result.layers_problem else []
    if result.layers_problem is not None:
        lines.append(f"layers were not compared: {result.layers_problem}")
    if result.layers is not None:
        found, fault = result.layers, result.layers.first_fault
        fused = (
            f"differs in {found.fused_differs:,} values of the head"
            if found.fused_differs
            else "has the same head"
        )
        told = "none at fault" if fault is None else f"the first at fault is {fault.tensor!r}"
        lines.append(f"{len(found.layers)} layers compared, {told}; the fused run {fused}")
        lines += _layers_table(found)
    for coverage in result.coverage:
        lines.append(_coverage_line(coverage))
        lines += [f"  in float: {miss.node}: {miss.reason}" for miss in coverage.misses]
    lines += [f"{placement.runtime}: {placement_text(placement)}" for placement in result.placement]
    return lines


def placement_text(placement: Placement) -> str:
    """Where the nodes go, in one line."""
    if placement.nodes is None:
        return "ONNX Runtime does not tell where its nodes run"
    text = "nodes on " + ", ".join(f"{provider}: {count}" for provider, count in placement.nodes.items())
    left = ", ".join(f"{count} {operator}" for operator, count in sorted(placement.fallen_back.items()))
    return f"{text}; fell back to the CPU: {left}" if left else text


def _layers_table(found: LayerComparison) -> list[str]:
    """The layers in which anything differs; of a Keras source that is usually every layer."""
    rows = [
        (
            *(layer.tensor, layer.operator, format_distance(layer.accumulated.worst)),
            *(format_distance(layer.local.worst), _bound(layer.local_bound)),
            *(
                ("", "")
                if layer.kernel is None
                else (str(layer.kernel.worst), _bound(layer.kernel_bound_lsb))
            ),
        )
        for layer in found.layers
        if layer.accumulated.worst or layer.local.worst or (layer.kernel is not None and layer.kernel.worst)
    ]
    if not rows:
        return []
    unit = "LSB" if found.unit == "LSB" else "max"
    headers = ("layer", "operator", f"accumulated {unit}", "local", "allowed", "kernel", "allowed")
    return [*format_table(headers, rows).splitlines(), *_unit_lines(found)]


def _bound(value: float | None) -> str:
    return "not judged" if value is None else format_distance(value)


def _unit_lines(found: LayerComparison) -> list[str]:
    """What the numbers of a Keras source are."""
    if found.unit != "LSB":
        return [f"distances are fractions {found.unit} of each layer"]
    if any(layer.local_bound is None for layer in found.layers):
        return ["local: what quantising that layer costs against Keras, measured, and no fault"]
    return []


def _coverage_line(coverage: Coverage) -> str:
    total = format_count(coverage.macs_total)
    if coverage.macs_integer is None:
        return f"onnxruntime:{coverage.provider} does not show which of its {total} MACs run on integers"
    share = format_share(coverage.macs_integer, coverage.macs_total)
    return f"onnxruntime:{coverage.provider} runs {share} of {total} MACs on integers"


def _change_lines(result: CheckResult) -> list[str]:
    if not result.changes:
        return []
    counts = Counter((c.runtime, c.kind, c.cause) for c in result.changes)
    at = f"score > {result.thresholds.score:g}, IoU > {result.thresholds.iou:g}"
    lines = ["", f"Detections that differ from the source's ({at}):"]
    lines += [
        f"  {runtime}: {count} {kind}: {CHANGE_CAUSES[cause]}"
        for (runtime, kind, cause), count in counts.items()
    ]
    lines += [_change_line(change) for change in result.changes[:MOST_LINES]]
    if len(result.changes) > MOST_LINES:
        lines.append(f"  ... and {len(result.changes) - MOST_LINES} more (--json has them all)")
    return [*lines, ""]


def _change_line(change: DetectionChange) -> str:
    return f"    {change.image}, {change.runtime}, box {change.anchor} {change.kind}: {change.cause}: {change.message}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    return [_finite(member) for member in value] if isinstance(value, list | tuple) else value


SELFTEST_SCHEMA = "xdet.selftest"
SELFTEST_VERSION = 1


def selftest_to_json(found: SelfTest) -> str:
    """JSON text with a final newline; equal results give equal bytes. A distance that is infinite is null."""
    data = {"schema": SELFTEST_SCHEMA, "version": SELFTEST_VERSION, **asdict(found)}
    data["model"] = {"name": PurePath(found.model).name, "sha256": data.pop("sha256")}
    for comparison in (data["agreement"], data["plain"]):
        if comparison is not None and math.isinf(comparison["worst_lsb"]):
            comparison["worst_lsb"] = None
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def selftest_text(found: SelfTest) -> str:
    """The verdict in one line; below it what to do, where there is something to do."""
    lines = [
        f"{found.model} on {found.runtime}: {found.verdict}: {_described(found.agreement, found.bound_lsb)}"
    ]
    if found.exact_kernels is not None and found.plain is not None:
        plain = _described(found.plain, 0)
        lines.append(
            f"  xdet chose exact kernels, because this CPU's fast ones saturate; without them: {plain}"
        )
        lines.append(f"  in programs of your own, set the session entry {found.exact_kernels} = 1")
    if not found.passed:
        lines.append(f"  {_advice(found)}")
    return join_lines(lines)


def _described(agreement: Agreement, bound_lsb: int) -> str:
    if agreement.exact:
        return f"all {agreement.compared} head values have the golden bits"
    allowed = f"{bound_lsb} allowed" if bound_lsb else "none allowed"
    return (
        f"{agreement.differing} of {agreement.compared} head values differ, "
        f"by up to {agreement.worst_lsb:.3g} LSB ({allowed})"
    )


def _advice(found: SelfTest) -> str:
    if found.agreement.off_lattice:
        return (
            f"{found.agreement.off_lattice} values are no code of the head: the quantisation was stripped or changed; "
            f"convert the source again, and deploy the file as xdet convert wrote it"
        )
    if found.runtime.endswith(":cpu"):
        return "the file is not the one that was converted, or this ONNX Runtime computes other integers; convert again"
    return "this provider computes other integers than the source's kernels; --provider cpu tells whether the file is sound"
