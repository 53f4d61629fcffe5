"""A check as a report, and as JSON (schema ``xdet.check``, docs/json.md); ``page`` adds what only a page shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from converters.errors import counted
from converters.files import FINISHED
from xdet.checking.selftest import agreement_words
from xdet.checking.tolerance import tolerance_text
from xdet.runtimes.table import usual_runtime
from xdet.writing.blocks import Cell, Folded, Items, Report, Section, Strips, Table, Text, Verdict, Wrong, counted_value
from xdet.writing.files import to_json
from xdet.writing.terminal import report_text
from xdet.writing.text import format_count, format_distance, format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdet.checking.result import (
        CheckResult,
        CpuCheck,
        LayerComparison,
        LayerDistance,
        LayerResult,
        MissingRuntime,
        NodePlacement,
        OtherCpu,
        PartVerdict,
        RuntimeLine,
        Tolerance,
    )  # fmt: skip
    from xdet.checking.selftest import SelfTest
    from xdet.inspection.coverage import Coverage
    from xdet.writing.blocks import Block, Inline, Status, Value

CHECK_SCHEMA = "xdet.check"
CHECK_VERSION = 1
TITLES = {
    "static": "same numbers in the file",
    "exact": "equal where that is promised",
    "spread": "no further than the source's kernels from each other",
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
    "float-convolution": "a layer runs in float: convert again, and let no tool fold its DequantizeLinear or "
    "QuantizeLinear",
    "missing-tensor": "the graph is not the one that was converted: convert again",
    "wiring": "a tool changed what an operator reads: convert again, and leave the graph alone",
    "anchors": "correct --anchors, or the source's sidecar",
    "anchor-unit": "correct --anchor-unit, or the source's sidecar",
    "priors": "correct --priors, --prior-format, --variances or --score-activation, or the source's sidecar",
    "classes": "correct --classes, or the source's sidecar",
    "image-input": "correct --rescaling, --resize or --color, or the source's sidecar, or convert again",
    "thresholds": "convert again with --score-threshold and --iou-threshold",
    "thresholds-swapped": "convert again: the two thresholds have changed places",
    "colour-order": "feed RGB, and convert again: the graph reads BGR",
    "layer": "--layers tells the first layer at fault, --repro FILE.onnx writes it as a model",
    "iou-rule": "choose an IoU threshold that no overlap equals, or another runtime",
    "tolerance": "find the cause in the other findings, or sign another tolerance",
    "rows": "report it, with the model and this output",
    "resize": "convert without --any-size for this runtime, and prepare photographs outside",
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
# What states a fact of the source, by the names of CheckResult.uncompared.
STATED_BY = {
    "anchors": "--anchors with --anchor-unit",
    "anchor-unit": "--anchor-unit",
    "priors": "--priors",
    "classes": "--classes",
    "rescaling": "--rescaling",
    "resize": "--resize",
    "color": "--color",
}
MOST_LINES = 12  # of changes on a terminal; the JSON has all
STRIPS = ("accumulated", "local", "kernel")
SELFTEST_KEYS = ("runtime", "verdict", "bound_lsb", "agreement", "exact_kernels", "plain")


def check_to_json(result: CheckResult) -> str:
    """JSON text with a final newline; equal results give equal bytes. A distance that is infinite is null."""
    data = asdict(result)
    document = {
        "passed": result.passed,
        "complete": result.complete,
        "model": {"name": data.pop("model"), "sha256": data.pop("model_sha256")},
        "source": {"name": data.pop("source"), "sha256": data.pop("source_sha256")},
        **data,
    }
    if result.layers is not None:
        fault = result.layers.first_fault
        layers = [_layer_entry(layer) for layer in result.layers.layers]
        first = {"first_fault": None if fault is None else fault.tensor}
        document["layers"] = {**first, **data["layers"], "layers": layers}
    document["other_cpus"] = [
        {"cpu": cpu.cpu, "status": cpu.status, **entry, "selftest": _selftest_entry(entry["selftest"])}
        for cpu, entry in zip(result.other_cpus, data["other_cpus"], strict=True)
    ]
    return to_json(CHECK_SCHEMA, CHECK_VERSION, document)


def _layer_entry(layer: LayerResult) -> dict[str, Any]:
    """A layer under the schema's names: distances in codes have ``_lsb`` behind theirs."""

    def entry(distance: LayerDistance, suffix: str) -> dict[str, float]:
        counts = {"differing": distance.differing, "values": distance.values}
        return {**counts, f"worst{suffix}": distance.worst, f"total{suffix}": distance.total}

    suffix = "_lsb" if layer.in_codes else ""
    return {
        "tensor": layer.tensor,
        "operator": layer.operator,
        "onnx": layer.onnx,
        "accumulated": entry(layer.accumulated, suffix),
        "local": entry(layer.local, suffix),
        "kernel": None if layer.kernel is None else entry(layer.kernel, "_lsb"),
        f"local_bound{suffix}": layer.local_bound,
        "kernel_bound_lsb": layer.kernel_bound,
    }


