"""Other processors on the page: per processor its verdicts, and in one table its runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.check_html.markup import number, shown, table
from xdet.check_html.runtime_rows import runtime_headers, runtime_notes, runtime_row
from xdet.other_cpus_report import name_cpu, parts_words, selftest_words, troubles

if TYPE_CHECKING:
    from xdet.checking.other_cpus import OtherCpu
    from xdet.checking.result import CheckResult

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
