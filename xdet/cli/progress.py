"""A progress bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Show ``label`` and how many of ``total`` are done, on stderr; yields the function to call with each advance."""
    with typer.progressbar(
        length=total, label=label, file=sys.stderr, show_pos=True, hidden=not sys.stderr.isatty()
    ) as bar:
        yield bar.update


@contextmanager
def counted_progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """As ``progress_bar`` where the work is counted while it goes on: the function takes the advance and the whole."""
    with typer.progressbar(
        length=1, label=label, file=sys.stderr, show_pos=True, hidden=not sys.stderr.isatty()
    ) as bar:

        def advance(done: int, whole: int) -> None:
            bar.length = whole
            bar.update(done)

        yield advance
