"""A session runs on the provider that was asked for, quietly, with exact kernels where the usual ones saturate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.xdet.finished_models import document, finished_model
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.runtimes import ort_session
from xdet.runtimes import ort_session as providers
from xdet.runtimes import ort_session as saturation
from xdet.runtimes.base import RuntimeChoices, vendor_errors
from xdet.runtimes.onnxruntime import OnnxRuntime, open_onnxruntime

if TYPE_CHECKING:
    from converters.spec import ActivationCodes


def opened(model: bytes, *, threads: int | None = 1) -> OnnxRuntime:
    return open_onnxruntime(model, file="m.onnx", choices=RuntimeChoices(threads=threads))


@pytest.mark.parametrize("name", [None, "cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_a_provider_is_known_by_short_and_full_name_in_any_case(name: str | None) -> None:
    assert providers.resolve_provider(name) == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["rocm", "ROCMExecutionProvider", "warp-drive", "azure"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_what_is(name: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match=rf"{name}.*cpu \(CPUExecutionProvider\)"):
        open_onnxruntime(finished_model(), file="m.onnx", choices=RuntimeChoices(provider=name))


def test_the_available_providers_end_with_the_cpu_and_hide_the_remote_one() -> None:
    available = providers.available_providers()
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
    assert saturation.PROBE.is_file()


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
