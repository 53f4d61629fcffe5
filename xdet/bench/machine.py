"""The computer of a benchmark: what it is, whether it was quiet, and how much memory a model takes on it.

A record tells processor, instruction sets, cores and versions, never the computer's name or user.

Peak memory is that of one model on one runtime, in a subprocess of its own, so nothing that the benchmark itself has
loaded counts. Each figure is the resident set: pages of shared libraries count in full.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdet.bench.records import Machine, Memory
from xdet.errors import MissingExtraError, RuntimeUnavailableError, import_extra
from xdet.runtimes.base import usable_processors
from xdet.runtimes.ort_session import kernels_saturate
from xdet.runtimes.subprocess_runtime import Message, SubprocessEndedError, call_in_subprocess
from xdet.runtimes.table import installed_versions

if TYPE_CHECKING:
    from xdet.runtimes.base import RuntimeChoices

CPUINFO = Path("/proc/cpuinfo")
LONGEST_S = 300.0
IDLE = ("idle", "iowait")
PARTS = ("guest", "guest_nice")  # counted within user and nice already
# fmt: off
FLAGS = frozenset({
    "sse4_1", "avx", "avx2", "fma", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_tile",
    "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme",
})
# fmt: on
MACOS_FLAGS = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_SME": "sme"}


def describe_machine() -> Machine:
    """Describe this computer, as far as its system tells."""
    import xdet

    cpu, flags = describe_cpu()
    return Machine(
        cpu=cpu,
        flags=None if flags is None else tuple(sorted(flags)),
        logical_cpus=os.cpu_count() or 1,
        usable_cpus=usable_processors(),
        system=f"{platform.system()} {platform.machine()}",
        saturates=kernels_saturate(),
        versions={
            "python": platform.python_version(),
            **installed_versions("numpy", "pillow"),
            "xdet": xdet.__version__,
        },
    )


def describe_cpu() -> tuple[str, frozenset[str] | None]:
    """The processor's name, and those of its instruction sets that are in ``FLAGS``."""
    if CPUINFO.is_file():
        return parse_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    if sys.platform == "darwin":
        features = _sysctl("hw.optional.arm")
        flags = frozenset(flag for name, flag in MACOS_FLAGS.items() if re.search(rf"{name}: 1\b", features))
        name = _sysctl("machdep.cpu.brand_string").partition(": ")[2].strip()
        return name, flags if features else None
    return _windows_name() or platform.processor(), None


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and flags from Linux' ``/proc/cpuinfo`` (x86: model name, flags; Arm: Features, no name)."""
    lines: list[tuple[str, str]] = re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE)
    fields = dict(lines[::-1])  # the first processor's stay
    words = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", fields.get("Model", "")).strip()
    return name, FLAGS & words


def _sysctl(name: str) -> str:
    """What macOS says below a name of its sysctl; empty where it does not know it."""
    command = ["/usr/sbin/sysctl", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a fixed program


def _windows_name() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except OSError:
        return ""


def measure_memory(model: Path, choices: RuntimeChoices) -> Memory:
    """Open and run a model in a new process; ``choices`` name the runtime.

    Raises:
        MissingExtraError: psutil is not installed.
        RuntimeUnavailableError: the process failed.
    """
    require_psutil()
    request = Message({"model": str(model.resolve()), "choices": choices.to_dict()})
    try:
        measured = call_in_subprocess("xdet.runtimes.subprocess_runtime:measure_memory", request, longest_s=LONGEST_S)
    except SubprocessEndedError as error:
        raise RuntimeUnavailableError(
            f"'{model}' on {choices.name}: its process gave no memory within {LONGEST_S:.0f} s: {error}"
        ) from error
    return Memory(**measured.fields)


def require_psutil() -> Any:
    """The package that tells memory on every system, or ``MissingExtraError``."""
    return import_extra("psutil", "psutil, which tells a process' memory,", "bench")


@dataclass(frozen=True, slots=True)
class Clock:
    """Processor seconds since the system and this process started, and the time that passed."""

    whole_s: float  # of all programs; time that a host takes from a virtual machine counts as theirs
    own_s: float
    wall_s: float


def read_clock() -> Clock | None:
    """Now; None where psutil is not installed, or the system does not tell, as Linux without ``/proc``."""
    try:
        times = require_psutil().cpu_times()._asdict()
    except (MissingExtraError, OSError):
        return None
    busy = sum(seconds for name, seconds in times.items() if name not in (*IDLE, *PARTS))
    return Clock(busy, time.process_time(), time.perf_counter())


def others_share(before: Clock | None, after: Clock | None) -> float | None:
    """The share of all processors, 0..1, that other programs took between two readings; None where it is not known."""
    if before is None or after is None or after.wall_s <= before.wall_s:
        return None
    others = (after.whole_s - before.whole_s) - (after.own_s - before.own_s)
    capacity = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
    return min(max(others / capacity, 0.0), 1.0)
