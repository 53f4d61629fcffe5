"""What a benchmark may be asked, how durations are summarised, and what the machine says of itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from xdet.bench.machine import Clock, describe_machine, others_share, parse_cpuinfo, read_clock
from xdet.bench.records import BenchOptions, Spread
from xdet.errors import RuntimeUnavailableError, UsageError
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.subprocess_runtime import Message, measure_memory

if TYPE_CHECKING:
    from pathlib import Path

X86 = """processor\t: 0
model name\t: AMD EPYC 9555
flags\t\t: fpu sse4_1 avx2 avx512_vnni hypervisor
processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd asimddp aes
CPU part\t: 0xd0b
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_a_spread_is_the_median_with_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(median_s=3.0, low_s=2.0, high_s=4.0, count=5)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"threads": ()}, "threads"),
        ({"threads": (1, 1)}, "name each once"),
        ({"threads": (0,)}, "at least 1"),
        ({"blocks": 0}, "blocks must lie in 1..1000, got 0"),
        ({"block_s": float("nan")}, "duration"),
        ({"pictures_per_block": 0}, "picture"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BenchOptions(**wrong)


def test_linux_tells_the_first_processors_name_and_the_flags_that_matter() -> None:
    assert parse_cpuinfo(X86) == ("AMD EPYC 9555", frozenset({"sse4_1", "avx2", "avx512_vnni"}))
    assert parse_cpuinfo(ARM) == ("Raspberry Pi 5 Model B Rev 1.0", frozenset({"asimd", "asimddp"}))
    assert parse_cpuinfo("") == ("", frozenset())


def test_the_machine_is_told_without_its_name() -> None:
    import platform

    machine = describe_machine()
    assert 1 <= machine.usable_cpus <= machine.logical_cpus
    assert {"python", "numpy", "onnxruntime", "xdet"} <= set(machine.versions)
    assert platform.node() not in repr(machine).split("'")


def test_the_share_of_others_is_what_neither_this_process_nor_idling_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    # In 10 s two processors had 20: 12 were busy, 8 of them with this process.
    assert others_share(Clock(100.0, 1.0, 50.0), Clock(112.0, 9.0, 60.0)) == pytest.approx(0.2)
    assert others_share(Clock(100.0, 1.0, 50.0), Clock(108.0, 9.5, 60.0)) == 0.0  # ticks are coarse
    assert others_share(None, Clock(1.0, 1.0, 1.0)) is None


def test_the_clock_runs_forward() -> None:
    first, second = read_clock(), read_clock()
    assert first is not None
    assert second is not None
    assert second.wall_s > first.wall_s
    assert second.whole_s >= first.whole_s > 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_without_proc_the_load_by_others_and_memory_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psutil = pytest.importorskip("psutil", reason='needs pip install "xdet[bench]"')
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert read_clock() is None
    request = Message({"model": "m.onnx", "choices": RuntimeChoices("onnxruntime", "cpu", 1).to_dict()})
    with pytest.raises(RuntimeUnavailableError, match="is /proc mounted"):
        measure_memory(request)
