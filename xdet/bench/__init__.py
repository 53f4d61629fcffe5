"""How fast is a detector here, and next to another one? Models x runtimes x threads, measured in alternating blocks.

``run`` leads through a benchmark; ``cases`` says what is measured, ``blocks`` measures it, ``head_cut`` makes the network
without its head, ``memory`` measures a process of its own, ``machine`` describes the computer, ``records`` holds the results.
docs/bench.md defines every number.
"""

from __future__ import annotations

from xdet.bench.records import Benchmark, BenchOptions, CaseResult, Machine, Memory, Spread
from xdet.bench.run import run_benchmark

__all__ = ["BenchOptions", "Benchmark", "CaseResult", "Machine", "Memory", "Spread", "run_benchmark"]
