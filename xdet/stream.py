"""Many photographs through one network: a worker takes each all the way, results come in order.

Reading, stretching, the network and what is done with its boxes are one piece of work, so processors are busy as long as there
are photographs, and little more than results waits in memory. Nothing depends on which worker did what: results, their order
and the place of every error are those of a single worker.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from xdet.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

T = TypeVar("T")
Ready = TypeVar("Ready")
Result = TypeVar("Result")

WAITING_PER_WORKER = 2  # work begun or done whose turn has not come


def through_network(
    photographs: Iterable[T],
    prepare: Callable[[T], Ready],
    detect: Callable[[Sequence[Ready]], Sequence[Result]],
    *,
    batch: int,
    workers: int,
) -> Iterator[tuple[T, Result | ImageError]]:
    """Prepare every photograph and detect in it.

    Args:
        photographs: read lazily, ``batch`` at a time, no further ahead than the workers need.
        prepare: makes one ready for the network, or raises ``ImageError``.
        detect: from as many as were ready, at least one, to a result for each.
        batch: photographs that are given to ``detect`` at a time; the last time fewer, and without those that failed.
        workers: threads; with one, everything happens in the caller's thread when its turn comes.

    Yields:
        Each photograph with its result, or with the error of preparing it, in order. What ``detect`` raises is raised in its
        place.
    """

    def whole(group: list[T]) -> list[tuple[T, Result | ImageError]]:
        outcomes = [_ready_or_error(photograph, prepare) for photograph in group]
        ready = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
        results = iter(detect(ready) if ready else ())
        return [
            (photograph, outcome if isinstance(outcome, ImageError) else next(results))
            for photograph, outcome in zip(group, outcomes, strict=True)
        ]

    groups = in_groups(photographs, batch)
    with closing(in_order(groups, whole, workers=workers if workers > 1 else 0)) as in_their_order:
        for _, outcomes in in_their_order:
            yield from outcomes()


def in_order(
    items: Iterable[T], work: Callable[[T], Result], *, workers: int, waiting: int | None = None
) -> Generator[tuple[T, Callable[[], Result]]]:
    """Do ``work`` on every item.

    Close it where it is left early: what is collected as garbage in a worker's thread cannot wait for that worker.

    Args:
        items: taken lazily.
        work: called in one of the workers' threads.
        workers: threads; 0 does the work in the caller's thread when its outcome is asked for.
        waiting: items taken beyond the one whose turn it is; None is ``WAITING_PER_WORKER`` for each worker.

    Yields:
        Each item, in order, with the call that gives its result or raises what ``work`` raised. When the caller goes away,
        what has not begun is dropped, and what has is waited for.
    """
    if workers < 1:
        for item in items:
            yield item, partial(work, item)
        return
    most = workers * WAITING_PER_WORKER if waiting is None else waiting
    ahead: deque[tuple[T, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, "xdet-worker") as pool:
        try:
            for item in items:
                ahead.append((item, pool.submit(work, item)))
                if len(ahead) > most:
                    first, future = ahead.popleft()
                    yield first, future.result
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result
        finally:
            for _, future in ahead:
                future.cancel()


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _ready_or_error(photograph: T, prepare: Callable[[T], Ready]) -> Ready | ImageError:
    try:
        return prepare(photograph)
    except ImageError as error:
        return error
