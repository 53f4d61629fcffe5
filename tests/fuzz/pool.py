"""Runs cases in worker processes: each has a time and a memory limit, and a crash is an outcome.

A case is a surface, a seed and a number. A worker tells when it begins and how it ends; where it dies or takes too
long, the case that it had begun is at fault, and another worker goes on behind it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

LIMIT_S = 10.0  # of processor time, so that a machine that others use makes no hang
WAITS = 6  # a case that works less than it waits may take that many times the limit by the clock
START_S = 120.0  # imports, and corpora that are built
PEAK_BYTES = 1 << 30
ADDRESS_BYTES = 8 << 30  # what stops an allocation that would take the machine down
BAD = ("internal", "crash", "hang", "memory")
CHUNK = 50  # cases that a worker takes at a time


@dataclass(frozen=True)
class Outcome:
    """How one case ended: ``ok``, ``refused``, or one of ``BAD``, with the error's first line."""

    number: int
    kind: str
    told: str = ""


@dataclass
class Report:
    """All outcomes of one surface."""

    surface: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[Outcome] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0

    def line(self) -> str:
        """The outcome classes in one line."""
        counts = ", ".join(f"{kind} {self.counts[kind]}" for kind in ("ok", "refused", *BAD))
        total, times = (sum(self.counts.values()), f"slowest {self.slowest_s:.1f} s, {self.seconds:.0f} s in all")
        return f"{self.surface}: {total} cases, seed {self.seed}: {counts}; {times}"


def make_case(surface: str, seed: int, number: int) -> bytes:
    """The mutant of that number: the same on every machine."""
    from tests.fuzz.surfaces import SURFACES

    if surface == "outcomes":
        return bytes([number])
    return SURFACES[surface].make(random.Random(f"{surface}/{seed}/{number}"))  # noqa: S311 - no secret


def run_case(surface: str, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Make the mutant and do with it what the program does; the kind of outcome and what was told."""
    from converters.errors import ConversionError
    from tests.fuzz.surfaces import OUTCOMES, SURFACES
    from xdet.errors import XdetError

    known = SURFACES.get(surface, OUTCOMES)
    path = folder / f"case{known.suffix}"
    try:
        path.write_bytes(make_case(surface, seed, number))
        known.run(path)
    except (ConversionError, XdetError) as error:
        return "refused", str(error)[:200]
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:  # noqa: BLE001 - what the program would call an internal error
        return "internal", f"{type(error).__name__}: {error}"[:300]
    return "ok", ""


def run_surface(
    surface: str, cases: int, seed: int, *, workers: int, budget_s: float | None = None, limit_s: float = LIMIT_S
) -> Report:
    """Run cases 0 .. ``cases`` - 1, or those that ``budget_s`` seconds are enough for, each within ``limit_s``."""
    report, started = Report(surface, seed), time.monotonic()
    todo = list(range(0, cases, CHUNK))[::-1]
    context = multiprocessing.get_context("spawn")
    running = [_Worker(context, surface, seed, limit_s) for _ in range(min(workers, len(todo)))]
    try:
        while running:
            if budget_s is not None and time.monotonic() - started > budget_s:
                break
            for worker in list(running):
                if worker.idle and todo:
                    first = todo.pop()
                    worker.send(range(first, min(first + CHUNK, cases)))
                elif worker.idle:
                    worker.stop()
                    running.remove(worker)
            ready = wait([worker.pipe for worker in running], timeout=0.2)
            for worker in running:
                worker.listen(report, heard=worker.pipe in ready)
    finally:
        for worker in running:
            worker.stop()
    report.seconds = time.monotonic() - started
    return report


class _Worker:
    """One process and the cases that it has been given."""

    def __init__(self, context: Any, surface: str, seed: int, limit_s: float) -> None:
        self._limit_s = limit_s
        self._context, self._surface, self._seed = context, surface, seed
        self._left: list[int] = []
        self._current: int | None = None
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(theirs, self._surface, self._seed), daemon=True)
        self._process.start()
        theirs.close()
        self._since = time.monotonic()
        self._ready, self._worked_s = False, 0.0

    @property
    def idle(self) -> bool:
        return not self._left

    def send(self, numbers: range) -> None:
        self._left = list(numbers)
        self._post()

    def _post(self) -> None:
        try:
            self.pipe.send(self._left)
        except (BrokenPipeError, OSError):
            return  # it died before: the next look finds out

    def listen(self, report: Report, *, heard: bool) -> None:
        """Take what the worker says; replace it where it died or takes too long."""
        if heard:
            try:
                while self.pipe.poll():
                    self._take(self.pipe.recv(), report)
            except (EOFError, OSError):
                self._replace(report, "crash")
                return
        if not self.idle and self._takes_too_long():
            self._replace(report, "hang")

    def _takes_too_long(self) -> bool:
        waited = time.monotonic() - self._since
        if not self._ready:
            return waited > START_S
        worked = _worked_s(self._process.pid) - self._worked_s if waited > self._limit_s else 0.0
        return worked > self._limit_s or waited > WAITS * self._limit_s

    def _take(self, message: tuple[str, int, str, str, float], report: Report) -> None:
        event, number, kind, told, worked_s = message
        if event == "begin":
            self._current, self._since, self._ready, self._worked_s = number, time.monotonic(), True, worked_s
            return
        report.slowest_s = max(report.slowest_s, worked_s - self._worked_s)
        self._note(report, Outcome(number, kind, told))
        if kind == "memory":  # the peak of that process stays
            self.stop()
            self._renew()

    def _note(self, report: Report, outcome: Outcome) -> None:
        report.counts[outcome.kind] += 1
        if outcome.kind in BAD:
            report.bad.append(outcome)
        self._left = [number for number in self._left if number != outcome.number]
        self._current = None
        self._since = time.monotonic()

    def _replace(self, report: Report, kind: str) -> None:
        self.stop()
        number = self._current if self._current is not None else self._left[0]
        self._note(report, Outcome(number, kind, f"exit code {self._process.exitcode}"))
        self._renew()

    def _renew(self) -> None:
        self._start()
        if self._left:
            self._post()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Connection, surface: str, seed: int) -> None:
    """A worker's whole life."""
    _limit_memory()
    with tempfile.TemporaryDirectory(prefix="xdet-fuzz-") as name, Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        while True:
            try:
                numbers: list[int] = pipe.recv()
            except EOFError:
                return
            for number in numbers:
                pipe.send(("begin", number, "", "", time.process_time()))
                kind, told = run_case(surface, seed, number, Path(name))
                if _peak_bytes() > PEAK_BYTES:
                    kind, told = "memory", f"{_peak_bytes() >> 20} MiB; {told}"
                pipe.send(("end", number, kind, told, time.process_time()))


def _worked_s(pid: int | None) -> float:
    """Processor time of a process, in seconds; without /proc, the clock's: every wait counts."""
    status = Path(f"/proc/{pid}/stat")
    try:
        fields = status.read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows: the peak is not limited there
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _peak_bytes() -> int:
    """The most memory that this program held; what getrusage tells on Linux includes the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
