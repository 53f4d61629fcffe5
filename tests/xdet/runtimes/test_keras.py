"""The runtime ``keras`` feeds rescaled pixels, decodes with the numpy head, and tells what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from tests.xdet.finished_models import SPEC
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import ModelFile
from xdet.runtimes import table
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.keras import CHUNK, KerasRuntime, open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[3]


class Network:
    """A network whose head is its input, six times over; it remembers how many images came at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def outputs(self, rescaled: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.batches.append(len(rescaled))
        return [np.repeat(rescaled[..., :1], 6, axis=3)]

    def layer_names(self) -> tuple[str, ...]:
        return ("first", "second")

    def layer_outputs(self, rescaled: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[np.float32]]:
        return [rescaled * (self.layer_names().index(name) + 1) for name in names]


class Broken(Network):
    def outputs(self, rescaled: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        raise ValueError(f"no kernel for {rescaled.shape}\n of this")


def runtime_of(network: Network) -> KerasRuntime:
    return KerasRuntime(ModelFile(Path("m.h5"), b"bytes of a file", "h5"), cast("Any", network), SPEC)


def pictures(count: int, red: int = 255) -> NDArray[np.uint8]:
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[..., 0] = red
    return images


def test_pixels_are_rescaled_and_the_head_comes_back() -> None:
    head = runtime_of(Network()).head(pictures(1, red=51))
    assert head.shape == (1, 2, 2, 6)
    assert head.dtype == np.float32
    np.testing.assert_allclose(head, 0.2, rtol=1e-6)


def test_many_images_go_in_small_chunks() -> None:
    network = Network()
    assert runtime_of(network).head(pictures(2 * CHUNK + 1)).shape[0] == 2 * CHUNK + 1
    assert network.batches == [CHUNK] * 3


def test_detections_are_those_of_the_numpy_head() -> None:
    runtime = runtime_of(Network())
    found = runtime.detect(pictures(1), replace(SPEC.thresholds, score=0.7))  # sigmoid(1) = 0.73
    assert found.num_detections.tolist() == [1]  # four equal boxes that overlap
    assert runtime.detect(pictures(1), replace(SPEC.thresholds, score=0.74)).num_detections.tolist() == [0]


def test_layers_are_shown_by_their_names() -> None:
    shown = runtime_of(Network()).tensors(pictures(1), ["second", "first", "second"])
    assert {name: float(array[0, 0, 0, 0]) for name, array in shown.items()} == {"second": 2.0, "first": 1.0}
    with pytest.raises(UsageError, match="'third'"):
        runtime_of(Network()).tensors(pictures(1), ["third"])


def test_a_closed_runtime_says_so() -> None:
    runtime = runtime_of(Network())
    with runtime:
        pass
    with pytest.raises(UsageError, match=r"'m\.h5' was closed"):
        runtime.head(pictures(1))


def test_what_keras_raises_is_a_model_error_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"'m\.h5': Keras failed while running it: no kernel for .* of this; see"):
        runtime_of(Broken()).head(pictures(1))


def test_it_has_a_name_a_hash_and_is_not_exact() -> None:
    runtime = runtime_of(Network())
    assert (runtime.name, runtime.file, runtime.batch, runtime.capabilities.exact) == ("keras:cpu", "m.h5", None, False)
    assert runtime.sha256 == hashlib.sha256(b"bytes of a file").hexdigest()


def test_another_provider_than_the_cpu_is_refused() -> None:
    with pytest.raises(
        RuntimeUnavailableError, match=r"'cuda' is not available for 'm\.h5'.* keras: it has cpu; .*convert"
    ):
        table.open_model(ModelFile(Path("m.h5"), b"", "h5"), RuntimeChoices(provider="cuda"))


def test_without_tensorflow_the_message_is_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda _: None)
    assert table.runtimes_for("h5") == ()
    with pytest.raises(MissingExtraError, match=r'tensorflow.*pip install "xdet\[keras\]"'):
        table.open_model(ModelFile(Path("m.h5"), b"", "h5"))


def test_a_file_that_would_run_code_is_a_model_error() -> None:
    pytest.importorskip("h5py", reason='needs pip install "xdet[keras]"')
    from tests.converters.sources.keras.stored_models import functional, h5_bytes, layer

    data = h5_bytes(functional(layer("Lambda", "evil")))
    with pytest.raises(ModelError, match="layer 'evil' is of class 'Lambda'"):
        open_model(ModelFile(Path("m.h5"), data, "h5"), RuntimeChoices())


@pytest.mark.shared
@pytest.mark.skipif(find_spec("tf_keras") is None, reason='needs pip install "xdet[keras]"')
def test_the_shared_h5_file_is_detected_with_and_equals_its_float_onnx_model(shared_dir: Path, tmp_path: Path) -> None:
    program = """
import json, sys, time
import numpy as np
import xdet
from xdet.detection.detector import Detector
from xdet.runtimes.table import open_runtime
from xdet.pictures.preparation import Preparation, prepare
from pathlib import Path
source, output, folder = map(Path, sys.argv[1:])
started = time.process_time()
xdet.convert(source, output, head="none")
seconds = time.process_time() - started
photographs = sorted(folder.rglob("*.jpg"))[:12]
keras, onnx = open_runtime(source), open_runtime(output)
images = np.stack([prepare(p, Preparation(keras.spec.image)).pixels for p in photographs])
heads = keras.head(images), onnx.head(images)
thresholds = type(keras.spec.thresholds)(0.05, 0.5, 100)
found = [runtime.detect(images, thresholds) for runtime in (keras, onnx)]
anchors = [[sorted(a[:n].tolist()) for a, n in zip(f.anchors, f.num_detections)] for f in found]
print(json.dumps({"seconds": seconds, "difference": float(np.abs(heads[0] - heads[1]).max()),
                  "equal": anchors[0] == anchors[1], "boxes": sum(map(len, anchors[0]))}))
"""
    arguments = [
        shared_dir / "models" / "tiny_yolo_v2_person_224.h5",
        tmp_path / "m.onnx",
        shared_dir / "data" / "coco_person",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["difference"] < 1e-3  # measured 1.5e-5
    assert seen["equal"]
    assert seen["boxes"] > 100
    assert seen["seconds"] < 60
    assert result.stderr == ""
