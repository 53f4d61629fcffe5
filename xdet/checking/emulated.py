"""Other processors, under qemu's user-mode emulator (Linux): a Python there, which starts its children there, too.

x86 names (Haswell: AVX2 without VNNI, whose fast 8-bit kernels saturate; Nehalem: SSE alone) run this very Python and
its packages. Arm names (cortex-a72, cortex-a53, neoverse-n1, max) run the Python of a folder that
``examples/emulate_aarch64.py`` fills, and that ``XDET_AARCH64`` names.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import xdet
from xdet.errors import RuntimeUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

X86, ARM = "qemu-x86_64", "qemu-aarch64"
ARM_NAMES = ("cortex-", "neoverse-", "a64fx", "max")
ROOT = "XDET_AARCH64"
LEFT_OUT = "NPY_DISABLE_CPU_FEATURES"
# "Haswell,max,sme=off" are two processors: what qemu puts behind a name is no name
BETWEEN = re.compile(r",(?![+-]|[\w.-]+=)")


@dataclass(frozen=True, slots=True)
class Processor:
    """An emulated processor: its name, a Python there, and what differs in that Python's environment."""

    cpu: str
    python: str
    environment: Mapping[str, str]


def split_cpus(text: str) -> tuple[str, ...]:
    """Read a list such as ``"Haswell,Nehalem,cortex-a72"``.

    Raises:
        UsageError: an empty name, or one that stands there twice.
    """
    cpus = tuple(name.strip() for name in BETWEEN.split(text))
    if "" in cpus or len(set(cpus)) < len(cpus):
        raise UsageError(f"`cpus` takes names of processors, each once, got {text!r}")
    return cpus


def emulator_of(cpu: str) -> str:
    """The emulator's program for a processor.

    Raises:
        RuntimeUnavailableError: it is not installed, or what it would run is not here; the message says how to get it.
    """
    emulator = ARM if cpu.startswith(ARM_NAMES) else X86
    if shutil.which(emulator) is None:
        raise RuntimeUnavailableError(
            f"{cpu!r} is emulated by {emulator}, which is not installed: on Debian or Ubuntu, apt-get install qemu-user"
        )
    if emulator == X86 and platform.machine() not in ("x86_64", "AMD64"):
        raise RuntimeUnavailableError(
            f"{cpu!r} needs the Python of an x86-64 machine, this one is {platform.machine()}: check it there"
        )
    if emulator == ARM and not (Path(os.environ.get(ROOT, "")) / "complete").is_file():
        raise RuntimeUnavailableError(
            f"{cpu!r} needs an Arm Python, and {ROOT} names no folder with one: fill one (300 MB) with python "
            f"examples/emulate_aarch64.py FOLDER -- -V, and set {ROOT}=FOLDER"
        )
    return emulator


def emulate(cpu: str, folder: Path) -> Processor:
    """Write the programs of a processor that ``emulator_of`` knows into an empty folder.

    A child of an emulated program would run on the real processor: so every program is a script that emulates.
    """
    if emulator_of(cpu) == ARM:
        return emulate_arm(cpu, Path(os.environ[ROOT]), folder)
    python = _write(folder / "python", [X86, "-cpu", cpu, sys.executable])
    node = shutil.which("node")
    if node is not None:
        _write(folder / "node", [X86, "-cpu", cpu, node])
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    return Processor(cpu, python, {"PATH": path, **plain_numpy()})


def plain_numpy() -> dict[str, str]:
    """Environment in which numpy, of which the oracle is made, computes right on every emulated processor.

    qemu 7.2 gathers wrongly or crashes where numpy's AVX2 code reads every n-th number. numpy's OpenBLAS takes AVX code
    on a Nehalem unless it is told the processor.
    """
    known = cast("dict[str, Any]", np.show_config("dicts")["SIMD Extensions"])
    optional = [*known.get("found", []), *known.get("not found", [])]
    return {LEFT_OUT: " ".join(optional), "OPENBLAS_CORETYPE": "Nehalem"}


def emulate_arm(cpu: str, system: Path, folder: Path) -> Processor:
    """As ``emulate``, with the Arm Python and the packages that ``system`` holds, and with this xdet."""
    system = system.resolve()
    command = [ARM, "-cpu", cpu, "-L", str(system / "root"), str(python_of(system))]
    python = _write(folder / "python", command)
    here = Path(xdet.__file__).resolve().parents[1]
    packages = os.pathsep.join(map(str, (system / "site", here)))
    return Processor(cpu, python, {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"})


def python_of(system: Path) -> Path:
    """The Arm Python of a folder."""
    (found,) = (system / "root" / "usr" / "bin").glob("python3.[0-9]*[0-9]")
    return found


def _write(program: Path, command: list[str]) -> str:
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', "utf-8")
    program.chmod(0o700)
    return str(program)
