"""The program: its commands, its global options, and the one place where errors become exit codes.

Exit codes: 0 fine; 1 a comparison or threshold failed; 2 usage; 3 bad model, image, data or missing runtime; 130
interrupted.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import xdet
from converters.errors import ConversionError
from xdet.cli.console import with_options
from xdet.cli.options import as_command, read_examples
from xdet.errors import OutputError, UsageError, XdetError
from xdet.writing.text import message_line, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

# Name -> its module in xdet.cli, and its function.
COMMANDS = {
    "demo": ("inspect", "demo"),
    "convert": ("convert", "convert"),
    "describe": ("inspect", "describe"),
    "detect": ("detect", "detect"),
    "check": ("inspect", "check"),
    "eval": ("measure", "evaluate"),
    "bench": ("measure", "bench"),
    "card": ("measure", "card"),
    "inspect": ("inspect", "inspect"),
    "page": ("convert", "page"),
    "triton": ("convert", "triton"),
    "selftest": ("inspect", "selftest"),
    "providers": ("inspect", "providers"),
}
GLOBAL_FLAGS = ("--verbose", "--debug")
INTERNAL_ERROR = 3
# What other detection programs call it -> what it is called here.
COMMANDS_ELSEWHERE = {"predict": "detect", "export": "convert", "val": "eval", "benchmark": "bench"}
OPTIONS_ELSEWHERE = {"--conf": "--score-threshold", "--iou": "--iou-threshold", "--max-det": "--max-detections"}
UNWRITABLE = frozenset({errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EFBIG})  # of a stream that was opened


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if value:
        typer.echo(f"xdet {xdet.__version__}")
        raise typer.Exit


def build_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with some of its commands: one that is named needs no other, which takes 20 ms less."""
    app = typer.Typer(
        name="xdet",
        help="Object detectors as one end-to-end ONNX file, on any runtime.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for name in commands:
        module, function_name = COMMANDS[name]
        function = getattr(import_module(f"xdet.cli.{module}"), function_name)
        app.command(name, epilog=read_examples(function))(as_command(function))
    return app


def options(
    *,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell what each step did and why it declined.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Convert, run and check object detectors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if verbose or debug:
        for package in ("xdet", "converters"):
            logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)


class _OneLine(logging.Formatter):
    """Log records as lines of the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return with_options(message_line(super().format(record)))


def main() -> None:
    """Run the program; every failure is one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = _global_flags_first(sys.argv[1:])
    try:
        try:
            command = next((word for word in arguments if word not in GLOBAL_FLAGS), "")
            _require_known_words(command, arguments)
            build_app([command] if command in COMMANDS else COMMANDS)(arguments)
        finally:
            sys.stdout.flush()
    except (ConversionError, XdetError) as error:
        _fail(arguments, f"error: {error.lines[0]}", *error.lines[1:], code=error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        _fail(arguments, "error: the memory does not suffice; close other programs, or name smaller files", code=3)
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            _fail(arguments, _defect(error), code=INTERNAL_ERROR)
        with Path(os.devnull).open("wb") as nowhere:  # what is left in the buffer goes there when Python ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        reason = error.strerror or type(error).__name__
        _fail(arguments, f"error: cannot write to the standard output: {reason}", code=OutputError.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours is told in one line, too
        _fail(arguments, _defect(error), code=INTERNAL_ERROR)


def _defect(error: Exception) -> str:
    what = one_line(f"{type(error).__name__}: {error}")
    return f"internal error: {what}; please report it, with the command and what --debug shows"


def _require_known_words(command: str, arguments: list[str]) -> None:
    """Refuse words of other programs with the one that is meant; what nobody knows is left to the parser."""
    if command in COMMANDS_ELSEWHERE:
        raise UsageError(f"there is no command '{command}'; did you mean xdet {COMMANDS_ELSEWHERE[command]}?")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for word in arguments[:end]:
        option = word.partition("=")[0]
        if option in OPTIONS_ELSEWHERE:
            raise UsageError(f"there is no option '{option}'; did you mean {OPTIONS_ELSEWHERE[option]}?")


def _fail(arguments: list[str], message: str, *details: str, code: int) -> NoReturn:
    """One line on stderr, with its details below, and the exit code; behind ``--debug`` the traceback comes first."""
    lines = [f"xdet: {message}", *details]
    if "--debug" in arguments[: len(GLOBAL_FLAGS)]:
        lines = [*traceback.format_exc().splitlines(), *lines]
    with suppress(OSError):  # nobody can be told
        print("\n".join(with_options(message_line(line)) for line in lines), file=sys.stderr)  # noqa: T201 - the one error handler
    sys.exit(code)


def _global_flags_first(arguments: list[str]) -> list[str]:
    """Let ``--verbose`` and ``--debug`` stand behind the command, where people add them; ``--`` ends the options."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [flag for flag in GLOBAL_FLAGS if flag in arguments[:end]]
    return flags + [word for word in arguments[:end] if word not in GLOBAL_FLAGS] + arguments[end:]
