"""A session runs on the provider that was asked for, quietly, with exact kernels where the usual ones saturate."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import Activations, ConvertOptions
from tests.data.make_saturation_probe import PROBE, build_probe
from tests.xdet.finished_models import document, finished_model
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.runtimes import ort_session
from xdet.runtimes.base import RuntimeChoices, vendor_errors
from xdet.runtimes.onnxruntime import OnnxRuntime, open_onnxruntime
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.spec import ActivationCodes


def opened(model: bytes, *, threads: int | None = 1) -> OnnxRuntime:
    return open_onnxruntime(model, file="m.onnx", choices=RuntimeChoices(threads=threads))


@pytest.mark.parametrize("name", [None, "cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_a_provider_is_known_by_short_and_full_name_in_any_case(name: str | None) -> None:
    assert ort_session.resolve_provider(name) == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["rocm", "ROCMExecutionProvider", "warp-drive", "azure"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_what_is(name: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match=rf"{name}.*cpu \(CPUExecutionProvider\)"):
        open_onnxruntime(finished_model(), file="m.onnx", choices=RuntimeChoices(provider=name))


def test_the_available_providers_end_with_the_cpu_and_hide_the_remote_one() -> None:
    available = ort_session.available_providers()
    assert available[-1].name == "CPUExecutionProvider"
    assert available[-1].short == "cpu"
    assert all(provider.name != "AzureExecutionProvider" for provider in available)


def test_a_provider_that_starts_as_another_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impostor:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort_session, "_create", lambda *_: Impostor())
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider could not be started"):
        ort_session.OrtSession(b"", file="m.onnx", choices=ort_session.SessionChoices("CUDAExecutionProvider"))


def test_a_vendors_exception_becomes_ours_in_one_line() -> None:
    errors = (ValueError,), (OSError,)
    message = "[ONNXRuntimeError] : 1 : FAIL : a\n  b."
    with (
        pytest.raises(ModelError, match=r"^'f': loading: a b; act$"),
        vendor_errors(*errors, file="f", doing="loading", advice="act"),
    ):
        raise ValueError(message)
    with (
        pytest.raises(RuntimeUnavailableError, match=r"^'f': loading: OSError; act$"),
        vendor_errors(*errors, file="f", doing="loading", advice="act"),
    ):
        raise OSError


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_saturating_kernels_lead_to_the_exact_ones_of_the_models_dialect(
    activations: ActivationCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    create = ort_session._create

    def recording(model: bytes, choices: ort_session.SessionChoices) -> object:
        asked.append(choices.exact_for)
        return create(model, choices)

    monkeypatch.setattr(ort_session, "kernels_saturate", lambda: True)
    monkeypatch.setattr(ort_session, "_create", recording)
    opened(finished_model(metadata=document(activations=activations).to_json()))
    assert asked == [activations]


def test_exact_kernels_are_not_asked_for_where_nothing_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_session, "kernels_saturate", lambda: False)
    runtime = opened(finished_model())
    options = runtime.session._session.get_session_options()
    with pytest.raises(RuntimeError, match="x64quantprecision"):
        options.get_session_config_entry("session.x64quantprecision")
    assert ort_session.PROBE.is_file()


def test_threads_are_passed_on_and_left_to_onnxruntime_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_session, "default_threads", lambda: 3)
    for threads, expected in ((None, 3), (2, 2)):
        options = opened(finished_model(), threads=threads).session._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)


def test_a_process_that_may_use_fewer_cpus_says_so_to_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert ort_session.default_threads() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert ort_session.default_threads() == 0


ROOT = Path(__file__).resolve().parents[3]
# OpenBLAS inside numpy picks AVX code for the emulated Nehalem unless it is told the CPU.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": "Nehalem"}
HEAD_HASH = """
import hashlib, sys
import numpy as np
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import open_onnxruntime
image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
head = open_onnxruntime(sys.stdin.buffer.read(), file="m.onnx", choices=RuntimeChoices(threads=1)).head(image)
print(hashlib.sha256(head.tobytes()).hexdigest())
"""
REPORT = """
import sys
import numpy as np
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.runtimes.ort_session import kernels_saturate, run_probe
session = OrtSession(sys.stdin.buffer.read(), file="int8", choices=SessionChoices(threads=1, exact_for="int8"))
codes = session.run(["y"], {"x": np.full((1, 16, 5, 5), 127, np.int8)})[0]
print(kernels_saturate(), set(run_probe(exact_for="uint8").ravel().tolist()), set(codes.ravel().tolist()))
"""


def test_the_shipped_probe_is_what_its_script_writes() -> None:
    assert ort_session.PROBE.read_bytes() == build_probe()
    assert ort_session.PROBE == PROBE


@pytest.mark.parametrize(
    ("pair_limit", "code"), [(2**31 - 1, ort_session.EXACT), (2**15 - 1, 101)], ids=["exact", "saturating"]
)
def test_the_shipped_probe_tells_exact_from_saturating_sums(pair_limit: int, code: int) -> None:
    """The answers are computed from the file's own weights and scales, channel pair by channel pair."""
    graph = onnx.load(ort_session.PROBE).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = 255 * constants["w"].astype(np.int64).transpose(0, 2, 3, 1).reshape(len(constants["w"]), -1, 2)
    sums = products.sum(axis=2).clip(-pair_limit - 1, pair_limit).sum(axis=1)
    real = sums.astype(np.float32) * constants["x_scale"] * constants["w_scale"] / constants["y_scale"]
    assert np.rint(real).tolist() == [code] * 16


@pytest.mark.parametrize("exact_for", [None, "uint8"])
def test_the_probe_runs_as_one_integer_convolution(exact_for: str | None, tmp_path: Path) -> None:
    optimized = tmp_path / "optimized.onnx"
    ort_session.run_probe(exact_for=exact_for, optimized_path=str(optimized))
    operators = [node.op_type for node in onnx.load(optimized).graph.node if node.op_type != "Transpose"]
    assert operators == ["QLinearConv"]


def test_exact_kernels_give_the_true_sum_on_this_machine() -> None:
    assert (ort_session.run_probe(exact_for="uint8") == ort_session.EXACT).all()
    choices = SessionChoices(threads=1, exact_for="int8")
    session = OrtSession(build_probe(np.int8), file="int8", choices=choices)
    (codes,) = session.run(["y"], {"x": np.full((1, 16, 5, 5), 127, np.int8)})
    assert (codes == ort_session.EXACT - 128).all()


@pytest.mark.parametrize(
    ("codes", "saturates"),
    [([200] * 9, False), ([101] * 9, True), ([200] * 8 + [199], True)],
    ids=["exact", "saturating", "one-wrong"],
)
def test_one_wrong_sum_is_enough_and_the_probe_runs_once(
    codes: list[int],
    saturates: bool,  # noqa: FBT001 - a parametrised value
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[int] = []

    def answer() -> NDArray[np.uint8]:
        runs.append(1)
        return np.array(codes, np.uint8)

    monkeypatch.setattr(ort_session, "run_probe", answer)
    measured = functools.cache(ort_session.kernels_saturate.__wrapped__)
    assert [measured(), measured()] == [saturates, saturates]
    assert len(runs) == 1


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
