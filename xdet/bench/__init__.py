"""How fast is a detector here, and next to another one? Models x runtimes x threads, measured in alternating blocks.

docs/bench.md defines every number.
"""

from __future__ import annotations

from xdet.bench.records import Benchmark, BenchOptions, Memory, Ratio
from xdet.bench.run import run_benchmark

__all__ = ["BenchOptions", "Benchmark", "Memory", "Ratio", "run_benchmark"]
