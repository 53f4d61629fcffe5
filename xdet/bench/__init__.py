"""How fast is a detector here, and next to another one? Models x runtimes x threads, measured in alternating blocks.

``run`` leads through a benchmark; ``cases`` says what is measured, ``blocks`` measures it, ``operators`` its nodes,
``machine`` describes the computer and measures memory in a process of its own, ``records`` holds the results,
``report`` and ``tables`` show them.
docs/bench.md defines every number.
"""

from __future__ import annotations

from xdet.bench.records import Benchmark, BenchOptions, CaseResult, Machine, Memory, Operator, Ratio, Spread
from xdet.bench.run import run_benchmark

__all__ = [
    "BenchOptions",
    "Benchmark",
    "CaseResult",
    "Machine",
    "Memory",
    "Operator",
    "Ratio",
    "Spread",
    "run_benchmark",
]
