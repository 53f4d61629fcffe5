"""The embedded detector converted once, and fixtures about columns of other processors."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from tests.xdet.checking.reports import PLAIN, RUNTIMES
from xdet.checking.check import check
from xdet.checking.other_cpus import kept_of_check, plain, restored
from xdet.checking.result import OtherCpu
from xdet.checking.selftest import run_selftest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.checking.result import CheckResult


@pytest.fixture(scope="session")
def person_model(embedded_tflite: Path) -> bytes:
    """The embedded detector, converted without options."""
    return convert_to_bytes(embedded_tflite, ConvertOptions()).model


@pytest.fixture(scope="session")
def person_onnx(person_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file, into which nobody writes."""
    path = tmp_path_factory.mktemp("person") / "person.onnx"
    path.write_bytes(person_model)
    return path


@pytest.fixture(scope="module")
def checked(person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]) -> CheckResult:
    """The check here, without columns."""
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    return check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES)


@pytest.fixture(scope="module")
def sound(person_onnx: Path, checked: CheckResult) -> list[dict[str, Any]]:
    """Two columns with what the self-test and the check really say, as JSON has them."""
    selftest = {**plain(run_selftest(person_onnx)), "plain": PLAIN}
    selftest["exact_kernels"] = "session.x64quantprecision"
    column = {"emulated": True, "simd": ["X86_V2"], "selftest": selftest, "check": plain(kept_of_check(checked))}
    return [{"cpu": cpu, **copy.deepcopy(column)} for cpu in ("Haswell", "Nehalem")]


@pytest.fixture
def columns(sound: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy to change."""
    return copy.deepcopy(sound)


@pytest.fixture
def with_columns(checked: CheckResult) -> Callable[[list[dict[str, Any]]], CheckResult]:
    """The check here, with columns."""
    return lambda columns: replace(checked, other_cpus=tuple(restored(OtherCpu, column) for column in columns))
