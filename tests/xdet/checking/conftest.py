"""Fixtures about columns of other processors, shared by what reads and what shows them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from tests.xdet.checking.columns import PLAIN, RUNTIMES, written
from xdet.checking.check import check
from xdet.checking.other_cpus import read_other_cpus
from xdet.checking.report import check_to_json, selftest_to_json
from xdet.checking.selftest import run_selftest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdet.checking.result import CheckResult


@pytest.fixture(scope="module")
def person_onnx(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("columns") / "person.onnx"
    path.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions()).model)
    return path


@pytest.fixture(scope="module")
def checked(person_onnx: Path, embedded_tflite: Path, sample_pictures: list[Path]) -> CheckResult:
    """The check here, without columns."""
    return check(person_onnx, embedded_tflite, sample_pictures[:1], runtimes=RUNTIMES)


@pytest.fixture(scope="module")
def sound(person_onnx: Path, checked: CheckResult) -> dict[str, Any]:
    """Two columns with what the self-test and the check really say, as the example program writes them."""
    selftest = json.loads(selftest_to_json(run_selftest(person_onnx)))
    selftest |= {"exact_kernels": "session.x64quantprecision", "plain": PLAIN}
    found = json.loads(check_to_json(checked))
    column = {
        "emulated": True,
        "simd": ["X86_V2"],
        "selftest": {"result": selftest},
        "check": {"result": found},
    }
    return {
        "schema": "xdet.other-cpus",
        "version": 1,
        "model": {"name": checked.model, "sha256": checked.model_sha256},
        "source": {"name": checked.source, "sha256": checked.source_sha256},
        "columns": [{"cpu": cpu, **copy.deepcopy(column)} for cpu in ("Haswell", "Nehalem")],
    }


@pytest.fixture
def columns(sound: dict[str, Any]) -> dict[str, Any]:
    """A copy to change."""
    return copy.deepcopy(sound)


@pytest.fixture
def with_columns(checked: CheckResult, tmp_path: Path) -> Callable[[dict[str, Any]], CheckResult]:
    """The check here, with the columns of a document."""

    def read_columns(document: dict[str, Any]) -> CheckResult:
        digests = {"model_sha256": checked.model_sha256, "source_sha256": checked.source_sha256}
        return replace(checked, other_cpus=read_other_cpus(written(document, tmp_path), **digests))

    return read_columns
