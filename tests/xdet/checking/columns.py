"""Columns of other processors for tests: what self-test and check really say here, and what goes wrong elsewhere."""

from __future__ import annotations

from typing import Any

RUNTIMES = "onnxruntime:cpu,onnxruntime-unfused:cpu,litert:xnnpack,litert:builtin"
PLAIN = {"exact": False, "differing": 882, "compared": 1470, "worst_lsb": 11.0, "off_lattice": 0}
SEGFAULT = "ended by signal SIGSEGV: uncaught target signal 11"


def put(document: Any, member: str, value: Any) -> None:
    """Set ``0.cpu`` and the like."""
    *way, last = [int(step) if step.isdecimal() else step for step in member.split(".")]
    for step in way:
        document = document[step]
    document[last] = value


def breaking_haswell(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Haswell without exact kernels: a broken self-test, and a part that failed."""
    put(columns, "0.selftest.verdict", "broken")
    put(columns, "0.selftest.agreement", PLAIN)
    finding = {"part": "exact", "cause": "layer", "message": "866 values differ", "runtime": None, "layer": None}
    put(columns, "0.check.parts.1.status", "failed")
    put(columns, "0.check.parts.1.findings", [finding])
    return columns


def crashing_nehalem(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    put(columns, "1.check", None)
    put(columns, "1.check_problem", SEGFAULT)
    return columns