def _selftest_entry(selftest: dict[str, Any] | None) -> dict[str, Any] | None:
    """A self-test there, without the model, and with its comparisons in three numbers."""
    if selftest is None:
        return None

    def entry(name: str) -> dict[str, float] | None:
        agreement = selftest[name]
        return agreement and {key: agreement[key] for key in ("differing", "compared", "worst_lsb")}

    kept = {name: selftest[name] for name in SELFTEST_KEYS}
    return {**kept, "agreement": entry("agreement"), "plain": entry("plain")}


def check_text(result: CheckResult, *, repro: bool = False, width: int | None = None) -> str:
    """``check_report`` for a terminal; ``width`` is its columns, None never wraps."""
    return report_text(check_report(result, repro=repro), width)


def check_report(result: CheckResult, *, repro: bool = False, pictures: tuple[Block, ...] = ()) -> Report:
    """Part by part, what is wrong and what to do; the runtimes; what changed between them; the verdict.

    With ``repro`` the first layer at fault is written as a model, too, so nobody is advised to ask for it; ``pictures``
    are what a page shows of the detections that differ.
    """
    about_layers = layer_advice(result, repro=repro)
    sections = (
        Section("Verdict in four parts", tuple(_part(part, about_layers) for part in result.parts)),
        Section("Runtimes", tuple(_runtime_blocks(result))),
        Section("Other processors", tuple(_other_cpu_blocks(result))),
        Section("Layers", tuple(_layer_blocks(result))),
        Section("Integer coverage", tuple(_coverage_blocks(result))),
        Section("Detections that differ", (*_change_blocks(result), *pictures)),
    )
    title = f"xdet check: {result.model}"
    return Report(title, sections, tuple(_lead(result)), status_of(result), verdict_text(result))


def status_of(result: CheckResult) -> Status:
    """How the whole ended."""
    if not result.passed:
        return "failed"
    if not result.complete:
        return "incomplete"
    return "tolerated" if any(part.status == "tolerated" for part in result.parts) else "passed"


def verdict_text(result: CheckResult) -> str:
    """The verdict in one line, with what was left out."""
    if not result.passed:
        causes: list[str] = list(dict.fromkeys(finding.cause for finding in result.findings))
        causes += [f"on {cpu.cpu}" for cpu in result.other_cpus if cpu.status == "failed"]
        return f"FAILED: {', '.join(causes)} (docs/check.md tells what to do)"
    skipped = [part.part for part in result.parts if part.status == "skipped"]
    left_out = [*(["the output"] if result.output_uncompared else []), *skipped, *result.uncompared]
    tolerated = [part.part for part in result.parts if part.status == "tolerated"]
    notes = [f"within the tolerance, not equal: {', '.join(tolerated)}"] if tolerated else []
    notes += [f"not compared: {', '.join(left_out)}"] if left_out else []
    if any(missing.is_gap for missing in result.missing):
        notes.append("a runtime that was asked for gave no result")
    if result.layers_problem is not None:
        notes.append("layers were not compared")
    gaps = [cpu.cpu for cpu in result.other_cpus if cpu.status == "incomplete"]
    if gaps:
        notes.append(f"not everything ran on {', '.join(gaps)}")
    words: dict[Status, str] = {"passed": "PASSED", "tolerated": "TOLERATED"}
    return words.get(status_of(result), "INCOMPLETE, nothing failed") + (f" ({'; '.join(notes)})" if notes else "")


