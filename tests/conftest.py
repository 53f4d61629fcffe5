"""Fixtures and skips that every test shares. A skip names what is missing and how to get it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "xdet" / "data"

# Commands that tests start write to pipes of no width, whatever started the tests. Readline, which pytest loads, sets
# the variable behind os.environ's back.
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")
# The tests' processes share the cores: numpy's BLAS threads would wait for each other by spinning, for two thirds of
# all time. pytest-xdist's workers, and what tests start, read this before they load numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts background jobs so, and what tests start would ignore the interrupts that they send, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("here", deadline=None)  # a busy machine is not a failing test
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def find_shared() -> Path | None:
    """The shared folder: ``XDET_SHARED``, else ``../shared`` beside the repository, else None."""
    named = os.environ.get("XDET_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "data").is_dir() else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leave modules and collected tests out of every later garbage collection.

    They are half a million objects that live as long as the process; walking through them took two thirds of the time
    of the tests of ``xdet bench``, and 2 s while they were made.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, by name."""
    missing = {
        "shared": find_shared() is None
        and "needs the shared photographs and models: set XDET_SHARED to the folder that holds data/ and models/",
        "emulator": shutil.which("qemu-x86_64") is None and "needs qemu-x86_64 (Debian: apt-get install qemu-user)",
    }
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the embedded model's cache of the person who runs the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDET_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared folder; for tests marked ``shared``."""
    folder = find_shared()
    assert folder is not None, "mark the test with pytest.mark.shared"
    return folder


@pytest.fixture(scope="session")
def photographs(shared_dir: Path) -> list[Path]:
    """The shared evaluation photographs, sorted by name."""
    return sorted((shared_dir / "data" / "coco_person").rglob("*.jpg"))


@pytest.fixture(scope="session")
def qemu_x86_64() -> str:
    """The emulator's path; for tests marked ``emulator``."""
    path = shutil.which("qemu-x86_64")
    assert path is not None, "mark the test with pytest.mark.emulator"
    return path


@pytest.fixture(scope="session")
def embedded_tflite() -> Path:
    """The embedded source model."""
    return DATA / "tiny_yolo_v2_person_224_int8.tflite"


@pytest.fixture(scope="session")
def sample_pictures() -> list[Path]:
    """The embedded photographs, sorted by name."""
    return sorted(DATA.glob("*.jpg"))
