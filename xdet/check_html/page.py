"""The page: verdict, runtimes here and on other processors, layers, differences, pictures, surroundings, meanings, the command.

It loads nothing: style, charts and pictures are inside, and no program runs in it. What comes from files is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.check_html.charts import histogram_svg, layers_svg
from xdet.check_html.markup import definitions, number, shown, table
from xdet.check_html.other_cpus import CPU_MEANINGS, other_cpus_html
from xdet.check_html.pictures import pictures_html
from xdet.check_html.runtime_rows import runtime_headers, runtime_notes, runtime_row
from xdet.check_report import ADVICE, CHANGE_CAUSES, TITLES, placement_text, verdict_text
from xdet.outputs import PAGE_START
from xdet.report import format_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.bench.records import Machine
    from xdet.checking.result import CheckResult, PartVerdict
    from xdet.layer_records import Layer, LayerComparison, RealLayer
    from xdet.preparation import Photograph

STYLE = Path(__file__).with_name("page.css")
MEANINGS = (
    ("LSB", "one quantisation step of the source's raw head; for float heads distances are fractions of its largest value"),
    ("differ", "head values that are not equal bit for bit, over all photographs"),
    ("max, mean", "the largest difference, and the mean over all values, zeros included"),
    ("nearest", "the source's runtime from which the mean difference is smallest"),
    ("the yardstick", "the two LiteRT kernels that are furthest apart: any other runtime may be as far from the nearest"),
    ("boxes", "whether a run's boxes are those of the numpy decoder applied to its own head"),
    ("probes", "crafted heads, a question each: overlaps at the threshold, ties, classes, too many boxes, extreme values"),
    ("histogram", "head values by their difference from the nearest LiteRT kernel; bars are logarithmic, counts exact"),
    ("accumulated", "what ONNX Runtime holds in a layer, against what the source holds there; earlier layers' drift is inside"),
    ("local", "the layer on the source's own values in front of it, against the source's result: shows a fault of the file"),
    ("kernel", "ONNX Runtime's result against exact arithmetic on its own integers there: shows a fault of the runtime"),
    ("integer coverage", "multiply-accumulates that a provider runs on integers, and the rule that blocked the others"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and how a check was made.

    Attributes:
        machine: the computer.
        threads: threads inside an operator; None is each runtime's default.
        command: the command line that repeats it.
    """

    machine: Machine
    threads: int | None
    command: str


def check_to_html(result: CheckResult, photographs: Sequence[Photograph], where: Surroundings) -> str:
    """The check as one page of HTML.

    Args:
        result: the check.
        photographs: what it ran on, in its order: files or uint8 RGB arrays.
        where: what the page says of the computer and the command.

    Raises:
        ImageError: a photograph with changes cannot be read any more.
    """
    title = f"xdet check: {shown(result.model)}"
    body = "".join(
        f"<section><h2>{heading}</h2>{content}</section>"
        for heading, content in (
            ("Verdict in four parts", _parts(result)),
            ("Runtimes", _runtimes(result)),
            ("Other processors", other_cpus_html(result)),
            ("Layers", _layers(result)),
            ("Integer coverage", _coverage(result)),
            ("Differences of the head", _histograms(result)),
            ("Detections that differ", _changes(result, photographs)),
            ("Differences on purpose, proven", _proven(result)),
            ("Where it ran", _surroundings(result, where)),
            ("What the numbers mean", _meanings(result)),
            ("Repeat it", f"<pre>{shown(where.command)}</pre>"),
        )
        if content
    )
    return (
        f'{PAGE_START}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE.read_text('utf-8')}</style></head><body>"
        f"<header><h1>{title}</h1>{_summary(result)}</header><main>{body}</main></body></html>\n"
    )


def _summary(result: CheckResult) -> str:
    status = "failed" if not result.passed else "passed" if result.complete else "skipped"
    return (
        f"<p>against {shown(result.source)}, {number(len(result.images))} photographs</p>"
        f"<p class='verdict {status}'>{shown(verdict_text(result))}</p>"
    )