def layer_advice(result: CheckResult, *, repro: bool = False) -> str:
    """What to do about a layer at fault that was not done already."""
    if result.layers is None:
        return ADVICE["layer"]
    return "report it, with the model that --repro wrote" if repro else "--repro FILE.onnx writes it as a model"


def _lead(result: CheckResult) -> Iterator[Inline]:
    yield f"{result.model} against {result.source}, ", *counted_value(len(result.images), "photograph", "photographs")
    if result.output_uncompared:
        yield f"NOT COMPARED: the output of the two: {result.output_uncompared}"
    if result.uncompared:
        options = ", ".join(STATED_BY[name] for name in result.uncompared)
        yield f"NOT COMPARED: {', '.join(result.uncompared)}: the source states none; give {options}, or a sidecar"
    if result.tolerance is not None:
        yield f"TOLERANCE: {tolerance_text(result.tolerance, result.unit)}"


def _part(part: PartVerdict, about_layers: str) -> Verdict:
    advice = {**ADVICE, "layer": about_layers}
    findings = (Wrong(finding.cause, finding.message, advice[finding.cause]) for finding in part.findings)
    return Verdict(part.status, f"{part.part}: {TITLES[part.part]}", (part.summary,), tuple(findings))


def _runtime_blocks(result: CheckResult) -> Iterator[Block]:
    rows = [runtime_row(run, result.allowed_max, result.tolerance) for run in result.runs]
    near = result.yardstick
    if near is not None:
        distance = (near.differing, near.max_steps, near.mean_steps)
        rows.append((near.first, near.second, *distance, "yardstick", ""))
    if rows:
        yield Table(runtime_headers(result.unit), tuple(rows))
    else:
        yield Text("No runtime of the model gave a result.", only="page")
    sources = ", ".join(result.source_runs) or "none"
    yield Text(f"Runtimes of the source: {sources}.", soft=True, only="page")
    counts = [(run.name, run.images) for run in result.runs]
    counts += zip(result.source_runs, result.source_images, strict=True)
    fewer = (
        (f"{name} ran on ", *counted_value(count, "photograph", "photographs"))
        for name, count in counts
        if count < len(result.images)
    )
    yield Items((*fewer, *runtime_notes(result.runs), *map(missing_text, result.missing)))


def runtime_headers(unit: str) -> tuple[str, ...]:
    """Titles of the columns; ``unit`` is that of the distances: fractions have no name short enough."""
    return ("runtime", "nearest", "differ", "max LSB" if unit == "LSB" else "max", "mean", "must be", "boxes")


def runtime_row(run: RuntimeLine, allowed_max: float | None, tolerance: Tolerance | None = None) -> tuple[Inline, ...]:
    """A runtime, how far it is from the nearest LiteRT kernel, and how far it may be."""
    near, distance = run.nearest, ("", "", "", "")
    limits = [0.0 if run.must_be_exact else allowed_max, None if tolerance is None else tolerance.head]
    most = max((limit for limit in limits if limit is not None), default=None)
    must: Inline = "" if most is None else ("<= ", most) if most else "exact"
    numbers = distance if near is None else (near.second, near.differing, near.max_steps, near.mean_steps)
    return (run.name, *numbers, must, boxes_text(run))


def boxes_text(run: RuntimeLine) -> str:
    """Whether a runtime's boxes follow from its heads, and how many probes it followed."""
    boxes = {True: "follow", False: "DO NOT FOLLOW", None: ""}[run.head_equal]
    return boxes if run.probes is None else f"{boxes} ({run.probes_followed}/{run.probes})".strip()


def runtime_notes(runs: Iterable[RuntimeLine]) -> tuple[str, ...]:
    """What is to be known of single runtimes, each once."""
    return tuple(dict.fromkeys(f"{run.name} {note}" for run in runs for note in run.notes))


def missing_text(missing: MissingRuntime) -> str:
    """A runtime without a result, and why."""
    what = "crashed" if missing.crashed else "did not run" if missing.asked else "could be added"
    return f"{missing.name} {what}: {missing.reason}"


