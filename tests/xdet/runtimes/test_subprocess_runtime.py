"""Any runtime of the table runs in a subprocess: the same results, and a native crash is one line."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.xdet.finished_models import finished_model, red_image
from tests.xdet.runtimes import crashing_runtime
from xdet.errors import MissingExtraError, ModelError, RuntimeCrashedError, UsageError, XdetError
from xdet.model.file import ModelFile, read_model_file
from xdet.runtimes import subprocess_runtime
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.subprocess_runtime import (
    Message,
    SubprocessEndedError,
    SubprocessRuntime,
    Worker,
    call_in_subprocess,
)
from xdet.runtimes.table import RUNTIMES, open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HERE = "tests.xdet.runtimes.test_subprocess_runtime"
RED = red_image(200, 0, 0, 0)

ROOT = Path(__file__).resolve().parents[3]


def finished(name: str = "m.onnx") -> ModelFile:
    return ModelFile(Path(name), finished_model(), "onnx")


def echo(message: Message) -> Message:
    return message


def fail(message: Message) -> Message:
    kind = message.fields["kind"]
    raise (
        MissingExtraError("it", "all") if kind == "missing" else ModelError("no model") if kind else ValueError("x\ny")
    )


def wait(message: Message) -> Message:
    threading.Event().wait(message.fields["seconds"])
    return message


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: Message) -> Message:  # noqa: ARG002 - as every worker
        self.count += 1
        return Message({"count": self.count, "pid": os.getpid()})


def test_arrays_of_every_kind_travel_unchanged() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3), np.int64),
        "strided": np.arange(24, dtype=np.int8).reshape(4, 6)[::2, ::3],
        "large": np.random.default_rng(0).integers(0, 256, (3, 512, 512, 3), np.uint8),
        "nan": np.array([np.nan, -0.0]),
    }
    answer = call_in_subprocess(f"{HERE}:echo", Message({"text": "ä", "none": None}, arrays))
    assert answer.fields == {"text": "ä", "none": None}
    for name, array in arrays.items():
        assert (answer.arrays[name].dtype, answer.arrays[name].shape) == (array.dtype, array.shape)
        assert answer.arrays[name].tobytes() == array.tobytes()


def test_a_class_keeps_what_it_has_between_messages_in_a_process_of_its_own() -> None:
    with Worker(f"{HERE}:Counter") as worker:
        answers = [worker.ask(Message()).fields for _ in range(3)]
    assert [answer["count"] for answer in answers] == [1, 2, 3]
    assert {answer["pid"] for answer in answers} != {os.getpid()}
    with pytest.raises(SubprocessEndedError, match="it was stopped"):
        worker.ask(Message())


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [("missing", MissingExtraError, r"pip install \"xdet\[all\]\""), ("model", ModelError, "^no model$")],
)
def test_an_error_is_raised_here_as_it_was_there(kind: str, error: type[XdetError], told: str) -> None:
    with pytest.raises(error, match=told):
        call_in_subprocess(f"{HERE}:fail", Message({"kind": kind}))


def test_a_defect_there_is_told_by_its_last_line() -> None:
    with pytest.raises(SubprocessEndedError, match=r"^exit code 1: y$"):
        call_in_subprocess(f"{HERE}:fail", Message({"kind": ""}))


def test_a_subprocess_that_takes_too_long_is_killed() -> None:
    with pytest.raises(SubprocessEndedError, match="signal SIGKILL"):
        call_in_subprocess(f"{HERE}:wait", Message({"seconds": 600}), longest_s=0.5)


def test_a_worker_that_is_forgotten_ends() -> None:
    worker = Worker(f"{HERE}:echo")
    process = worker._process
    del worker
    gc.collect()
    assert process.returncode is not None


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx-reference"])
def test_a_runtime_in_a_subprocess_gives_what_it_gives_here(runtime: str) -> None:
    choices = RuntimeChoices(runtime, threads=1)
    with open_model(finished(), choices) as here, open_model(finished(), choices, subprocess=True) as there:
        assert isinstance(there, SubprocessRuntime)
        for name in ("name", "file", "sha256", "spec", "capabilities", "batch"):
            assert getattr(there, name) == getattr(here, name), name
        thresholds = replace(here.spec.thresholds, score=0.1)
        one, other = here.detect(RED, thresholds), there.detect(RED, thresholds)
        for name in ("num_detections", "boxes_xyxy", "scores", "classes", "anchors"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        shown = there.tensors(RED, ["sorted", "scores"])
        assert list(shown) == ["sorted", "scores"]
        assert np.array_equal(shown["scores"], here.tensors(RED, ["scores"])["scores"])
        with pytest.raises(UsageError, match="computes no value named 'nowhere'"):
            there.tensors(RED, ["nowhere"])
        assert there.detect(RED, thresholds).num_detections.tolist() == [1]  # it goes on after an error
    with pytest.raises(UsageError, match=r"'m\.onnx' was closed; open it again"):
        there.detect(RED, thresholds)


def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(RUNTIMES["onnxruntime"], module=crashing_runtime.__name__, subprocess=True)
    monkeypatch.setitem(RUNTIMES, "onnxruntime", row)


def test_a_crash_while_opening_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    with pytest.raises(RuntimeCrashedError) as crashed:
        open_model(finished("open.onnx"))
    assert str(crashed.value).startswith(
        "'open.onnx': onnxruntime:cpu crashed while opening it: its process ended with signal SIGSEGV: out of luck; see"
    )


def test_a_crash_while_it_runs_is_one_line_and_so_is_every_question_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    with open_model(finished("detect.onnx")) as runtime:
        for _ in range(2):
            with pytest.raises(RuntimeCrashedError, match=r"crashed while finding boxes: .*SIGSEGV"):
                runtime.detect(RED, runtime.spec.thresholds)


INTERRUPTED = """
import os, signal, threading
from dataclasses import replace
from tests.xdet.runtimes import crashing_runtime
from tests.xdet.runtimes.test_subprocess_runtime import RED, finished
from xdet.runtimes.table import RUNTIMES, open_model
signal.signal(signal.SIGINT, signal.default_int_handler)
RUNTIMES["onnxruntime"] = replace(RUNTIMES["onnxruntime"], module=crashing_runtime.__name__, subprocess=True)
runtime = open_model(finished("hang.onnx"))
process = runtime._worker._process
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    runtime.detect(RED, runtime.spec.thresholds)
except KeyboardInterrupt:
    print("interrupted", process.returncode is not None)
