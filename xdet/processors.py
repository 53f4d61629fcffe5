"""How many processors this process may use, and how a stream of photographs shares them.

Reading and stretching a photograph takes about as long as a small network, so a stream gives half of the processors (four at
most) to reading and the rest to the network. Otherwise ONNX Runtime's waiting threads spin on the processors that
reading needs.
"""

from __future__ import annotations

import os

MOST_READERS = 4


def usable_processors() -> int:
    """Logical processors that this process is allowed to run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reading_threads() -> int:
    """Threads that read ahead in a stream of photographs."""
    return min(MOST_READERS, max(1, usable_processors() // 2))


def network_threads() -> int:
    """Threads inside an operator while others read ahead."""
    return max(1, usable_processors() - reading_threads())
