"""Repeat a model's self-test and check on processors that are not here, and put them into the check's page.

``python check_other_cpus.py person.onnx --source person.tflite --images photos --report check.html``

Runs ``xdet selftest``, and with ``--source`` and ``--images`` ``xdet check``, on this machine and under qemu's user-mode
emulator (Debian: apt-get install qemu-user), once per processor: Haswell stands for x86 with AVX2 and without VNNI, whose fast
8-bit kernels saturate; Nehalem for x86 with SSE alone. Emulation is 10 to 20 times slower, so there the check takes the first
photographs only. ``--json`` writes the columns, ``--report`` also runs the check of all photographs here with them.

Exit code 0 if all is well, 1 if any verdict failed, 2 for a request that cannot be met, 3 if something gave no result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xdet
from xdet.pictures.images import find_images
from xdet.writing.files import require_target

EMULATOR = "qemu-x86_64"
CPUS = ("Haswell", "Nehalem")
HERE = "this machine"
LONGEST_S = 3600  # of one command; an emulated program may hang
# A child process of an emulated program runs on the real processor. So children are started through a script that emulates.
XDET = "import runpy, sys; sys.executable = sys.argv.pop(1); runpy.run_module('xdet', run_name='__main__', alter_sys=True)"
SIMD = "import json, numpy; print(json.dumps(numpy.show_config('dicts')['SIMD Extensions']))"


class UnusableError(Exception):
    """The request cannot be met here."""


@dataclass(frozen=True)
class Processor:
    """One processor, and the programs that run on it."""

    cpu: str
    python: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What Python says there."""
        command = [self.python, *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=LONGEST_S,
        )


def emulate(cpu: str, folder: Path) -> Processor:
    """Write a Python (and a Node) below ``folder`` that run on an emulated processor, as their children do."""
    programs = folder / cpu
    programs.mkdir()
    found = {"python": sys.executable, "node": shutil.which("node")}
    for name, path in found.items():
        if path is not None:
            command = shlex.join([EMULATOR, "-cpu", cpu, path])
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
            (programs / name).chmod(0o700)
    environment = (
        os.environ
        | {
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "OPENBLAS_CORETYPE": "Nehalem",  # numpy's OpenBLAS takes AVX code on a Nehalem unless it is told the processor
        }
    )
    return Processor(cpu, str(programs / "python"), environment)


def find_simd(processor: Processor) -> list[str]:
    """The instruction sets that numpy finds there: the proof of what is emulated."""
    try:
        done = processor.run("-c", SIMD)
    except subprocess.TimeoutExpired as error:
        raise UnusableError(f"Python on {processor.cpu} did not end within {LONGEST_S} s") from error
    if done.returncode:
        raise UnusableError(
            f"no Python on {processor.cpu}: {last_line(done)}; '{EMULATOR} -cpu help' lists the processors"
        )
    found = json.loads(done.stdout)
    return [*found["baseline"], *found.get("found", [])]


def run_xdet(processor: Processor, arguments: list[str]) -> dict[str, Any]:
    """What ``xdet ... --json -`` says on a processor, or why it says nothing."""
    try:
        done = processor.run("-c", XDET, processor.python, *arguments, "--json", "-")
    except subprocess.TimeoutExpired:
        return {"error": f"no end after {LONGEST_S} s"}
    try:
        return {"result": json.loads(done.stdout)}
    except ValueError:
        return {"error": last_line(done)}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The reason why a program ended."""
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    if done.returncode >= 0:
        return lines[-1]
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = str(-done.returncode)
    return f"ended by signal {name}: {lines[-1]}"


def said(entry: dict[str, Any] | None) -> str:
    """One outcome for people: the verdict and its numbers, or the error."""
    if entry is None:
        return "nothing to compare"
    if "error" in entry:
        return f"no result: {entry['error']}"
    found = entry["result"]
    if found["schema"] != "xdet.selftest":
        return check_said(found)
    text = str(found["verdict"])
    for title, comparison in (("", found["agreement"]), ("without exact kernels ", found["plain"])):
        if comparison is not None:
            text += f"; {title}{comparison['differing']} of {comparison['compared']} differ"
    return text


def check_said(found: dict[str, Any]) -> str:
    """A check's outcome, and how far each runtime's head is from LiteRT's there."""
    count = len(found["images"])
    text = f"{'passed' if found['passed'] else 'failed'} on {count} photograph{'s' * (count != 1)}"
    for run in found["runs"]:
        if run["nearest"] is not None:
            text += f"; {run['name']} {run['nearest']['differing']} of {run['nearest']['values']} differ"
    for missing in found["missing"]:
        if missing["asked"] or missing["crashed"]:
            text += f"; {missing['name']} {'crashed' if missing['crashed'] else 'did not run'}"
    return text


