"""The probe tells saturating kernels from exact ones, and the session options it leads to are exact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.description.settings import SourceOptions
from converters.options import Activations, ConvertOptions
from converters.pipeline import convert_to_bytes
from tests.data.make_saturation_probe import PROBE, TRUE_SUM, build_probe
from xdet.runtimes import saturation
from xdet.runtimes.ort_session import OrtSession, SessionChoices

ROOT = Path(__file__).resolve().parents[2]
# OpenBLAS inside numpy picks AVX code for the emulated Nehalem unless it is told the CPU.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": "Nehalem"}
HEAD_HASH = """
import hashlib, sys
import numpy as np
from xdet.runtimes.onnxruntime import open_onnxruntime
image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
head = open_onnxruntime(sys.stdin.buffer.read(), file="m.onnx", threads=1).head(image)
print(hashlib.sha256(head.tobytes()).hexdigest())
"""
REPORT = """
import sys
import numpy as np
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.runtimes.saturation import kernels_saturate, run_probe
session = OrtSession(sys.stdin.buffer.read(), file="int8", choices=SessionChoices(threads=1, exact_for="int8"))
codes = session.run(["y"], {"x": np.full((1, 16, 5, 5), 127, np.int8)})[0]
print(kernels_saturate(), set(run_probe(exact_for="uint8").ravel().tolist()), set(codes.ravel().tolist()))
"""


def test_the_shipped_probe_is_what_its_script_writes() -> None:
    assert saturation.PROBE.read_bytes() == build_probe()
    assert saturation.PROBE == PROBE


def test_the_probes_pairs_exceed_16_bits_while_its_true_answer_is_an_ordinary_code() -> None:
    assert np.iinfo(np.int16).max < 2 * 255 * 127
    assert TRUE_SUM / (TRUE_SUM / saturation.EXACT) == saturation.EXACT < 255


@pytest.mark.parametrize("exact_for", [None, "uint8"])
def test_the_probe_runs_as_one_integer_convolution(exact_for: str | None, tmp_path: Path) -> None:
    optimized = tmp_path / "optimized.onnx"
    saturation.run_probe(exact_for=exact_for, optimized_path=str(optimized))
    operators = [node.op_type for node in onnx.load(optimized).graph.node if node.op_type != "Transpose"]
    assert operators == ["QLinearConv"]


def test_exact_kernels_give_the_true_sum_on_this_machine() -> None:
    assert (saturation.run_probe(exact_for="uint8") == saturation.EXACT).all()
    choices = SessionChoices(threads=1, exact_for="int8")
    session = OrtSession(build_probe(np.int8), file="int8", choices=choices)
    (codes,) = session.run(["y"], {"x": np.full((1, 16, 5, 5), 127, np.int8)})
    assert (codes == saturation.EXACT - 128).all()


def test_the_answer_agrees_with_a_default_run() -> None:
    assert saturation.kernels_saturate() == bool((saturation.run_probe() != saturation.EXACT).any())


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("cpu", "saturates"), [("Haswell", True), ("Nehalem", False)], ids=["avx2-without-vnni", "sse"]
)
def test_an_emulated_cpu_is_told_apart_and_made_exact(cpu: str, saturates: bool, qemu_x86_64: str) -> None:  # noqa: FBT001  (a parametrised value)
    printed = _run_emulated(qemu_x86_64, cpu, REPORT, build_probe(np.int8))
    assert printed == f"{saturates} {{200}} {{72}}"


@pytest.mark.emulator
@pytest.mark.parametrize("cpu", ["Haswell", "Nehalem"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_the_embedded_network_gives_the_same_bits_on_an_emulated_cpu(
    cpu: str, activations: Activations, qemu_x86_64: str, embedded_tflite: Path
) -> None:
    options = ConvertOptions(source=SourceOptions(head="none"), activations=activations)
    model = convert_to_bytes(embedded_tflite, options).model
    here = subprocess.run(
        [sys.executable, "-c", HEAD_HASH], input=model, env=ENVIRONMENT, capture_output=True, check=True
    )
    assert _run_emulated(qemu_x86_64, cpu, HEAD_HASH, model) == here.stdout.decode().strip()


def _run_emulated(qemu: str, cpu: str, program: str, stdin: bytes) -> str:
    """What a Python program prints on an emulated CPU."""
    done = subprocess.run(
        [qemu, "-cpu", cpu, sys.executable, "-c", program],
        input=stdin,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()
