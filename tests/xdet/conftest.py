"""Fixtures that several of these folders share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 900


@pytest.fixture(scope="session")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Keras sources and their finished models (``make_keras_models``); nobody writes into it."""
    if find_spec("tf_keras") is None or find_spec("tensorflow") is None:
        pytest.skip('needs pip install "xdet[keras]"')
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "keras"
    try:
        folder.mkdir()
    except FileExistsError:  # the other worker makes them, or has
        _wait_for(folder / "complete")
        return folder
    done = subprocess.run(
        [sys.executable, "-m", "tests.xdet.make_keras_models", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "complete").write_text(done.stderr if done.returncode else "", "utf-8")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Arm system, filled once for all workers; ``XDET_AARCH64`` names a folder that keeps it from run to run."""
    import fcntl

    base = tmp_path_factory.getbasetemp()
    beside = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("XDET_AARCH64") or beside / "aarch64")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = ROOT / "examples" / "emulate_aarch64.py"
        subprocess.run(
            [sys.executable, program, folder, "--", "-V"], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
        )
    return folder


def _wait_for(mark: Path) -> None:
    """Wait until another process wrote the file, which holds its error."""
    while not mark.exists():
        if time.time() - mark.parent.stat().st_ctime > LONGEST_S:
            pytest.fail(f"the worker that makes {mark.parent} has not done it within {LONGEST_S} s")
        time.sleep(0.1)
    assert mark.read_text("utf-8") == ""
