"""Photographs go through the network several at a time; order, errors and what waits do not depend on the workers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdet.errors import ImageError, ModelError
from xdet.pictures.preparation import in_groups, in_order, through_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKERS = [1, 2, 5]


def ready(number: int) -> int:
    """Unreadable where the number ends in 3; the even ones take longer than their neighbours."""
    if number % 10 == 3:
        raise ImageError(f"cannot read {number}")
    time.sleep(0.002 if number % 2 == 0 else 0)
    return number


def doubled(numbers: Sequence[int]) -> list[int]:
    return [2 * number for number in numbers]


def endless(taken: list[int]) -> Iterator[int]:
    while True:
        taken.append(len(taken))
        yield len(taken)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("batch", [1, 4])
def test_results_and_errors_come_in_the_order_of_the_photographs(workers: int, batch: int) -> None:
    found = list(through_network(range(27), ready, doubled, batch=batch, workers=workers))
    assert [number for number, _ in found] == list(range(27))
    told = [str(result) if isinstance(result, ImageError) else result for _, result in found]
    assert told == [f"cannot read {number}" if number % 10 == 3 else 2 * number for number in range(27)]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_network_sees_full_batches_without_what_cannot_be_read(workers: int) -> None:
    seen: list[tuple[int, ...]] = []

    def detect(numbers: Sequence[int]) -> list[int]:
        seen.append(tuple(numbers))
        return doubled(numbers)

    list(through_network([0, 1, 2, 3, 13, 23, 33, 43, 8, 9], ready, detect, batch=4, workers=workers))
    assert sorted(seen) == [(0, 1, 2), (8, 9)]


@pytest.mark.parametrize("workers", WORKERS)
def test_what_the_network_raises_comes_in_its_place(workers: int) -> None:
    def detect(numbers: Sequence[int]) -> list[int]:
        if 5 in numbers:
            raise ModelError("no kernel")
        return doubled(numbers)

    found = through_network(range(20), ready, detect, batch=1, workers=workers)
    assert [next(found)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ModelError, match="no kernel"):
        next(found)


@pytest.mark.parametrize(("workers", "taken"), [(1, 2), (2, 6), (5, 12)])
def test_no_more_is_taken_than_the_workers_need(workers: int, taken: int) -> None:
    asked: list[int] = []
    stream = through_network(endless(asked), lambda number: number, doubled, batch=1, workers=workers)
    next(stream)
    next(stream)
    assert len(asked) == taken
    stream.close()  # type: ignore[attr-defined]  # a generator


def test_one_worker_is_the_callers_own_thread_and_several_work_at_the_same_time() -> None:
    names: set[str] = set()

    def noticing(number: int) -> int:
        names.add(threading.current_thread().name)
        return number

    list(through_network(range(3), noticing, doubled, batch=1, workers=1))
    assert names == {threading.current_thread().name}
    together = threading.Barrier(2)

    def detect(numbers: Sequence[int]) -> list[int]:
        together.wait(120)  # raises unless two are in here
        return doubled(numbers)

    found = through_network(range(4), lambda number: number, detect, batch=1, workers=2)
    assert [result for _, result in found] == [0, 2, 4, 6]


def test_an_interrupted_caller_leaves_no_work_and_no_thread_behind() -> None:
    begun: list[int] = []
    held = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number > 1:
            held.wait(120)
        return number

    def interrupted() -> None:
        for _, outcome in in_order(range(1000), work, workers=2):
            outcome()
            threading.Timer(0.05, held.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    held.wait(120)
    deadline = time.monotonic() + 120
    while workers_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers_alive()
    assert len(begun) <= 5  # the first, and four that might wait


def workers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("xdet-worker")]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 7))
def test_groups_are_full_but_the_last(items: list[int], size: int) -> None:
    groups = list(in_groups(items, size))
    assert [item for group in groups for item in group] == items
    assert all(len(group) == size for group in groups[:-1])
    assert all(1 <= len(group) <= size for group in groups)
