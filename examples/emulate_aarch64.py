"""Run Python with ONNX Runtime, LiteRT and xdet as a 64-bit Arm processor would, on any other machine.

Emulated arithmetic, not silicon: it tells whether the numbers are the same, and nothing about speed. The first call
fills FOLDER (about 300 MB, a minute): an arm64 Python from Debian's packages, unpacked and never installed, and the
aarch64 wheels that PyPI has for it. Needs Debian or Ubuntu, and ``apt-get install qemu-user``.

``xdet check --cpus cortex-a72`` runs there, too, where XDET_AARCH64 names the folder.

Examples:
  python emulate_aarch64.py arm -- -m xdet selftest detector.onnx
  python emulate_aarch64.py arm --cpu cortex-a53 -- -m xdet detect detector.onnx photo.jpg
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import xdet
from xdet.checking.other_cpus import emulate_arm, python_of

PACKAGES = ("python3", "libgomp1", "libstdc++6")
WHEELS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "pillow", "platformdirs", "pyyaml", "typer", "ai-edge-litert")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# A program that starts its Python again, as xdet does to run LiteRT, gets an emulated one.
STARTUP = "import os, sys\nsys.executable = os.environ['EMULATED_PYTHON']\n"
# ONNX Runtime reads this file when it is imported, and qemu before 10 shows the host's, which it does not understand.
CPUINFO = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


def main() -> int:
    """Fill the folder where that was not done yet, then run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the Arm system is kept")
    parser.add_argument("--cpu", default="cortex-a72", help="a processor that 'qemu-aarch64 -cpu help' lists")
    words, arguments = sys.argv[1:], []
    if "--" in words:
        words, arguments = words[: words.index("--")], words[words.index("--") + 1 :]
    options = parser.parse_args(words)
    for program in ("qemu-aarch64", "apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: this needs Debian or Ubuntu, and apt-get install qemu-user")
    folder = options.folder.resolve()
    if not (folder / "complete").is_file():
        unpack_system(folder)
        install_wheels(folder)
        (folder / "complete").touch()
    return run(folder, options.cpu, arguments)


def unpack_system(folder: Path) -> None:
    """An arm64 Python and the libraries it needs, by an apt of its own that knows nothing of this system's packages."""
    root, apt = folder / "root", folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "state" / "status").touch()
    settings = [
        "APT::Architecture=arm64",
        "APT::Architectures::=arm64",
        f"Dir::State={apt / 'state'}",
        f"Dir::State::status={apt / 'state' / 'status'}",
        f"Dir::Cache={apt / 'cache'}",
        "APT::Install-Recommends=false",
        "APT::Sandbox::User=root",
    ]
    command = ["apt-get", "-qq", *(word for setting in settings for word in ("-o", setting))]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "install", "--yes", "--download-only", *PACKAGES], check=True)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)  # noqa: S607 - Debian's own
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(CPUINFO, "ascii")


def install_wheels(folder: Path) -> None:
    """The wheels of this project's own minimal dependencies and of LiteRT, unpacked beside the system."""
    version = python_of(folder).name.removeprefix("python")
    command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:", "--target", str(folder / "site")]
    for name in PLATFORMS:
        command += ["--platform", name]
    subprocess.run([*command, "--python-version", version, *declared()], check=True)


def declared() -> list[str]:
    """``WHEELS``, with the lowest versions that the project declares where its sources are at hand."""
    project = Path(xdet.__file__).resolve().parents[1] / "pyproject.toml"
    if not project.is_file():
        return list(WHEELS)
    with project.open("rb") as file:
        table = tomllib.load(file)["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"]["litert"]]
    known = {text.split(">")[0].strip(): text for text in wanted}
    return [known.get(name, name) for name in WHEELS]


def run(folder: Path, cpu: str, arguments: list[str]) -> int:
    """Start the system's Python under the emulator, and let what it starts be emulated, too."""
    (folder / "startup").mkdir(exist_ok=True)
    (folder / "startup" / "sitecustomize.py").write_text(STARTUP, "ascii")
    with tempfile.TemporaryDirectory(prefix="xdet-") as programs:
        there = emulate_arm(cpu, folder, Path(programs))
        environment = {**os.environ, **there.environment, "EMULATED_PYTHON": there.python}
        environment["PYTHONPATH"] = f"{folder / 'startup'}{os.pathsep}{environment['PYTHONPATH']}"
        environment.pop("VIRTUAL_ENV", None)
        return subprocess.run([there.python, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    if platform.system() != "Linux":
        sys.exit("user-mode emulation needs Linux")
    sys.exit(main())
