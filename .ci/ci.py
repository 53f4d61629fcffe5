#!/usr/bin/env python3
"""Everything, as a newcomer meets it: a fresh environment, the README's commands, the gate, emulators.

1. copies the work tree to a temporary folder (nothing is ever written into the repository);
2. makes a virtual environment there and runs each ``pip install`` line of README.md in it, exactly as written;
3. installs what pip cannot: qemu-user, Chromium and libonnxruntime-dev through apt-get (where ``CI=true`` and we are
   root), ONNX Runtime for Node and the web through npm, Triton's client into an environment of its own;
4. installs into other environments, tries the README's commands there and runs their tests: on the newest Python that
   is here beside the one that runs this; beside the OpenVINO execution provider, whose wheel replaces onnxruntime,
   beside the oldest onnxruntime that pyproject.toml allows, and beside none; with OpenCV, tract, TVM and IREE;
5. runs ``.ci/gate``, then the mutants of ``tests/fuzz``, the tests with Ray, then the emulator tests, whose summary is
   the last line.

What could not be installed is printed by name; in CI a missing emulator is a failure. ``XDET_SHARED`` is set to
``../shared`` when that folder exists, so the tests marked ``shared`` run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
NODE_PACKAGES = (
    "onnxruntime-node",
    "onnxruntime-web@1.30.0",
    "@cwasm/jpeg-turbo",
)  # xdet/page/__init__.py names the release
COMPILERS = "opencv,tract,tvm,iree"
OPTIMISERS = ("onnxoptimizer", "onnxsim", "onnxslim")


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"## {text}", flush=True)


def must(command: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Run a command that has to succeed."""
    say(f"{' '.join(command)}")
    started = time.monotonic()
    code = subprocess.run(command, cwd=cwd, env=env, check=False).returncode
    if code:
        say(f"FAILED with exit code {code}: {' '.join(command)}")
        sys.exit(code)
    say(f"done in {time.monotonic() - started:.0f} s")


def copy_sources(target: Path) -> None:
    """Copy what git tracks or would track; ignored files stay behind."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listing.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def newcomer_commands(readme: str) -> list[str]:
    """The README's ``pip install`` lines; exactly the demo's and the tests'."""
    lines = re.findall(r"^(pip install .*)$", readme, flags=re.MULTILINE)
    if len(lines) != 2 or "xdet demo" not in lines[0] or "pytest" not in lines[1]:
        say(f"README.md must hold one 'pip install' line for the demo and one for the tests, found: {lines}")
        sys.exit(1)
    return lines


def install_system_packages() -> None:
    """Install what apt-get has, where that is allowed; in CI the emulator must be there afterwards."""
    has_qemu, has_headers = shutil.which("qemu-x86_64") is not None, Path("/usr/include/onnxruntime").is_dir()
    wanted = (
        ("qemu-user", has_qemu),
        ("libonnxruntime-dev", has_headers),
        ("chromium", shutil.which("chromium") is not None),
        ("libturbojpeg0-dev", Path("/usr/include/turbojpeg.h").is_file()),
        ("nlohmann-json3-dev", Path("/usr/include/nlohmann").is_dir()),
    )
    missing = [package for package, found in wanted if not found]
    if missing and IN_CI and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        for package in missing:
            subprocess.run(["apt-get", "install", "-y", "-qq", package], check=False)
    if shutil.which("chromium") is None:
        say("not installed: chromium (Debian: apt-get install chromium); the tests in a browser are skipped")
    if shutil.which("qemu-x86_64") is None:
        say("not installed: qemu-x86_64 (Debian: apt-get install qemu-user); the emulator tests are skipped")
        if IN_CI:
            sys.exit(1)


