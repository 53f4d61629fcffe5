"""Was the machine quiet? How much of its processor time other programs took while a benchmark ran."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from xdet.bench.memory import require_psutil
from xdet.errors import MissingExtraError

IDLE = ("idle", "iowait")
PARTS = ("guest", "guest_nice")  # counted within user and nice already


@dataclass(frozen=True, slots=True)
class Clock:
    """Processor seconds since the system and this process started.

    Attributes:
        whole_s: of all programs; time that a host takes from a virtual machine counts as theirs.
        own_s: of this process.
        wall_s: time that passed.
    """

    whole_s: float
    own_s: float
    wall_s: float


def read_clock() -> Clock | None:
    """Now; None where psutil is not installed."""
    try:
        psutil = require_psutil()
    except MissingExtraError:
        return None
    times = psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in times.items() if name not in (*IDLE, *PARTS))
    return Clock(busy, time.process_time(), time.perf_counter())


def others_share(before: Clock | None, after: Clock | None) -> float | None:
    """The share of all processors, 0..1, that other programs took between two readings; None where it is not known."""
    if before is None or after is None or after.wall_s <= before.wall_s:
        return None
    others = (after.whole_s - before.whole_s) - (after.own_s - before.own_s)
    capacity = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
    return min(max(others / capacity, 0.0), 1.0)