def _parts(result: CheckResult) -> str:
    return f"<div class=parts>{''.join(map(_part, result.parts))}</div>"


def _part(part: PartVerdict) -> str:
    findings = "".join(
        f"<li><b>{shown(f.cause)}</b>: {shown(f.message)}<br>→ {shown(ADVICE[f.cause])}</li>"
        for f in part.findings
    )
    listed = f"<ul>{findings}</ul>" if findings else ""
    return (
        f"<div class='part {part.status}'><h3><b>{part.status}</b> {part.part}: {shown(TITLES[part.part])}</h3>"
        f"<p class=soft>{shown(part.summary)}</p>{listed}</div>"
    )


def _runtimes(result: CheckResult) -> str:
    headers = runtime_headers(result.unit)
    rows = [runtime_row(run, (result.allowed_max, result.allowed_mean)) for run in result.runs]
    yardstick = result.yardstick
    if yardstick is not None:
        counts = number(yardstick.differing), number(yardstick.values)
        steps = number(yardstick.max_steps), number(yardstick.mean_steps)
        rows.append(
            (shown(yardstick.first), "", shown(yardstick.second), *counts, *steps, "the yardstick", "")
        )
    notes = "".join(runtime_notes(result.runs)) + "".join(
        f"<li>{shown(m.name)} {'crashed' if m.crashed else 'did not run' if m.asked else 'could be added'}: "
        f"{shown(m.reason)}</li>"
        for m in result.missing
    )
    sources = ", ".join(map(shown, result.source_runs)) or "none"
    return (
        (table(headers, rows) if rows else "<p>No runtime of the model gave a result.</p>")
        + f"<p class=soft>Runtimes of the source: {sources}.</p>"
        + (f"<ul class=soft>{notes}</ul>" if notes else "")
    )


def _layers(result: CheckResult) -> str:
    if result.layers is None:
        return f"<p>Not compared: {shown(result.layers_problem)}.</p>" if result.layers_problem else ""
    found, fault = result.layers, result.layers.first_fault
    told = "No layer exceeds its bound." if fault is None else f"First fault: {shown(fault.tensor)}."
    if found.fused_differs:
        told += f" The fused run differs from the one that shows inner values in {number(found.fused_differs)} head values."
    else:
        told += " The fused run and the one that shows inner values give equal heads."
    headers = ("layer", "tensor", "operator", "accumulated", "differ", "local", "bound", "kernel", "bound")
    rows = [(number(i + 1), *_layer(layer)) for i, layer in enumerate(found.layers)]
    faults = [layer.is_mistranslated or layer.is_misrun for layer in found.layers]
    absent = "".join(f"<li>{shown(tensor)}: {shown(by)}</li>" for tensor, by in found.absent.items())
    return (
        f"<p>{told}</p><p class=soft>{_unit_text(found)}</p>{layers_svg(found.layers, found.unit)}"
        f"<details><summary>All {len(found.layers)} layers in numbers</summary>{table(headers, rows, faults=faults)}"
        f"{f'<p>Without a twin, and the rewrite that took them away:</p><ul class=soft>{absent}</ul>' if absent else ''}"
        "</details>"
    )


def _unit_text(found: LayerComparison) -> str:
    """What the layers' numbers are."""
    if found.unit != "LSB":
        return f"Largest difference from Keras in each layer, as a fraction {found.unit} there."
    told = "Largest difference of each layer, in LSB of its own tensor."
    if any(layer.local_bound is None for layer in found.layers):
        told += (
            " Against Keras, local is what quantising that layer costs: measured, not judged, and no fault."
        )
    return told


def _layer(layer: Layer | RealLayer) -> tuple[str, ...]:
    return (
        shown(layer.tensor),
        shown(layer.operator),
        number(layer.accumulated.worst),
        number(layer.accumulated.differing),
        number(layer.local.worst),
        number(layer.local_bound),
        number(None if layer.kernel is None else layer.kernel.worst_lsb),
        number(layer.kernel_bound_lsb),
    )


