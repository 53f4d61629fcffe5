"""The program ``xdet`` in this process: what it prints and how it ends, without the start of a Python.

Streams are files, which the program sees as a pipe, behind the descriptors 0 to 2, so that what libraries print is
read, too. Tests of processes themselves (signals, encodings, a closed stream) start one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from xdet.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


def run_xdet(*words: object, folder: Path = ROOT, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """What ``xdet`` says in ``folder``, and its exit code."""
    command = ["xdet", *map(str, words)]
    files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - closed below
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(file)
        files[0].write(stdin.encode("utf-8", "surrogateescape"))
        files[0].seek(0)
        code = _run(command, folder, [file.fileno() for file in files])
        out, err = (_text(file) for file in files[1:])
    return subprocess.CompletedProcess(command, code, out, err)


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with an error, told in one line that holds the words."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("xdet: error: ")
    for word in words:
        assert word in lines[0]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8").replace(os.linesep, "\n")


def _run(command: list[str], folder: Path, descriptors: list[int]) -> int:
    with pytest.MonkeyPatch.context() as patch, _descriptors(descriptors), _logging():
        streams = [
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - of a descriptor
            for number, mode in enumerate("rww")
        ]
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", command)
        patch.setenv("PYTHONPATH", str(ROOT))  # of what the program starts
        patch.chdir(folder)
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            for stream in streams:
                stream.close()
    return 0


@contextlib.contextmanager
def _descriptors(others: list[int]) -> Iterator[None]:
    """Let 0, 1 and 2 be other files for a while."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in range(3)]
    for number, other in enumerate(others):
        os.dup2(other, number)
    try:
        yield
    finally:
        for number, copy in enumerate(saved):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Give the loggers back what the program, which sets them up anew, took from them."""
    loggers = [logging.getLogger(name) for name in (None, "xdet", "converters")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
    try:
        yield
    finally:
        for logger, (level, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers = handlers
