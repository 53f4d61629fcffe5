"""Repeat a model's self-test on processors that are not here: ``python check_other_cpus.py person.onnx [--json FILE]``.

Runs ``xdet selftest`` on this machine and under qemu's user-mode emulator (Debian: apt-get install qemu-user), once per
processor: Haswell stands for x86 with AVX2 and without VNNI, whose fast 8-bit kernels saturate; Nehalem for x86 with SSE
alone. With ``--source`` and ``--images`` it repeats ``xdet check`` there, too. The JSON has one column per processor, for a
report. Exit code 1 if any verdict fails, 3 if something could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

EMULATOR = "qemu-x86_64"
CPUS = ("Haswell", "Nehalem")
HERE = "this machine"
# numpy's OpenBLAS takes AVX code on an emulated Nehalem unless it is told the processor
ENVIRONMENT = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}


def run_xdet(cpu: str, arguments: list[str]) -> dict[str, Any]:
    """One column entry: what ``xdet ... --json -`` says on a processor, or why it could not run."""
    emulator = [] if cpu == HERE else [EMULATOR, "-cpu", cpu]
    command = [*emulator, sys.executable, "-m", "xdet", *arguments, "--json", "-"]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode in (0, 1) and done.stdout:
        return {"exit_code": done.returncode, "result": json.loads(done.stdout)}
    said = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
    return {"exit_code": done.returncode if done.returncode > 0 else 3, "error": said[-1]}


def column(cpu: str, commands: dict[str, list[str]]) -> dict[str, Any]:
    """All commands on one processor."""
    return {"cpu": cpu, **{name: run_xdet(cpu, arguments) for name, arguments in commands.items()}}


def said(entry: dict[str, Any]) -> str:
    """One entry for people: the self-test's verdict and its numbers, an exit code, or the error."""
    if "error" in entry:
        return f"could not run: {entry['error']}"
    found = entry["result"]
    if found.get("schema") != "xdet.selftest":
        return "passed" if entry["exit_code"] == 0 else "failed"
    text = str(found["verdict"])
    for title, comparison in (("", found["agreement"]), ("without exact kernels ", found["plain"])):
        if comparison is not None:
            text += f"; {title}{comparison['differing']} of {comparison['compared']} differ, "
            text += f"by up to {comparison['worst_lsb']:.3g} LSB"
    return text


def main() -> int:
    """Parse, run column by column, print; returns the worst exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="an ONNX file made by xdet convert")
    parser.add_argument("--cpus", nargs="+", default=CPUS, metavar="CPU", help="qemu's names of processors")
    parser.add_argument("--source", type=Path, help="the model's source, for xdet check")
    parser.add_argument("--images", type=Path, help="a folder of photographs, for xdet check")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the columns")
    options = parser.parse_args()
    if shutil.which(EMULATOR) is None:
        print(f"{EMULATOR} is not installed (Debian: apt-get install qemu-user)", file=sys.stderr)
        return 3
    commands = {"selftest": ["selftest", str(options.model)]}
    if options.source is not None and options.images is not None:
        commands["check"] = ["check", str(options.model), "--source", str(options.source)]
        commands["check"] += ["--images", str(options.images)]
    columns = []
    for cpu in (HERE, *options.cpus):
        columns.append(column(cpu, commands))
        for name in commands:
            print(f"{cpu:<14} {name:<9} {said(columns[-1][name])}", flush=True)
    if options.json is not None:
        text = json.dumps({"schema": "xdet.other-cpus", "version": 1, "columns": columns}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return max(int(entry[name]["exit_code"]) for entry in columns for name in commands)


if __name__ == "__main__":
    sys.exit(main())
