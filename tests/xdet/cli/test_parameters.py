"""The library speaks of its parameters, the command line of its options."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

import xdet
from converters.errors import OptionError
from tests.conftest import ROOT
from xdet.cli.console import with_options

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = ("pip install", "Chromium", "xdet convert", "xdet eval", "xdet detect")  # commands, told in full
SOURCES = [path for package in ("xdet",) for path in sorted((ROOT / package).rglob("*.py")) if "cli" not in path.parts]


def test_parameters_of_commands_become_options_and_other_words_stay() -> None:
    assert with_options("give `force`, or `anchor_unit` cell") == "give --force, or --anchor-unit cell"
    assert with_options("a file `strange` and ``x`") == "a file `strange` and ``x`"


def test_an_error_of_the_library_names_the_parameter(embedded_tflite: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")
    with pytest.raises(OptionError, match="give `force` to replace it"):
        xdet.convert(embedded_tflite, tmp_path / "m.onnx")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_error_of_the_library_speaks_of_an_option(path: Path) -> None:
    lines = path.read_text("utf-8").split("\n")
    raised = {
        line
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.Raise) and node.end_lineno is not None
        for line in lines[node.lineno - 1 : node.end_lineno]
    }
    assert [
        line for line in raised if re.search(r"(?<![\w`-])--[a-z]", line) and not any(word in line for word in ALLOWED)
    ] == []
