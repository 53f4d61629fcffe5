"""A check as JUnit XML, as GitLab, Jenkins and GitHub read it: one test case per part, runtime and processor.

What is wrong is a ``failure``. What was asked for and gave no result is an ``error``: no pipeline is green on less than
it asked for. What there was nothing to compare with is ``skipped``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

from converters.errors import counted
from xdet.checking.report import ADVICE, TITLES, missing_text, parts_words, troubles, verdict_text
from xdet.writing.blocks import plain
from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdet.checking.result import CheckResult, OtherCpu, PartVerdict

Outcome = Literal["failure", "error", "skipped"]
START = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="xdet check"'
JUNIT_MARK = re.compile(re.escape(START.encode()))


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case: its group and name, how it ended if not well, and what it says."""

    group: str
    name: str
    outcome: Outcome | None = None
    message: str = ""
    text: str = ""


def check_to_junit(result: CheckResult) -> str:
    """The XML, with a final newline; it holds no time and no host, so equal results give equal bytes."""
    cases = list(_cases(result))
    titles = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    totals = {title: str(sum(case.outcome == name for case in cases)) for title, name in titles.items()}
    totals = {"tests": str(len(cases)), **totals}
    # ``printable`` escapes the characters that XML forbids, which ElementTree does not
    root = ET.Element("testsuites", {"name": "xdet check", **totals})
    suite = ET.SubElement(root, "testsuite", {"name": printable(f"xdet check: {result.model}"), **totals})
    for case in cases:
        group = printable(f"{result.model}.{case.group}")
        entry = ET.SubElement(suite, "testcase", {"classname": group, "name": printable(case.name)})
        if case.outcome is not None:
            outcome = ET.SubElement(entry, case.outcome, {"message": printable(case.message)})
            outcome.text = "\n".join(map(printable, case.text.split("\n")))
        elif case.message:
            ET.SubElement(entry, "system-out").text = printable(case.message)
    files = f"{result.model} ({result.model_sha256}) against {result.source} ({result.source_sha256})"
    ET.SubElement(suite, "system-out").text = printable(f"{files}: {verdict_text(result)}")
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _cases(result: CheckResult) -> Iterator[_Case]:
    yield from map(_part_case, result.parts)
    for name in result.uncompared:
        yield _Case("source", name, "skipped", f"{name}: the source states none, so it was not compared")
    if result.output_uncompared:
        yield _Case("source", "the output", "skipped", result.output_uncompared)
    for run in result.runs:
        findings = [f for f in result.findings if f.runtime == run.name]
        near = run.nearest
        message = "no runtime of the source to compare with"
        if near is not None:
            message = plain((near.differing, " of ", near.values, f" head values differ from {near.second}"))
        yield _failed_or("runtime", run.name, [f"{f.cause}: {f.message}" for f in findings], message)
    for missing in result.missing:
        if missing.is_gap:
            yield _Case("runtime", missing.name, "error", missing_text(missing), missing_text(missing))
    if result.layers_problem is not None:
        yield _Case("source", "layers", "error", f"layers were not compared: {result.layers_problem}")
    elif result.layers is not None:
        fault = result.layers.first_fault
        wrong = [] if fault is None else [f"the first at fault is {fault.tensor!r}"]
        yield _failed_or(
            "source",
            "layers",
            wrong,
            f"{counted(len(result.layers.layers), 'layer', 'layers')} compared, none at fault",
        )
    yield from map(_cpu_case, result.other_cpus)


def _part_case(part: PartVerdict) -> _Case:
    name = f"{part.part}: {TITLES[part.part]}"
    if part.status == "skipped":
        return _Case("part", name, "skipped", part.summary)
    wrong = [f"{finding.cause}: {finding.message}\n  -> {ADVICE[finding.cause]}" for finding in part.findings]
    return _failed_or("part", name, wrong, part.summary)


def _cpu_case(cpu: OtherCpu) -> _Case:
    if cpu.status == "passed":
        return _Case("processor", cpu.cpu, None, "" if cpu.check is None else parts_words(cpu.check))
    outcome: Outcome = "failure" if cpu.status == "failed" else "error"
    message = troubles(cpu) or ["the self-test is broken"]
    return _Case("processor", cpu.cpu, outcome, message[0], "\n".join(message))


def _failed_or(group: str, name: str, wrong: list[str], message: str) -> _Case:
    if wrong:
        return _Case(group, name, "failure", wrong[0].split("\n")[0], "\n".join(wrong))
    return _Case(group, name, None, message)
