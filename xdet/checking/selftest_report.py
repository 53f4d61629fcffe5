"""A self-test as a report, as text and as JSON (schema ``xdet.selftest``, docs/selftest.md)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING

from xdet.writing.blocks import Items, Report, Section
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from converters.integer.golden import Agreement
    from xdet.checking.selftest import SelfTest

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


def selftest_text(found: SelfTest, *, width: int | None = None) -> str:
    """``selftest_report`` for a terminal."""
    return report_text(selftest_report(found), width)


def selftest_report(found: SelfTest) -> Report:
    """The verdict in one line; below it what to do, where there is something to do."""
    message = f"{found.model} on {found.runtime}: {found.verdict}: {_described(found.agreement, found.bound_lsb)}"
    lines = []
    if found.exact_kernels is not None and found.plain is not None:
        plain = _described(found.plain, 0)
        lines = [
            f"xdet chose exact kernels, because this CPU's fast ones saturate; without them: {plain}",
            f"in programs of your own, set the session entry {found.exact_kernels} = 1",
        ]
    if not found.passed:
        lines.append(_advice(found))
    return Report("xdet selftest", (Section("", (Items(tuple(lines), title=message),)),))


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
