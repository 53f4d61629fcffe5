"""The computer of a benchmark: processor, instruction sets, cores, versions; never its name or user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from xdet.bench.records import Machine
from xdet.processors import usable_processors
from xdet.runtimes.saturation import kernels_saturate

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("xdet", "ai-edge-litert", "numpy", "onnxruntime", "openvino", "pillow", "tensorflow")
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
    cpu, flags = describe_cpu()
    logical = os.cpu_count() or 1
    usable = usable_processors()
    return Machine(
        cpu=cpu,
        flags=None if flags is None else tuple(sorted(flags)),
        logical_cpus=logical,
        usable_cpus=usable,
        system=f"{platform.system()} {platform.machine()}",
        saturates=kernels_saturate(),
        versions={"python": platform.python_version(), **_versions()},
    )


def describe_cpu() -> tuple[str, frozenset[str] | None]:
    """The processor's name, and those of its instruction sets that are in ``FLAGS``."""
    if CPUINFO.is_file():
        return parse_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    if sys.platform == "darwin":
        features = _sysctl("hw.optional.arm")
        found = {flag for name, flag in MACOS_FLAGS.items() if re.search(rf"{name}: 1\b", features)}
        name = _sysctl("machdep.cpu.brand_string").partition(": ")[2].strip()
        return name, frozenset(found) if features else None
    return _windows_name() or platform.processor(), None


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and flags from Linux' ``/proc/cpuinfo`` (x86: model name, flags; Arm: Features, no name)."""
    lines: list[tuple[str, str]] = re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE)
    fields = dict(lines[::-1])  # the first processor's stay
    words = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", fields.get("Model", "")).strip()
    return name, FLAGS & words


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "xdet" not in found:  # run from its sources
        import xdet

        found["xdet"] = xdet.__version__
    return dict(sorted(found.items()))


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
