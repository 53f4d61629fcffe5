"""Many photographs share the processors: how many are worked on at a time, with how many threads inside an operator."""

from __future__ import annotations

import pytest

import xdet.runtimes.base
from xdet.errors import UsageError
from xdet.runtimes.base import choose_workers, threads_of_one_network, threads_per_network, usable_processors


@pytest.mark.parametrize(
    ("processors", "workers", "each", "one"),
    [(1, 1, 1, 1), (2, 2, 1, 1), (3, 3, 1, 2), (4, 4, 1, 2), (8, 8, 1, 4), (20, 8, 2, 13), (64, 8, 8, 57)],
)
def test_workers_and_their_networks_threads_fill_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, workers: int, each: int, one: int
) -> None:
    monkeypatch.setattr(xdet.runtimes.base, "usable_processors", lambda: processors)
    assert choose_workers() == workers
    assert (threads_per_network(workers), threads_of_one_network(workers)) == (each, one)


def test_what_is_asked_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdet.runtimes.base, "usable_processors", lambda: 4)
    assert [choose_workers(asked) for asked in (1, 2, 64)] == [1, 2, 64]
    assert [threads_per_network(workers) for workers in (1, 2, 64)] == [4, 2, 1]
    assert [threads_of_one_network(workers) for workers in (1, 2, 64)] == [4, 3, 2]


@pytest.mark.parametrize("asked", [-1, 0, 65])
def test_a_number_out_of_range_is_refused(asked: int) -> None:
    with pytest.raises(UsageError, match=rf"`workers` must lie in 1\.\.64, got {asked}; leave it out"):
        choose_workers(asked)


def test_there_is_always_a_processor() -> None:
    assert usable_processors() >= 1
