"""Mutants by hand: ``python -m tests.fuzz --surface tflite --cases 100000 --seed 1``; exit code 1 where one is bad."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.fuzz.pool import make_case, run_surface
from tests.fuzz.surfaces import SURFACES


def main() -> int:
    """Run the surfaces that were asked for, and keep what was bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--surface", action="append", choices=SURFACES, help="may be given several times; default: all")
    parser.add_argument("--cases", type=int, default=2000, help="mutants of each surface")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="a folder for the mutants that were bad")
    asked = parser.parse_args()
    code = 0
    for name in asked.surface or SURFACES:
        report = run_surface(name, asked.cases, asked.seed, workers=asked.workers)
        print(report.line(), flush=True)  # noqa: T201 - a program that prints
        for outcome in report.bad:
            print(f"  {outcome.kind} {name}/{asked.seed}/{outcome.number}: {outcome.told}")  # noqa: T201
            if asked.keep is not None:
                asked.keep.mkdir(parents=True, exist_ok=True)
                target = asked.keep / f"{name}-{asked.seed}-{outcome.number}{SURFACES[name].suffix}"
                target.write_bytes(make_case(name, asked.seed, outcome.number))
        code |= bool(report.bad)
    return code


if __name__ == "__main__":
    sys.exit(main())