def exit_code(entry: dict[str, Any] | None) -> int:
    """0 for a good verdict, 1 for a bad one, 3 for none."""
    if entry is None:
        return 0
    if "error" in entry:
        return 3
    found = entry["result"]
    if found["schema"] == "xdet.selftest":
        return int(found["verdict"] == "broken")
    return 0 if found["passed"] and found["complete"] else 3 if found["passed"] else 1


def commands(options: argparse.Namespace) -> dict[str, list[str] | None]:
    """The arguments of each command; None where there is nothing to compare."""
    document = xdet.inspect(options.model).document
    if document is None:
        raise UnusableError(f"'{options.model}' is no file that xdet convert made")
    selftest = None if document.golden is None else ["selftest", str(options.model)]
    if options.source is None:
        if selftest is None:
            raise UnusableError(f"'{options.model}' holds no golden vector; name --source and --images")
        return {"selftest": selftest, "check": None}
    check = ["check", str(options.model), "--source", str(options.source), *runtimes(options)]
    for photograph in find_images([options.images])[: options.photographs]:
        check += ["--images", str(photograph)]
    return {"selftest": selftest, "check": check}


def runtimes(options: argparse.Namespace) -> list[str]:
    """``--runtimes``, as it was given."""
    return [] if options.runtimes is None else ["--runtimes", options.runtimes]


def make_columns(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run everything, processor by processor, and say how it goes."""
    for target in (options.json, options.report):
        if target is not None:
            require_target(target)
    planned = commands(options)
    processors = [Processor(HERE, sys.executable, dict(os.environ))]
    processors += [emulate(cpu, folder) for cpu in dict.fromkeys(options.cpus)]
    simd = [find_simd(processor) for processor in processors]
    columns = []
    for processor, found in zip(processors, simd, strict=True):
        column: dict[str, Any] = {
            "cpu": processor.cpu,
            "emulated": processor.cpu != HERE,
            "simd": found,
        }
        for name, arguments in planned.items():
            column[name] = None if arguments is None else run_xdet(processor, arguments)
            if arguments is not None:
                print(f"{processor.cpu:<14} {name:<9} {said(column[name])}", flush=True)
        columns.append(column)
    return columns


def describe(path: Path) -> dict[str, str]:
    """A file by name and digest, so that the columns are never shown for another one."""
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def read_arguments() -> argparse.Namespace:
    """Parse, and refuse what does not go together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="an ONNX file made by xdet convert")
    parser.add_argument("--cpus", nargs="+", default=CPUS, metavar="CPU", help="qemu's names of processors")
    parser.add_argument("--source", type=Path, help="the model's source, for xdet check")
    parser.add_argument("--images", type=Path, help="photographs, for xdet check")
    parser.add_argument("--photographs", type=int, default=2, metavar="N", help="how many in the columns")
    parser.add_argument("--runtimes", metavar="LIST", help="as xdet check takes them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the columns")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where to write the page")
    options = parser.parse_args()
    if (options.source is None) != (options.images is None):
        parser.error("--source and --images go together")
    if options.report is not None and options.source is None:
        parser.error("--report needs --source and --images")
    if options.photographs < 1:
        parser.error("--photographs must be at least 1")
    if options.report is not None and options.json is None:
        options.json = options.report.with_suffix(".other-cpus.json")
    return options


def main() -> int:
    """Make the columns, write them, and run the check here with them; returns the exit code."""
    options = read_arguments()
    if shutil.which(EMULATOR) is None:
        print(f"{EMULATOR} is not installed (Debian: apt-get install qemu-user)", file=sys.stderr)
        return 3
    try:
        with tempfile.TemporaryDirectory(prefix="other-cpus-") as folder:
            columns = make_columns(options, Path(folder))
    except (UnusableError, xdet.XdetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        document = {
            "schema": "xdet.other-cpus",
            "version": 1,
            "model": describe(options.model),
            "source": None if options.source is None else describe(options.source),
            "columns": columns,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.report is not None:
        command = [sys.executable, "-m", "xdet", "check", str(options.model), "--source", str(options.source)]
        command += ["--images", str(options.images), *runtimes(options)]
        command += ["--other-cpus", str(options.json), "--report", str(options.report)]
        return subprocess.run(command, check=False).returncode
    codes = {exit_code(column[name]) for column in columns for name in ("selftest", "check")}
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
