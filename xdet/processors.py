"""How many processors this process may use, and how a stream of photographs shares them.

One photograph can keep every processor busy only inside its network, and a small network is soon short of work for two threads.
Many photographs share better: each worker takes one all the way (``xdet.stream``), in a network of few threads or one.
"""

from __future__ import annotations

import os

from xdet.errors import UsageError

MOST_WORKERS = 64
MOST_BY_DEFAULT = 8  # photographs at a time: one of a camera's takes some 100 MB while it is read


def usable_processors() -> int:
    """Logical processors that this process is allowed to run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_workers(asked: int | None = None) -> int:
    """Photographs to work on at the same time: as many as were asked for, else one per processor, eight at most."""
    if asked is None:
        return min(MOST_BY_DEFAULT, usable_processors())
    require_workers(asked)
    return asked


def require_workers(workers: int) -> None:
    """Refuse a number of workers out of range."""
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(
            f"--workers must lie in 1..{MOST_WORKERS}, got {workers}; leave it out for one per processor"
        )


def threads_per_network(workers: int) -> int:
    """Threads inside an operator where every worker runs its own photograph through the network."""
    return max(1, usable_processors() // workers)


def threads_of_one_network(workers: int) -> int:
    """Threads inside an operator where one worker is in the network while the others read, half of the processors at most."""
    return max(1, usable_processors() - min(workers - 1, usable_processors() // 2))
