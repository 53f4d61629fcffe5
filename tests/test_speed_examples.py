"""The programs that measure compare like with like: every form and every way gives the same numbers before it is timed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def variants() -> ModuleType:
    """``examples/kernel_variants.py`` as a module."""
    spec = importlib.util.spec_from_file_location("kernel_variants", EXAMPLES / "kernel_variants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def codes(shape: list[int]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("stage", "count", "size"),
    [("first", 5, 16), ("first", 5, 52), ("second", 2, 16), ("second", 2, 52), ("deep", 6, 96), ("leaky", 4, 16)],
)
def test_all_forms_of_a_stage_give_the_same_codes(variants: ModuleType, stage: str, count: int, size: int) -> None:
    forms = variants.STAGES[stage][1](size)
    assert len(forms) == count
    assert sum(form.chosen for form in forms) == 1
    variants.require_equal(forms, variants.codes_for(forms[0]))


def test_a_form_with_other_codes_ends_the_program(variants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    table, total, *_ = variants.leaky_forms(16)
    with monkeypatch.context() as patch:
        patch.setattr(variants, "OUT", (0.019, 20))
        other = variants.leaky_forms(16)[1]
    variants.require_equal([table, total], codes([1, 8, 8, 16]))
    with pytest.raises(SystemExit, match="'Max, QLinearAdd' gives other codes than 'QLinearLeakyRelu, a table'"):
        variants.require_equal([table, other], codes([1, 8, 8, 16]))


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["kernel_variants.py", "--sizes", "16", "--stages", "leaky"], 4),
        pytest.param(["session_variants.py"], 16, marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_table_of_positive_times_is_printed(command: list[str], rows: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / command[0], *command[1:], "--blocks", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + rows
    for line in lines[2:]:
        times = [float(cell.strip(" *")) for cell in line.split("|")[2:-1]]
        assert len(times) == lines[0].count("|") - 2
        assert min(times) > 0