def _other_cpu_blocks(result: CheckResult) -> Iterator[Block]:
    """A verdict per processor, and in one table their runtimes; nothing without processors."""
    yield from (_cpu_verdict(cpu, result) for cpu in result.other_cpus)
    checks = [(cpu.cpu, cpu.check) for cpu in result.other_cpus if cpu.check is not None]
    rows = [(name, *runtime_row(run, check.allowed_max)) for name, check in checks for run in check.runs]
    if rows:
        yield Table(("processor", *runtime_headers(result.unit)), tuple(rows), keys=2)
        yield Items(runtime_notes(run for _, check in checks for run in check.runs))


def _cpu_verdict(cpu: OtherCpu, result: CheckResult) -> Verdict:
    lines: list[Inline] = []
    if cpu.selftest is not None:
        lines.append(f"self-test {selftest_words(cpu.selftest)}")
    if cpu.check is not None:
        lines.append((f"check of {parts_words(cpu.check)}; detections that differ: ", cpu.check.changes))
    lines.append(f"instruction sets: {', '.join(cpu.simd) or 'not told'}{_other_versions(cpu, result)}")
    name = f"{cpu.cpu} (emulated)" if cpu.emulated else cpu.cpu
    return Verdict(cpu.status, name, tuple(lines), tuple(Wrong("", trouble) for trouble in troubles(cpu)))


def _other_versions(cpu: OtherCpu, result: CheckResult) -> str:
    """Packages whose version there is not the one of this check."""
    there, here = cpu.check.versions if cpu.check is not None else {}, result.versions
    differing = [
        f"{name} {version} (here {here.get(name, 'not installed')})"
        for name, version in there.items()
        if here.get(name) != version
    ]
    return f"; {', '.join(differing)}" if differing else ""


def selftest_words(selftest: SelfTest) -> str:
    """The verdict, its numbers, and what a program gets that does not ask for the exact kernels."""
    message = f"{selftest.verdict}: {agreement_words(selftest.agreement)}"
    if selftest.plain is not None:
        message += f"; without {selftest.exact_kernels} = 1: {agreement_words(selftest.plain)}"
    return message


def parts_words(check: CpuCheck) -> str:
    """How many photographs, and each part's status."""
    parts = ", ".join(f"{part.part} {part.status}" for part in check.parts)
    return f"{counted(len(check.images), 'photograph', 'photographs')}: {parts}"


def troubles(cpu: OtherCpu) -> list[str]:
    """What is wrong there, or gave no result, one sentence each."""
    problems = (("self-test", cpu.selftest_problem), ("check", cpu.check_problem))
    message = [f"the {what} gave no result: {problem}" for what, problem in problems if problem is not None]
    if cpu.check is None:
        return message
    message += [f"{f.part}: {f.cause}: {f.message}" for part in cpu.check.parts for f in part.findings]
    return message + [missing_text(missing) for missing in cpu.check.missing if missing.is_gap]


def _layer_blocks(result: CheckResult) -> Iterator[Block]:
    """Which layer is at fault; on a terminal the layers in which anything differs, on a page all of them."""
    if result.layers_problem is not None:
        yield Text(f"layers were not compared: {result.layers_problem}")
    comparison = result.layers
    if comparison is None:
        return
    fault = comparison.first_fault
    message = "none at fault" if fault is None else f"the first at fault is {fault.tensor!r}"
    fused: tuple[Value, ...] = ("has the same head",)
    if comparison.fused_differs:
        fused = ("differs in ", *counted_value(comparison.fused_differs, "value", "values"), " of the head")
    yield Text((f"{counted(len(comparison.layers), 'layer', 'layers')} compared, {message}; the fused run ", *fused))
    yield from (Text(line, soft=True) for line in _unit_lines(comparison))
    rows = tuple(_layer_row(i + 1, layer) for i, layer in enumerate(comparison.layers))
    faults = frozenset(i for i, layer in enumerate(comparison.layers) if layer.is_at_fault)
    unit = " LSB" if comparison.unit == "LSB" else " max"
    headers = ("tensor", "layer", "operator", f"accumulated{unit}", "differ", "local", "allowed", "kernel", "allowed")
    differing = tuple(row for row, layer in zip(rows, comparison.layers, strict=True) if _differs(layer))
    if differing:
        yield Table(headers, differing, only="terminal")
    yield _strips(comparison)
    inside: list[Block] = [Table(headers, rows, faults=faults)]
    if comparison.absent:
        absent = tuple(f"{tensor}: {by}" for tensor, by in comparison.absent.items())
        inside.append(Items(absent, title="Without a twin, and the rewrite that took them away:"))
    yield Folded(f"All {len(rows)} layers in numbers", tuple(inside))


