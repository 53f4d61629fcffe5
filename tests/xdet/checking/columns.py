"""Columns of other processors for tests: what self-test and check really say here, and what goes wrong elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = "onnxruntime:cpu,onnxruntime-unfused:cpu,litert:xnnpack,litert:builtin"
PLAIN = {"exact": False, "differing": 882, "compared": 1470, "worst_lsb": 11.0, "off_lattice": 0}
SEGFAULT = "ended by signal SIGSEGV: uncaught target signal 11"


def written(document: Any, folder: Path) -> Path:
    path = folder / "columns.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


def put(document: Any, member: str, value: Any) -> None:
    """Set ``columns.0.cpu`` and the like."""
    *way, last = [int(step) if step.isdecimal() else step for step in member.split(".")]
    for step in way:
        document = document[step]
    document[last] = value


def breaking_haswell(columns: dict[str, Any]) -> dict[str, Any]:
    """Haswell without exact kernels: a broken self-test, and a part that failed."""
    put(columns, "columns.0.selftest.result.verdict", "broken")
    put(columns, "columns.0.selftest.result.agreement", PLAIN)
    put(columns, "columns.0.check.result.passed", value=False)
    finding = {
        "part": "exact",
        "cause": "layer",
        "message": "866 values differ",
        "runtime": None,
        "layer": None,
    }
    put(columns, "columns.0.check.result.parts.1.status", "failed")
    put(columns, "columns.0.check.result.parts.1.findings", [finding])
    return columns


def crashing_nehalem(columns: dict[str, Any]) -> dict[str, Any]:
    put(columns, "columns.1.check", {"error": SEGFAULT})
    return columns