def _coverage(result: CheckResult) -> str:
    rows = [
        (
            shown(c.provider),
            "not shown by it" if c.macs_integer is None else number(c.macs_integer),
            number(c.macs_total),
            "" if c.macs_integer is None else format_share(c.macs_integer, c.macs_total),
            "<br>".join(f"{shown(miss.node)}: {shown(miss.reason)}" for miss in c.misses) or "none",
        )
        for c in result.coverage
    ]
    placed = "".join(f"<li>{shown(p.runtime)}: {shown(placement_text(p))}</li>" for p in result.placement)
    headers = ("provider", "integer MACs", "MACs", "share", "in float, and why")
    return f"{table(headers, rows)}<ul class=soft>{placed}</ul>" if rows else ""


def _histograms(result: CheckResult) -> str:
    unit = "in LSB" if result.unit == "LSB" else f"as a share {result.unit}"
    charts = "".join(
        f"<figure>{histogram_svg(run.histogram, title)}<figcaption>{shown(title)}</figcaption></figure>"
        for run in result.runs
        if run.histogram and run.nearest is not None
        for title in (f"{run.name} from {run.nearest.second}, {unit}",)
    )
    return f"<div class=charts>{charts}</div>" if charts else ""


def _changes(result: CheckResult, photographs: Sequence[Photograph]) -> str:
    at = f"score &gt; {result.thresholds.score:g}, IoU &gt; {result.thresholds.iou:g}"
    if not result.changes:
        return f"<p>None, at {at}.</p>"
    headers = (
        "photograph",
        "runtime",
        "box",
        "class",
        "what",
        "score there",
        "score of the source",
        "cause",
        "numbers",
    )
    rows = [
        (
            *(shown(c.image), shown(c.runtime), number(c.anchor), number(c.class_id), c.kind),
            *(number(c.runtime_score), number(c.source_score)),
            *(shown(CHANGE_CAUSES[c.cause]), shown(c.message)),
        )
        for c in result.changes
    ]
    listed = f"<details><summary>All {len(rows)} in numbers</summary>{table(headers, rows)}</details>"
    return f"<p class=soft>Against the source's, at {at}.</p>{pictures_html(result, photographs)}{listed}"


def _proven(result: CheckResult) -> str:
    if not result.proven:
        return ""
    rows = [
        (shown(p.tensor), p.kind, number(p.source), number(p.written), shown(p.proof)) for p in result.proven
    ]
    listed = table(("tensor", "what", "source", "written", "proof"), rows)
    return f"<details><summary>{len(rows)} numbers</summary>{listed}</details>"


def _meanings(result: CheckResult) -> str:
    listed = (*MEANINGS, *CPU_MEANINGS) if result.other_cpus else MEANINGS
    return definitions([(term, shown(told)) for term, told in listed])


def _surroundings(result: CheckResult, where: Surroundings) -> str:
    machine = where.machine
    flags = (
        "not told by the system"
        if machine.flags is None
        else " ".join(machine.flags) or "none of those that matter"
    )
    threads = "each runtime's default" if where.threads is None else str(where.threads)
    versions = {**machine.versions, **result.versions}
    entries = [
        (
            "processor",
            f"{shown(machine.cpu or 'not told by the system')}, {machine.usable_cpus} of {machine.logical_cpus} usable",
        ),
        ("instruction sets", shown(flags)),
        ("8-bit kernels", "saturate here, exact ones are used" if machine.saturates else "do not saturate"),
        ("system", shown(machine.system)),
        ("threads", threads),
        ("versions", ", ".join(f"{shown(name)} {shown(version)}" for name, version in versions.items())),
        ("model", f"{shown(result.model)}, SHA-256 {result.model_sha256}"),
        ("source", f"{shown(result.source)}, SHA-256 {result.source_sha256}"),
    ]
    return definitions(entries)
