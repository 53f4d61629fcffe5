"""What other processors gave, in words: lines of a check's text, and the sentences that its page shares with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.report import format_distance, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdet.checking.other_cpus import CpuCheck, CpuSelfTest, GoldenDistance, OtherCpu
    from xdet.checking.result import RuntimeLine

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