"""


def test_an_interrupt_leaves_no_process_behind() -> None:
    """In a process of its own, which an interrupt at another moment may end."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("interrupted True\n", 0), done.stderr


def test_a_subprocess_serves_one_model_after_the_other(embedded_tflite: Path) -> None:
    source, pids = read_model_file(embedded_tflite), []
    for kernels in ("xnnpack", "builtin"):
        with open_model(source, RuntimeChoices("litert", kernels)) as runtime:
            assert (isinstance(runtime, SubprocessRuntime), runtime.name) == (True, f"litert:{kernels}")
            pids.append(pid_of(runtime))
            with open_model(source) as beside:  # one that is in use is nobody else's
                assert pid_of(beside) not in pids
    assert pids[0] == pids[1]


def test_a_subprocess_that_refused_a_model_serves_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    with open_model(finished("detect.onnx")) as runtime:
        before = pid_of(runtime)
    with pytest.raises(ModelError, match="no ONNX file or a damaged one"):
        open_model(ModelFile(Path("m.onnx"), b"\x08\x08damaged", "onnx"))
    with open_model(finished("detect.onnx")) as runtime:
        assert pid_of(runtime) == before


def test_a_crash_is_not_blamed_on_the_model_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    with open_model(finished("detect.onnx")) as runtime:
        before = pid_of(runtime)
    with open_model(finished("detect, second model.onnx")) as runtime:  # crashes where another was open before
        assert pid_of(runtime) != before
        with pytest.raises(RuntimeCrashedError, match=r"'detect, second model\.onnx'.*SIGSEGV: out of luck;"):
            runtime.detect(RED, runtime.spec.thresholds)
    with open_model(finished("detect.onnx")) as runtime:  # whoever crashed is not asked again
        assert runtime.spec.class_names