def _differs(layer: LayerResult) -> bool:
    kernel = layer.kernel
    return bool(layer.accumulated.worst or layer.local.worst or (kernel is not None and kernel.worst))


def _layer_row(number: int, layer: LayerResult) -> tuple[Inline, ...]:
    kernel, bound = layer.kernel, layer.local_bound
    return (
        *(layer.tensor, number, layer.operator, layer.accumulated.worst, layer.accumulated.differing),
        *(layer.local.worst, "not judged" if bound is None else bound),
        *(("", "") if kernel is None else (kernel.worst, layer.kernel_bound)),
    )


def _strips(comparison: LayerComparison) -> Strips:
    """A strip per distance with a cell per layer: the largest difference."""
    wrong = {"local": "is_mistranslated", "kernel": "is_misrun"}

    def cell(layer: LayerResult, name: str) -> Cell | None:
        distance: LayerDistance | None = getattr(layer, name)
        if distance is None:
            return None
        text = f"{layer.tensor} ({layer.operator}): {format_distance(distance.worst)} {comparison.unit}"
        return Cell(distance.worst, text, fault=name in wrong and getattr(layer, wrong[name]))

    strips = ((name, tuple(cell(layer, name) for layer in comparison.layers)) for name in STRIPS)
    rows = [strip for strip in strips if any(strip[1])]
    message = "in LSB" if comparison.unit == "LSB" else f"as a share {comparison.unit}"
    return Strips(f"worst difference of every layer {message}", tuple(rows))


def _unit_lines(comparison: LayerComparison) -> list[str]:
    """What the numbers are."""
    if comparison.unit != "LSB":
        return [f"distances are fractions {comparison.unit} of each layer"]
    if any(layer.local_bound is None for layer in comparison.layers):
        return ["local: what quantising that layer costs against Keras, measured, and no fault"]
    return []


def _coverage_blocks(result: CheckResult) -> Iterator[Block]:
    """What each provider runs on integers, the rule that blocked the others, and where it puts the nodes."""
    lines = [
        line
        for coverage in result.coverage
        for line in (_coverage_line(coverage), *(f"in float: {m.node}: {m.reason}" for m in coverage.misses))
    ]
    lines += [f"{placement.runtime}: {placement_text(placement)}" for placement in result.placement]
    if lines:
        yield Items(tuple(lines))


def _coverage_line(coverage: Coverage) -> str:
    total, name = format_count(coverage.macs_total), replace(usual_runtime(FINISHED), provider=coverage.provider).name
    if coverage.macs_integer is None:
        return f"{name} does not show which of its {total} MACs run on integers"
    share = format_share(coverage.macs_integer, coverage.macs_total)
    return f"{name} runs {share} of {total} MACs on integers"


def placement_text(placement: NodePlacement) -> str:
    """Where the nodes go, in one line."""
    if placement.nodes is None:
        return "ONNX Runtime does not tell where its nodes run"
    text = "nodes on " + ", ".join(f"{provider}: {count}" for provider, count in placement.nodes.items())
    left = ", ".join(f"{count} {operator}" for operator, count in sorted(placement.fallen_back.items()))
    return f"{text}; fell back to the CPU: {left}" if left else text


def _change_blocks(result: CheckResult) -> Iterator[Block]:
    at = f"at score > {result.thresholds.score:g}, IoU > {result.thresholds.iou:g}"
    if not result.changes:
        yield Text(f"None, {at}.", only="page")
        return
    counts = Counter((c.runtime, c.kind, c.cause) for c in result.changes)
    yield Items(
        tuple(f"{runtime}: {count} {kind}: {CHANGE_CAUSES[cause]}" for (runtime, kind, cause), count in counts.items()),
        title=f"Against the source's, {at}:",
    )
    lines = (f"{c.image}, {c.runtime}, box {c.anchor} {c.kind}: {c.cause}: {c.message}" for c in result.changes)
    yield Items(tuple(lines), title="One by one:", most=MOST_LINES, only="terminal")
