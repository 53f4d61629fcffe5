"""A stream of photographs shares the processors between reading and the network."""

from __future__ import annotations

import pytest

import xdet.processors
from xdet.processors import network_threads, reading_threads, usable_processors


@pytest.mark.parametrize(
    ("processors", "readers", "network"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (4, 2, 2), (8, 4, 4), (64, 4, 60)]
)
def test_half_of_the_processors_read_and_at_most_four(
    monkeypatch: pytest.MonkeyPatch, processors: int, readers: int, network: int
) -> None:
    monkeypatch.setattr(xdet.processors, "usable_processors", lambda: processors)
    assert (reading_threads(), network_threads()) == (readers, network)


def test_there_is_always_a_processor() -> None:
    assert usable_processors() >= 1
