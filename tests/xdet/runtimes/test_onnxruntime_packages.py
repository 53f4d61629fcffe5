"""ONNX Runtime has one distribution per provider: none, or two of them, is told with the lines that repair it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.xdet.finished_models import finished_model
from xdet.cli.app import build_app
from xdet.errors import RuntimeUnavailableError
from xdet.runtimes.onnxruntime_packages import installed_distributions, not_importable, two_distributions
from xdet.runtimes.ort_session import resolve_provider

if TYPE_CHECKING:
    from pathlib import Path


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": list(names)})


def test_the_distribution_that_is_here_is_found_and_alone() -> None:
    assert len(installed_distributions()) == 1
    assert two_distributions() is None


def test_two_distributions_are_told_with_the_repair_where_providers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime-openvino", "onnxruntime", "onnxruntime")
    repair = "pip uninstall -y onnxruntime onnxruntime-openvino, then pip install onnxruntime-openvino"
    assert repair in str(two_distributions())
    shown = CliRunner().invoke(build_app(), ["providers"])
    assert shown.exit_code == 0
    assert repair in shown.stderr
    with pytest.raises(RuntimeUnavailableError, match="2 distributions of ONNX Runtime are installed"):
        resolve_provider("warp")


def test_two_distributions_are_told_before_a_model_is_opened(tmp_path: Path, sample_pictures: list[Path]) -> None:
    other = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n", "utf-8")
    (other / "top_level.txt").write_text("onnxruntime\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "xdet", "detect", str(sample_pictures[0])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    (told,) = done.stderr.splitlines()
    assert told.startswith("2 distributions of ONNX Runtime are installed")
    assert told.endswith("pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu")


def test_one_in_pieces_is_told_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime")
    told = not_importable(ImportError("no module\nnamed capi"))
    assert "ONNX Runtime (onnxruntime) cannot be imported: no module named capi;" in told
    assert told.endswith("pip uninstall -y onnxruntime, then pip install onnxruntime")


@pytest.mark.parametrize("command", [["providers"], ["detect", "--help"], ["detect"], ["selftest"]])
def test_without_onnx_runtime_a_command_is_one_line_and_never_an_internal_error(
    command: list[str], sample_pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(finished_model())
    arguments = {"detect": [str(sample_pictures[0])], "selftest": [str(tmp_path / "m.onnx")]}
    hidden = (
        "import sys\nsys.modules['onnxruntime'] = None\nfrom importlib import metadata\n"
        "metadata.packages_distributions = dict\nfrom xdet.__main__ import main\nsys.exit(main())"
    )
    given = arguments.get(command[0], []) if len(command) == 1 else []
    done = subprocess.run([sys.executable, "-c", hidden, *command, *given], capture_output=True, text=True, check=False)
    if "--help" in command:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 3
    assert done.stderr.startswith(
        "xdet: error: ONNX Runtime is not installed; install it with: pip install onnxruntime"
    )
    assert len(done.stderr.splitlines()) == 1
