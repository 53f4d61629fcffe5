"""What is told of the machine where the system does not tell it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from xdet.bench.machine import measure_here, read_clock
from xdet.errors import RuntimeUnavailableError
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.worker import Message

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_without_proc_the_load_by_others_and_memory_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psutil = pytest.importorskip("psutil", reason='needs pip install "xdet[bench]"')
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert read_clock() is None
    request = Message({"model": "m.onnx", "choices": RuntimeChoices("onnxruntime", "cpu", 1).to_dict()})
    with pytest.raises(RuntimeUnavailableError, match="is /proc mounted"):
        measure_here(request)
