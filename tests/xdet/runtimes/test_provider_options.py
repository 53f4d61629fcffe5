"""Options, devices and plug-ins reach ONNX Runtime, or are refused by name."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
import pytest

from tests.xdet.finished_models import finished_model
from xdet.checking.runtimes import with_options
from xdet.cli.options import read_provider_options
from xdet.detection.detector import Detector
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.runtimes import ort_session
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.onnxruntime_packages import installed_plugins, read_plugin
from xdet.runtimes.ort_session import SessionChoices, available_providers, register_plugins, resolve_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLUGIN = "onnxruntime_ep_warp"
WARP = "WarpExecutionProvider"
MODULE = f"""
def get_library_path(): return {{library!r}}
def get_ep_names(): return [{WARP!r}]
"""


def device(provider: str, kind: str, vendor: str = "Acme") -> Any:
    """As ONNX Runtime shows one."""
    hardware = SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}", vendor=vendor)
    return SimpleNamespace(ep_name=provider, ep_vendor="Warp Inc", device=hardware)


class Recording:
    """A session and its options that only remember what they were given."""

    def __init__(self) -> None:
        self.providers: list[Any] = []
        self.devices: list[Any] = []

    def session(self, _: bytes, __: object, **given: Any) -> Recording:
        self.providers = given.get("providers", [])
        return self

    def add_provider_for_devices(self, devices: list[Any], settings: dict[str, str]) -> None:
        self.devices = [devices, settings]

    def add_session_config_entry(self, *_: str) -> None:
        pass


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    found = Recording()
    monkeypatch.setattr(ort, "InferenceSession", found.session)
    monkeypatch.setattr(ort, "SessionOptions", lambda: found)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [WARP, "CPUExecutionProvider"])
    devices = [device(WARP, "GPU"), device(WARP, "NPU", ""), device(WARP, "GPU"), device("Other", "GPU")]
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices, raising=False)
    return found


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed plug-in whose library is no library."""
    library = tmp_path / "libwarp.so"
    library.write_text("no library", "utf-8")
    (tmp_path / f"{PLUGIN}.py").write_text(MODULE.format(library=str(library)), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    register_plugins.cache_clear()
    yield library
    register_plugins.cache_clear()


def test_options_of_the_command_line_are_pairs() -> None:
    assert read_provider_options(None) == {}
    assert read_provider_options(["device_id=1", "cache=a=b", "empty="]) == {
        "device_id": "1",
        "cache": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("words", "message"), [(["a"], "got 'a'"), (["=b"], "got '=b'"), (["a=1", "a=2"], "names 'a' twice")]
)
def test_options_that_are_no_pairs_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_provider_options(words)


def test_options_reach_the_provider(recording: Recording) -> None:
    ort_session._create(b"", SessionChoices(WARP, provider_options={"device_id": "1"}))
    assert recording.providers == [(WARP, {"device_id": "1"})]
    assert recording.devices == []


@pytest.mark.parametrize(("name", "index"), [("gpu", 0), ("GPU:1", 2), ("npu", 1), ("npu:0", 1)])
def test_a_device_is_chosen_by_kind_and_number(recording: Recording, name: str, index: int) -> None:
    ort_session._create(b"", SessionChoices(WARP, device=name, provider_options={"a": "b"}))
    assert recording.devices == [[ort.get_ep_devices()[index]], {"a": "b"}]
    assert recording.providers == []


def test_a_plug_in_gets_all_its_devices_unless_one_is_named(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    ort_session._create(b"", SessionChoices(WARP))
    assert recording.devices == [ort.get_ep_devices()[:3], {}]


@pytest.mark.usefixtures("recording")
def test_devices_are_listed_with_their_makers() -> None:
    assert {provider.name: provider.devices for provider in available_providers()}[WARP] == (
        "gpu:0 (Acme)",
        "npu:0 (Warp Inc)",
        "gpu:1 (Acme)",
    )


@pytest.mark.usefixtures("recording")
def test_a_device_that_is_not_there_is_told_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"no device 'gpu:2' here: it has gpu:0 \(Acme\), npu:0"):
        ort_session._create(b"", SessionChoices(WARP, device="gpu:2"))
    monkeypatch.setattr(ort, "get_ep_devices", list)
    with pytest.raises(RuntimeUnavailableError, match="lists none for it; try its own option"):
        ort_session._create(b"", SessionChoices(WARP, device="gpu"))


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"provider_options": {"a": "b"}}])
def test_the_cpu_refuses_what_it_would_ignore(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the CPU provider has no devices to choose and no options"):
        open_onnxruntime(finished_model(), file="m.onnx", choices=RuntimeChoices(**given))
    (tmp_path / "m.onnx").write_bytes(finished_model())
    with pytest.raises(UsageError, match="the CPU provider"):
        Detector(tmp_path / "m.onnx", **given)


def test_a_runtime_without_execution_providers_refuses_their_options(embedded_tflite: Path) -> None:
    with pytest.raises(UsageError, match="runs on litert: options and devices are those of ONNX Runtime's"):
        Detector(embedded_tflite, provider_options={"a": "b"})


def test_a_plug_in_that_cannot_be_loaded_is_told_where_its_provider_is_asked_for(plugin: Path) -> None:
    assert PLUGIN in installed_plugins()
    assert read_plugin(PLUGIN).path == str(plugin)
    with pytest.raises(RuntimeUnavailableError, match=rf"'warp' is not available; .*\({PLUGIN} cannot be loaded: "):
        resolve_provider("warp")
    assert resolve_provider("cpu") == "CPUExecutionProvider"


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_wants_an_onnxruntime_that_knows_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ort, ort_session.REGISTER, raising=False)
    with pytest.raises(RuntimeUnavailableError, match=f"{PLUGIN} needs a newer onnxruntime than"):
        resolve_provider(WARP)


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_that_finds_no_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[tuple[str, str]] = []
    monkeypatch.setattr(ort, ort_session.REGISTER, lambda *given: registered.append(given), raising=False)
    with pytest.raises(RuntimeUnavailableError, match=f"{PLUGIN} finds no device here that its {WARP} supports"):
        resolve_provider(WARP)
    resolve_provider("cpu")
    assert [name for name, _ in registered] == [PLUGIN]  # once


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_with_a_device_can_be_chosen(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, ort_session.REGISTER, lambda *_: None, raising=False)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert register_plugins() == ()
    assert resolve_provider("warp") == WARP
    ort_session._create(b"", SessionChoices(WARP, device="npu"))
    assert [found.device.type for found in recording.devices[0]] == ["OrtHardwareDeviceType.NPU"]


def test_a_module_that_does_not_keep_the_convention_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{PLUGIN}_empty.py").write_text("", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=f"{PLUGIN}_empty does not tell its library"):
        read_plugin(f"{PLUGIN}_empty")


def test_a_model_error_names_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("Invalid option: nonsense")

    monkeypatch.setattr(ort_session, "_create", refuse)
    with pytest.raises(ModelError, match=r"Invalid option: nonsense; .* knows the options given"):
        ort_session.OrtSession(b"", file="m.onnx", choices=SessionChoices(WARP))


@pytest.mark.parametrize(("options", "device"), [({"a": "b"}, None), ({}, "gpu")])
def test_a_check_refuses_options_where_no_provider_takes_them(options: dict[str, str], device: str | None) -> None:
    cpu, cuda = RuntimeChoices("onnxruntime", "cpu"), RuntimeChoices("onnxruntime", "cuda")
    with pytest.raises(UsageError, match=r"names none besides the CPU's; add one, such as onnxruntime:cuda"):
        with_options([cpu, RuntimeChoices("openvino", "gpu")], options, device)
    assert with_options([cpu, cuda], options, device) == [cpu, replace(cuda, provider_options=options, device=device)]
    assert with_options([cpu], {}, None) == [cpu]
