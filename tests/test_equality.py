"""The promise: raw heads equal LiteRT XNNPACK's in every value, on trained models and real photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest

from converters.description.settings import SourceOptions
from converters.options import ConvertOptions
from converters.pipeline import convert_to_bytes
from xdet.images import read_image, resize_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MODELS = (
    "tiny_yolo_v2_person_192_int8",
    "tiny_yolo_v2_person_224_int8",
    "tiny_yolo_v2_person_224_per_tensor_int8",
    "tiny_yolo_v2_person_416_int8",
)
PHOTOGRAPHS = 12


class LiteRt:
    """A TFLite file on XNNPACK, one thread."""

    def __init__(self, path: Path) -> None:
        litert = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
        self._interpreter = litert.Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    @property
    def size(self) -> int:
        return int(self._input["shape"][1])

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return np.array(self._interpreter.get_tensor(self._output["index"]))


def converted_session(source: Path, **choices: str) -> ort.InferenceSession:
    options = ConvertOptions(source=SourceOptions(head="none"), **choices)  # type: ignore[arg-type]  # parametrised
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = 1
    return ort.InferenceSession(
        convert_to_bytes(source, options).model, session_options, providers=["CPUExecutionProvider"]
    )


def inputs(size: int, photographs: list[Path]) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    noise = [rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8) for _ in range(2)]
    flat = [np.full((1, size, size, 3), level, np.uint8) for level in (0, 255)]
    photos = [
        resize_image(read_image(path, honour_exif=True), size, size, "bilinear-antialias")[None]
        for path in photographs
    ]
    return [*noise, *flat, *photos]


def count_differing(source: Path, photographs: list[Path], **choices: str) -> int:
    litert, session = LiteRt(source), converted_session(source, **choices)
    return sum(
        int((session.run(None, {"image": image})[0] != litert(image)).sum())
        for image in inputs(litert.size, photographs)
    )


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_the_embedded_detector_equals_litert_in_every_head_value(
    embedded_tflite: Path, sample_pictures: list[Path], activations: str
) -> None:
    assert count_differing(embedded_tflite, sample_pictures, activations=activations) == 0


@pytest.mark.shared
@pytest.mark.parametrize("target", ["portable", "cpu"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_every_shared_detector_equals_litert_in_every_head_value(
    shared_dir: Path, photographs: list[Path], model: str, activations: str, target: str
) -> None:
    source = shared_dir / "models" / f"{model}.tflite"
    assert count_differing(source, photographs[:PHOTOGRAPHS], activations=activations, target=target) == 0
