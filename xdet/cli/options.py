"""What several commands share: options, printing, the progress bar.

``--json FILE`` goes to a file, whole or not at all, or to stdout for ``-``. A progress bar shows on a terminal and not
in a pipe.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdet.errors import UsageError
from xdet.writing.files import Output, encode_text, json_mark, write_text
from xdet.writing.text import message_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdet.writing.blocks import Report


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Show ``label`` and how many of ``total`` are done, on stderr; yields the function to call with each advance."""
    with typer.progressbar(
        length=total, label=label, file=sys.stderr, show_pos=True, hidden=not (total and sys.stderr.isatty())
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


def print_line(text: str, *, err: bool = False) -> None:
    """One line on the terminal, whatever names are in it."""
    typer.echo(with_options(message_line(text)), err=err)


def with_options(text: str) -> str:
    """What the library says of its parameters, as the command line calls them: `anchor_unit` is --anchor-unit."""
    return _PARAMETER.sub(
        lambda found: f"--{found[1].replace('_', '-')}" if found[1] in _parameters() else found[0], text
    )


@cache
def _parameters() -> frozenset[str]:
    """The parameters of all commands."""
    from xdet.cli.app import app

    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {}).values()
    return frozenset(str(parameter.name) for command in commands for parameter in command.params)


def print_report(report: Report) -> None:
    """A report, as wide as the terminal or COLUMNS says; in a pipe that says nothing, each sentence and row is one line."""
    from xdet.writing.terminal import report_text

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    typer.echo(with_options(report_text(report, shutil.get_terminal_size().columns if known else None)))


STDOUT = Path("-")
_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")
Force = Annotated[
    bool, typer.Option("--force", help="Replace existing files that xdet did not make, too; never an input.")
]


def json_outputs(target: Path | None, schema: str | None) -> list[Output]:
    """``--json`` as the outputs of a command: none, or one file, whose earlier version is known by its schema."""
    if target is None or target == STDOUT:
        return []
    return [Output(target, None if schema is None else json_mark(schema))]


def write_json(target: Path, text: str) -> None:
    r"""Write JSON text (with its final newline) to ``target``; ``-`` is stdout. The bytes are the same: UTF-8, ``\n``."""
    if target != STDOUT:
        write_text(target, text)
        return
    sys.stdout.flush()  # what was printed before comes first
    sys.stdout.buffer.write(encode_text(text))
    sys.stdout.buffer.flush()


RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME[:PROVIDER]",
        help="What runs it, as check --runtimes says: openvino, tract, ... [default: onnxruntime; of sources their own].",
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Execution provider, see xdet providers: what stands behind --runtime's colon [default: cpu].",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The provider's device, as xdet providers lists it, such as gpu or gpu:1."),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Handed to the execution provider; may be given several times."),
]


def read_provider_options(words: list[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary.

    Raises:
        UsageError: a word without a key or an equals sign, or a key that stands twice.
    """
    found: dict[str, str] = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--provider-option must be KEY=VALUE, got {word!r}")
        if key in found:
            raise UsageError(f"--provider-option names {key!r} twice; give it once")
        found[key] = value
    return found
