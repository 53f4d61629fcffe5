"""Tests that the README's command leaves out and ``.ci/run`` runs: slow ones, where a faster one tests the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark.structures import ParameterSet


def mostly_slow(cases: Iterable[Any], *, fast: int) -> list[ParameterSet | Any]:
    """Cases for ``parametrize`` of one argument: the first ones run always, the others are slow."""
    every = list(cases)
    return [*every[:fast], *(pytest.param(case, marks=pytest.mark.slow) for case in every[fast:])]
