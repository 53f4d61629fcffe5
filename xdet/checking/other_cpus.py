"""A model's self-test and check on processors that are not here, under qemu's user-mode emulator (Linux).

Each runs in a process of its own there, which tells what it found; one that crashes or never ends hides nothing else.
Emulation is 10 to 20 times slower, so a check there takes the first photographs only.

A Python there starts its children there, too: x86 names (Haswell: AVX2 without VNNI, whose fast 8-bit kernels saturate;
Nehalem: SSE alone) run this very Python and its packages. Arm names (cortex-a72, cortex-a53, neoverse-n1, max) run the
Python of a folder that ``examples/emulate_aarch64.py`` fills, and that ``XDET_AARCH64`` names.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

import xdet
from converters.description.statements import SourceOptions  # noqa: TC001 - ``restored`` reads annotations
from converters.spec import Thresholds  # noqa: TC001 - likewise
from xdet.checking.result import CpuCheck, OtherCpu
from xdet.checking.selftest import SelfTest, run_selftest
from xdet.errors import RuntimeUnavailableError, UsageError, XdetError
from xdet.runtimes.subprocess_runtime import Message, SubprocessEndedError, call_in_subprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.checking.result import CheckResult
    from xdet.pictures.preparation import Photograph


CPU_IMAGES = 2
LONGEST_S = 3600.0  # of one command; an emulated program may hang
HERE = "xdet.checking.other_cpus"
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
    (python,) = (system / "root" / "usr" / "bin").glob("python3.[0-9]*[0-9]")
    return python


def plain_numpy() -> dict[str, str]:
    """Environment in which numpy, of which the oracle is made, computes right on every emulated processor.

    qemu 7.2 gathers wrongly or crashes where numpy's AVX2 code reads every n-th number. numpy's OpenBLAS takes AVX code
    on a Nehalem unless it is told the processor.
    """
    extensions = cast("dict[str, Any]", np.show_config("dicts")["SIMD Extensions"])
    optional = [*extensions.get("found", []), *extensions.get("not found", [])]
    return {LEFT_OUT: " ".join(optional), "OPENBLAS_CORETYPE": "Nehalem"}


def _write(program: Path, command: list[str]) -> str:
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', "utf-8")
    program.chmod(0o700)
    return str(program)


@dataclass(frozen=True, eq=False)
class Request:
    """What is run there, photographs aside; the names are those of ``xdet.check``."""

    model: str
    source: str
    runtimes: tuple[str, ...] | None
    threads: int | None
    thresholds: Thresholds | None
    source_options: SourceOptions | None


def require_cpus(cpus: Sequence[str]) -> None:
    """Refuse processors that cannot be emulated here, before anything runs; raises as ``emulator_of``."""
    for cpu in cpus:
        emulator_of(cpu)


def check_on_cpus(
    cpus: Sequence[str],
    request: Request,
    images: Sequence[Photograph],
    *,
    has_golden: bool,
    progress: Callable[[str, int], None],
) -> tuple[OtherCpu, ...]:
    """Repeat self-test and check on emulated processors, with the first photographs.

    Raises:
        UsageError: an emulator does not know the processor.
    """
    paths = {str(i): str(p) for i, p in enumerate(images[:CPU_IMAGES]) if not isinstance(p, np.ndarray)}
    arrays = {str(i): a for i, a in enumerate(images[:CPU_IMAGES]) if isinstance(a, np.ndarray)}
    question = Message({"request": plain(request), "paths": paths}, arrays)
    columns = []
    for cpu in cpus:
        with tempfile.TemporaryDirectory(prefix="xdet-") as folder:
            there = emulate(cpu, Path(folder))
            whole = {name: value for name, value in there.environment.items() if name != LEFT_OUT}
            simd, problem = _ask(replace(there, environment=whole), "find_simd", question)
            if problem is not None:
                advice = f"'{emulator_of(cpu)} -cpu help' lists the processors"
                raise UsageError(f"no Python runs on {cpu!r}: {problem}; {advice}")
            selftest, no_selftest = _ask(there, "run_selftest_there", question) if has_golden else (None, None)
            check, no_check = _ask(there, "check_there", question)
        progress(cpu, len(paths) + len(arrays))
        columns.append(
            OtherCpu(
                cpu=cpu,
                emulated=True,
                simd=tuple(simd),
                selftest=restored(SelfTest | None, selftest),
                selftest_problem=no_selftest,
                check=restored(CpuCheck | None, check),
                check_problem=no_check,
            )
        )
    return tuple(columns)


def _ask(there: Processor, job: str, question: Message) -> tuple[Any, str | None]:
    """What a function of this module finds there, or why it found nothing."""
    message = Message({**question.fields, "python": there.python}, question.arrays)
    try:
        answer = call_in_subprocess(
            f"{HERE}:{job}", message, longest_s=LONGEST_S, python=there.python, environment=there.environment
        )
    except SubprocessEndedError as error:
        return None, f"its process ended with {error}"
    except XdetError as error:
        return None, str(error)
    return answer.fields["found"], None


def plain(value: Any) -> Any:
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(asdict(value), default=str))


def restored(kind: Any, value: Any) -> Any:
    """What ``plain`` made of a value of type ``kind``: dataclasses, tuples and paths again, as annotations say."""
    if value is None:
        return None
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast("Any", kind)(**{name: restored(hints[name], held) for name, held in value.items()})
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        kinds = [first] * len(value) if others == [...] else [first, *others]
        return tuple(restored(one, held) for one, held in zip(kinds, value, strict=True))
    return Path(value) if kind is Path else value


def _request(message: Message) -> Request:
    """The other side: what is asked for. What this process starts is emulated as it is."""
    sys.executable = message.fields["python"]
    request: Request = restored(Request, message.fields["request"])
    return request


def find_simd(message: Message) -> Message:
    """The instruction sets that numpy finds: the proof of what is emulated."""
    _request(message)
    extensions = cast("dict[str, Any]", np.show_config("dicts")["SIMD Extensions"])
    return Message({"found": [*extensions["baseline"], *extensions.get("found", [])]})


def run_selftest_there(message: Message) -> Message:
    """The self-test."""
    request = _request(message)
    return Message({"found": plain(run_selftest(Path(request.model), threads=request.threads))})


def check_there(message: Message) -> Message:
    """The check."""
    from xdet.checking.check import check

    request, paths = _request(message), message.fields["paths"]
    held: dict[str, Path | NDArray[Any]] = {**{name: Path(path) for name, path in paths.items()}, **message.arrays}
    images = [held[name] for name in sorted(held, key=int)]
    choices = {name: getattr(request, name) for name in ("runtimes", "threads", "thresholds", "source_options")}
    return Message({"found": plain(kept_of_check(check(request.model, request.source, images, **choices)))})


def kept_of_check(result: CheckResult) -> CpuCheck:
    """What is kept of a check."""
    return CpuCheck(
        result.images,
        result.parts,
        tuple(replace(run, histogram=()) for run in result.runs),
        result.allowed_max,
        result.allowed_mean,
        len(result.changes),
        result.missing,
        result.versions,
    )
