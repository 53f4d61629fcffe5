"""What commands print: lines and reports on the terminal, JSON, and the progress bar.

``--json FILE`` goes to a file, whole or not at all, or to stdout for ``-``. A progress bar shows on a terminal and not
in a pipe.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from xdet.writing.files import Output, encode_text, json_mark, write_text
from xdet.writing.text import message_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdet.writing.blocks import Report

Result = TypeVar("Result")
STDOUT = Path("-")
_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")


@contextmanager
def progress_bar(label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show on stderr how much is done; yields ``advance(done)``, without a total ``advance(done, total)``."""
    hidden = total == 0 or not sys.stderr.isatty()
    length = 1 if total is None else total
    with typer.progressbar(length=length, label=label, file=sys.stderr, show_pos=True, hidden=hidden) as bar:

        def advance(done: int, whole: int | None = None) -> None:
            bar.length = whole or bar.length
            bar.update(done)

        yield advance


def print_line(text: str, *, err: bool = False) -> None:
    """One line on the terminal, whatever names are in it."""
    typer.echo(with_options(message_line(text)), err=err)


def with_options(text: str) -> str:
    """What the library says of its parameters, as the command line calls them: `anchor_unit` is --anchor-unit."""
    return _PARAMETER.sub(
        lambda match: f"--{match[1].replace('_', '-')}" if match[1] in _all_names() else match[0], text
    )


@functools.cache
def _all_names() -> frozenset[str]:
    """Of the parameters of all commands."""
    from xdet.cli.app import build_app

    group = typer.main.get_command(build_app())
    commands = getattr(group, "commands", {}).values()
    return frozenset(str(parameter.name) for command in commands for parameter in command.params)


def print_report(report: Report) -> None:
    """A report, as wide as the terminal or COLUMNS; in a pipe each sentence and row is one line."""
    from xdet.writing.terminal import report_text

    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    typer.echo(with_options(report_text(report, shutil.get_terminal_size().columns if has_width else None)))


def print_result(
    result: Result, json: Path | None, to_json: Callable[[Result], str], to_report: Callable[[Result], Report]
) -> None:
    """A result as JSON where ``--json`` asks for it, and as a report, unless the JSON went to stdout."""
    if json is not None:
        write_json(json, to_json(result))
    if json != STDOUT:
        print_report(to_report(result))


def json_outputs(target: Path | None, schema: str | None) -> list[Output]:
    """``--json`` as the outputs of a command: none, or one file, whose earlier version is known by its schema."""
    if target is None or target == STDOUT:
        return []
    return [Output(target, None if schema is None else json_mark(schema))]


def write_json(target: Path, text: str) -> None:
    r"""Write JSON text (with its final newline) to ``target``, or stdout for ``-``: UTF-8, ``\n`` on every system."""
    if target != STDOUT:
        write_text(target, text)
        return
    sys.stdout.flush()  # what was printed before comes first
    sys.stdout.buffer.write(encode_text(text))
    sys.stdout.buffer.flush()
