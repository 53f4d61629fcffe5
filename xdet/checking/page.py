"""The page: verdict, runtimes here and on other processors, layers, differences, pictures, surroundings, meanings, the command.

It loads nothing: style, charts and pictures are inside, and no program runs in it. What comes from files is escaped.

A row of the runtime matrix: how far a runtime's head is from the nearest LiteRT kernel, and how far it may be.

Other processors on the page: per processor its verdicts, and in one table its runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.checking.charts import histogram_svg, layers_svg, pictures_html
from xdet.checking.report import (
    ADVICE,
    CHANGE_CAUSES,
    TITLES,
    boxes_text,
    layer_advice,
    name_cpu,
    parts_words,
    placement_text,
    selftest_words,
    troubles,
    verdict_text,
)
from xdet.writing.files import PAGE_START
from xdet.writing.html import definitions, number, shown, table
from xdet.writing.text import format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdet.bench.records import Machine
    from xdet.checking.layer_records import Layer, LayerComparison, RealLayer
    from xdet.checking.result import CheckResult, OtherCpu, PartVerdict, RuntimeLine
    from xdet.pictures.preparation import Photograph


def runtime_headers(unit: str) -> tuple[str, ...]:
    """Titles of the columns; ``unit`` is that of the distances."""
    told = " LSB" if unit == "LSB" else ""  # fractions have no name short enough
    return (
        *("runtime", "photographs", "nearest", "differ", "of"),
        *(f"max{told}", f"mean{told}", "must be", "boxes"),  # the widest comes last
    )


def runtime_row(run: RuntimeLine, allowed: tuple[float | None, float | None]) -> tuple[str, ...]:
    """The cells, as HTML.

    Args:
        run: the runtime.
        allowed: the largest and the mean distance that part spread allows; None where it was skipped.
    """
    near, distance = run.nearest, ("",) * 5
    if near is not None:
        counts = number(near.differing), number(near.values)
        distance = (shown(near.second), *counts, number(near.max_steps), number(near.mean_steps))
    limit = "" if allowed[0] is None else f"≤ {number(allowed[0])} (mean {number(allowed[1])})"
    must = "exact" if run.must_be_exact else limit
    return (shown(run.name), number(run.images), *distance, must, shown(boxes_text(run)))


def runtime_notes(runs: Iterable[RuntimeLine]) -> list[str]:
    """What is to be known of single runtimes, as items of a list, each once."""
    return list(
        dict.fromkeys(f"<li>{shown(run.name)} {shown(note)}</li>" for run in runs for note in run.notes)
    )


LOOKS = {"passed": "passed", "failed": "failed", "incomplete": "skipped"}  # status -> colour
CPU_MEANINGS = (
    ("emulated", "the same programs, children included, on an emulated processor: kernels are chosen by its instructions"),
    ("instruction sets", "what numpy found in the process there"),
    ("self-test", "head values that differ from the golden vector inside the model, which is the same on every processor"),
    ("without a session entry", "what any other program gets there that opens the model and does not set the entry"),
    ("on another processor", "distances are from the nearest LiteRT kernel there, over fewer photographs: emulation is slow"),
)  # fmt: skip


def other_cpus_html(result: CheckResult) -> str:
    """The section's content; empty where no columns were named."""
    if not result.other_cpus:
        return ""
    cards = "".join(_card(cpu, result) for cpu in result.other_cpus)
    rows = [
        (shown(cpu.cpu), *runtime_row(run, (cpu.check.allowed_max, cpu.check.allowed_mean)))
        for cpu in result.other_cpus
        if cpu.check is not None
        for run in cpu.check.runs
    ]
    listed = table(("processor", *runtime_headers(result.unit)), rows) if rows else ""
    notes = "".join(
        runtime_notes(run for cpu in result.other_cpus if cpu.check is not None for run in cpu.check.runs)
    )
    return f"<div class=parts>{cards}</div>{listed}{f'<ul class=soft>{notes}</ul>' if notes else ''}"


def _card(cpu: OtherCpu, result: CheckResult) -> str:
    told = "".join(f"<li>{shown(trouble)}</li>" for trouble in troubles(cpu))
    selftest = "" if cpu.selftest is None else f"<p>Self-test {shown(selftest_words(cpu.selftest))}</p>"
    check = ""
    if cpu.check is not None:
        changes = number(cpu.check.changes)
        check = f"<p>Check of {shown(parts_words(cpu.check))}; detections that differ: {changes}</p>"
    return (
        f"<div class='part {LOOKS[cpu.status]}'><h3><b>{cpu.status}</b> {shown(name_cpu(cpu))}</h3>"
        f"{selftest}{check}<p class=soft>instruction sets: {shown(', '.join(cpu.simd) or 'not told')}"
        f"{_other_versions(cpu, result)}</p>{f'<ul>{told}</ul>' if told else ''}</div>"
    )


def _other_versions(cpu: OtherCpu, result: CheckResult) -> str:
    """Packages whose version there is not the one of this check."""
    there = cpu.check.versions if cpu.check is not None else {}
    differing = [
        f"{name} {version} (here {result.versions.get(name, 'not installed')})"
        for name, version in there.items()
        if result.versions.get(name) != version
    ]
    return f"; {shown(', '.join(differing))}" if differing else ""


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
    return f"<div class=parts>{''.join(_part(part, layer_advice(result)) for part in result.parts)}</div>"


def _part(part: PartVerdict, about_layers: str) -> str:
    advice = {**ADVICE, "layer": about_layers}
    findings = "".join(
        f"<li><b>{shown(f.cause)}</b>: {shown(f.message)}<br>→ {shown(advice[f.cause])}</li>"
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