def assemble_onnxruntime(folder: Path, python: str, env: dict[str, str]) -> None:
    """ONNX Runtime for C++ where Debian has none: headers of Debian 13's package, unpacked, and the wheel's library.

    An apt of its own downloads the package, so that nothing here is upgraded.
    """
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if Path("/usr/include/onnxruntime").is_dir() or env.get("XDET_ORT_ROOT"):
        return
    if not (sources.is_file() and shutil.which("apt-get") and shutil.which("dpkg-deb")):
        say("not found: libonnxruntime-dev (Debian 13) or XDET_ORT_ROOT; the C++ example is skipped")
        return
    for name in ("state/lists/partial", "cache/archives/partial", "lib"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    told = sources.read_text("utf-8").split("\n\n", maxsplit=1)[0]
    (folder / "debian.sources").write_text(re.sub(r"(?m)^Suites:.*$", "Suites: trixie", told) + "\n", "utf-8")
    settings = {
        "Dir::State": "state",
        "Dir::State::status": "status",
        "Dir::Cache": "cache",
        "Dir::Etc::sourcelist": "debian.sources",
    }
    options = [word for key, name in settings.items() for word in ("-o", f"{key}={folder / name}")]
    command = ["apt-get", "-qq", *options, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]
    must([*command, "update"], folder, env)
    must([*command, "download", "libonnxruntime-dev"], folder, env)
    (package,) = folder.glob("*.deb")
    must(["dpkg-deb", "-x", str(package), str(folder / "package")], folder, env)
    (folder / "include").symlink_to(folder / "package" / "usr" / "include" / "onnxruntime")
    where = [python, "-c", "import onnxruntime; print(onnxruntime.__path__[0])"]
    wheel = Path(subprocess.run(where, env=env, check=True, capture_output=True, text=True).stdout.strip())
    (library,) = (wheel / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    env["XDET_ORT_ROOT"] = str(folder)


def install_node_packages(folder: Path, env: dict[str, str]) -> None:
    """Install ONNX Runtime for Node and the web into ``folder`` for the JavaScript example."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        say("not installed: node and npm; the JavaScript example is skipped")
        return
    folder.mkdir()
    # The package's install script would fetch GPU libraries; the CPU's are inside.
    npm_env = {**env, "ONNXRUNTIME_NODE_INSTALL": "skip"}
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *NODE_PACKAGES]
    code = subprocess.run(command, cwd=folder, env=npm_env, check=False, shell=os.name == "nt").returncode
    if code:
        say(f"not installed: {', '.join(NODE_PACKAGES)} (npm exit code {code}); the JavaScript example is skipped")
        return
    env["XDET_NODE_MODULES"] = str(folder / "node_modules")


def install_triton_client(venv: Path, scratch: Path, env: dict[str, str]) -> None:
    """Triton's protobuf in an environment of its own: it wants older protobuf and ml-dtypes than ours."""
    must([sys.executable, "-m", "venv", str(venv)], scratch, env)
    python = str(venv / ("Scripts" if os.name == "nt" else "bin") / "python")
    must([python, "-m", "pip", "install", "-q", "tritonclient[grpc]"], scratch, env)
    env["XDET_TRITONCLIENT"] = python


def newest_python() -> str | None:
    """The newest Python that is installed beside this one, also where pyenv hides it; None where there is none."""
    for minor in range(14, sys.version_info.minor, -1):
        ask = [f"python3.{minor}", "-c", "import sys; print(sys.executable)"]
        told = {**os.environ, "PYENV_VERSION": f"3.{minor}"}
        if shutil.which(ask[0]):
            answer = subprocess.run(ask, env=told, check=False, capture_output=True, text=True)
            if answer.returncode == 0:
                return answer.stdout.strip()
    return None


def check_newest_python(scratch: Path, sources: Path, env: dict[str, str]) -> None:
    """The demo, and tests that need no more than LiteRT, on the newest Python."""
    newest, venv = newest_python(), scratch / "venv-newest-python"
    if newest is None:
        say("not found: a newer Python than this one; its tests are skipped")
        return
    must([newest, "-m", "venv", str(venv)], scratch, env)
    binaries = venv / ("Scripts" if os.name == "nt" else "bin")
    tools = ("hypothesis", "pytest", "pytest-xdist")
    must([str(binaries / "python"), "-m", "pip", "install", "-q", ".[cpu,litert]", *tools], sources, env)
    must([str(binaries / "xdet"), "demo", "--output", str(scratch / "demo-newest-python")], sources, env)
    folders = [f"tests/xdet/{name}" for name in ("checking", "detection", "pictures", "writing")]
    must([str(binaries / "python"), "-m", "pytest", "-q", "tests/converters", *folders], sources, env)


def check_compilers(scratch: Path, sources: Path, env: dict[str, str]) -> None:
    """Run the contract of all runtimes and optimisers on what nobody's environment has: compilers, OpenCV."""
    venv = scratch / "venv-compilers"
    must([sys.executable, "-m", "venv", str(venv)], scratch, env)
    python = str(venv / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = [python, "-m", "pip", "install", "-q"]
    tools = (*OPTIMISERS, "hypothesis", "pytest", "pytest-xdist")
    must([*install, f".[{COMPILERS},cpu,litert]", *tools], sources, env)
    must([python, "-m", "pytest", "-q", "tests/xdet/runtimes/test_optimisers.py"], sources, env)
    chosen = " or ".join(COMPILERS.split(","))
    must([python, "-m", "pytest", "-q", "-k", chosen, "tests/xdet/runtimes/test_every_runtime.py"], sources, env)


def check_other_onnxruntimes(scratch: Path, sources: Path, env: dict[str, str]) -> None:
    """Install xdet beside each onnxruntime that is not the newest, and beside none; commands of README, tests."""
    with (sources / "pyproject.toml").open("rb") as file:
        (declared,) = tomllib.load(file)["project"]["optional-dependencies"]["cpu"]
    runtimes = "tests/xdet/runtimes"
    for package, tests in (
        ("onnxruntime-openvino", [["-m", "openvino_provider", runtimes]]),
        (declared.replace(">=", "=="), [["-m", "oldest_onnxruntime", runtimes], [f"{runtimes}/test_ort_session.py"]]),
        ("", [["-m", "no_onnxruntime", f"{runtimes}/test_no_onnxruntime.py"]]),
    ):
        venv = scratch / f"venv-{package or 'none'}"
        must([sys.executable, "-m", "venv", str(venv)], scratch, env)
        binaries = venv / ("Scripts" if os.name == "nt" else "bin")
        install = [str(binaries / "python"), "-m", "pip", "install", "-q"]
        must([*install, *filter(None, [package]), "hypothesis", "pytest", "pytest-xdist"], sources, env)
        must([*install, "."], sources, env)  # and the distribution that was there stays
        if package:
            must([str(binaries / "xdet"), "demo", "--output", str(scratch / f"demo-{package}")], sources, env)
            must([str(binaries / "xdet"), "detect", "xdet/data/camera.jpg"], sources, env)
            must([str(binaries / "xdet"), "providers"], sources, env)
        for chosen in tests:
            must([str(binaries / "python"), "-m", "pytest", "-q", *chosen], sources, env)


def main(scratch: Path) -> None:
    """Run all steps below ``scratch``."""
    sources = scratch / "xdet"
    copy_sources(sources)
    venv = scratch / "venv"
    env = {**os.environ, "VIRTUAL_ENV": str(venv)}
    for name in ("PYTHONPATH", "PYTHONHOME", "XDET_SHARED", "XDET_NODE_MODULES"):
        env.pop(name, None)
    must([sys.executable, "-m", "venv", str(venv)], scratch, env)
    binaries = venv / ("Scripts" if os.name == "nt" else "bin")
    env["PATH"] = f"{binaries}{os.pathsep}{env['PATH']}"
    env["XDET_CACHE_DIR"] = str(scratch / "cache")
    env["XDET_AARCH64"] = str(scratch / "aarch64")
    python = str(binaries / "python")

    for line in newcomer_commands((sources / "README.md").read_text(encoding="utf-8")):
        must(["sh", "-c", line], sources, env)
    must([python, "-m", "pip", "install", "-q", "supervision"], sources, env)  # Detections.to_supervision

    install_system_packages()
    assemble_onnxruntime(scratch / "onnxruntime", python, env)
    install_node_packages(scratch / "node", env)
    install_triton_client(scratch / "triton", scratch, env)
    shared = Path(os.environ.get("XDET_SHARED", ROOT.parent / "shared"))
    if shared.is_dir():
        env["XDET_SHARED"] = str(shared)
    else:
        say(f"not found: the shared photographs ({shared}); the tests marked 'shared' are skipped")
    check_newest_python(scratch, sources, env)
    check_other_onnxruntimes(scratch, sources, env)
    check_compilers(scratch, sources, env)
    must([python, ".ci/gate"], sources, env)
    must([python, "-m", "pytest", "-q", "-rP", "-m", "fuzz", "tests/fuzz"], sources, env)  # at most 4 minutes
    must([python, "-m", "pip", "install", "-q", ".[ray]"], sources, env)  # some 300 MB
    must([python, "-m", "pytest", "-q", "-n0", "-m", "ray", "tests/xdet/test_ray.py"], sources, env)
    emulated = subprocess.run([python, "-m", "pytest", "-m", "emulator"], cwd=sources, env=env, check=False)
    sys.exit(emulated.returncode)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="xdet-ci-") as name:
        main(Path(name))