def test_other_threads_need_another_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    pids = []
    for threads in (1, 1, 2):
        with open_model(finished("detect.onnx"), RuntimeChoices(threads=threads)) as runtime:
            pids.append(pid_of(runtime))
    assert pids[0] == pids[1] != pids[2]
    assert not is_running(pids[0])


def test_a_subprocess_that_holds_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing(monkeypatch)
    monkeypatch.setattr(subprocess_runtime, "MOST_KEPT_BYTES", 1 << 20)
    with open_model(finished("detect.onnx")) as runtime:
        pid = pid_of(runtime)
    assert not is_running(pid)


def test_a_relative_path_is_one_of_the_folder_that_we_are_in_now(
    embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "net.tflite").write_bytes(embedded_tflite.read_bytes())
        sidecar = embedded_tflite.with_suffix(".xdet.json").read_text("utf-8")
        (folder / "net.xdet.json").write_text(sidecar.replace('"person"', f'"{name}"'), "utf-8")
        monkeypatch.chdir(folder)
        with open_model(read_model_file(Path("net.tflite"))) as runtime:
            assert runtime.spec.class_names == (name,)


@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_no_subprocess_outlives_this_process(embedded_tflite: Path, end: str) -> None:
    code = (
        "import os, sys; from pathlib import Path; from xdet.runtimes.table import open_runtime\n"
        "with open_runtime(Path(sys.argv[1])) as runtime:\n"
        "    print(runtime._worker._process.pid, flush=True)\n"
        f"{end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(embedded_tflite)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (3, -9), done.stderr
    for _ in range(1200):  # it reads that its input has ended
        if not is_running(int(done.stdout)):
            return
        time.sleep(0.1)
    pytest.fail("the subprocess runs on")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork, such as Linux")
def test_a_fork_neither_uses_nor_ends_what_its_parent_keeps(embedded_tflite: Path) -> None:
    code = (
        "import gc, os, sys; from pathlib import Path\n"
        "from xdet.runtimes import subprocess_runtime; from xdet.runtimes.table import open_runtime\n"
        "def pid():\n"
        "    with open_runtime(Path(sys.argv[1])) as runtime:\n"
        "        return runtime._worker._process.pid\n"
        "before = pid()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    other = pid(); subprocess_runtime._idle.clear(); gc.collect(); os._exit(int(other == before))\n"
        "assert os.waitpid(child, 0)[1] == 0, 'the fork used it'\n"
        "assert pid() == before, 'the fork ended it'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(embedded_tflite)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def pid_of(runtime: object) -> int:
    assert isinstance(runtime, SubprocessRuntime)
    return runtime._worker._process.pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").split()[2] != "Z"
    except FileNotFoundError:
        return False


def without_scales(source: bytes) -> bytes:
    """The file without the scales of its inner tensors, which LiteRT divides by."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')
    flatbuffers = pytest.importorskip("flatbuffers", reason="needs pip install flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(source, 0)
    for tensor in model.subgraphs[0].tensors[1:]:
        tensor.quantization = None
    builder = flatbuffers.Builder(len(source) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_source_that_takes_litert_down_is_one_line_and_this_process_goes_on(embedded_tflite: Path) -> None:
    broken = ModelFile(embedded_tflite, without_scales(embedded_tflite.read_bytes()), "tflite")
    with pytest.raises(XdetError, match=r"int8\.tflite") as refused:
        open_model(broken)
    assert "\n" not in str(refused.value)
    with open_model(read_model_file(embedded_tflite)) as sound:
        assert isinstance(sound, SubprocessRuntime)
        assert sound.name == "litert:xnnpack"


def test_a_source_leaves_its_runtimes_packages_out_of_this_process(embedded_tflite: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from xdet.runtimes.table import open_runtime\n"
        "with open_runtime(Path(sys.argv[1])) as runtime:\n"
        "    runtime.head(np.zeros((1, 224, 224, 3), np.uint8))\n"
        "assert not [name for name in sys.modules if name.startswith('ai_edge_litert')]"
    )
    assert run_python(["-c", code, str(embedded_tflite)]) == 0


def run_python(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, *arguments], check=False, timeout=600).returncode
