"""The promise: raw heads equal LiteRT XNNPACK's in every value, on trained models, photographs and all targets."""

from __future__ import annotations

import platform
import re
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.graph import float_products
from converters.options import ConvertOptions
from converters.spec import ImageInput, Rescaling, Thresholds
from tests.converters.sources.tflite.field_networks import blazeface
from tests.converters.sources.tflite.ssd_networks import ssd_raw
from xdet.pictures.images import read_image, resize_image
from xdet.pictures.preparation import Preparation, in_order, prepare_many
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import OnnxRuntime, open_onnxruntime
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from converters.convert import Conversion
    from converters.options import Activations

MODELS = (
    "tiny_yolo_v2_person_192_int8",
    "tiny_yolo_v2_person_224_int8",
    "tiny_yolo_v2_person_224_per_tensor_int8",
    "tiny_yolo_v2_person_416_int8",
)
PHOTOGRAPHS = 12  # where every combination of options is compared; one test below takes all of them


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
        resize_image(read_image(path, honour_exif=True), size, size, "bilinear-antialias")[None] for path in photographs
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


SHARED_CODES = {"ssd": ssd_raw, "blazeface": lambda: blazeface(64)}  # networks whose codes have several readers


@pytest.fixture(scope="module", params=sorted(SHARED_CODES))
def shared_codes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Conversion]:
    source = tmp_path_factory.mktemp("codes") / "net.tflite"
    source.write_bytes(SHARED_CODES[request.param]())
    none = SourceOptions(head="none")
    dialects: tuple[Activations, ...] = ("uint8", "int8")
    return {name: convert_to_bytes(source, ConvertOptions(source=none, activations=name)) for name in dialects}


def test_int8_codes_with_several_readers_give_the_bits_of_uint8_codes(shared_codes: dict[str, Conversion]) -> None:
    """In a plain session they do not, on processors other than Arm's: a sum is rounded another way in float32."""
    runtimes = {
        name: open_onnxruntime(made.model, file=name, choices=RuntimeChoices(threads=1))
        for name, made in shared_codes.items()
    }
    image = runtimes["uint8"].spec.image
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 256, (1, image.height, image.width, 3)).astype(np.uint8)
        uint8, int8 = (runtime.head(picture) for runtime in runtimes.values())
        assert np.array_equal(uint8, int8)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86-64 processor: Arm multiplies int8 codes as such"
)
def test_the_products_that_onnxruntime_computes_in_float_are_known(
    shared_codes: dict[str, Conversion], tmp_path: Path
) -> None:
    for name, made in shared_codes.items():
        path = tmp_path / name
        choices = SessionChoices(threads=1, optimized_path=str(path))
        OrtSession(made.model, file=name, choices=choices).close()
        runs = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
        known = [str(node.name) for node in float_products(ir.from_proto(onnx.load_from_string(made.model)).graph)]
        assert sorted(known) == sorted(re.sub(r"_token_\d+$", "", node) for node in runs)
        assert bool(known) == made.document.multiplies_in_float == (name == "int8")
        told = [note for note in made.document.notes if f"({len(known)}) in float32" in note]
        assert len(told) == bool(known)


@pytest.mark.shared
@pytest.mark.parametrize("target", ["portable", "cpu"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_every_shared_detector_equals_litert_in_every_head_value(
    shared_dir: Path, photographs: list[Path], model: str, activations: str, target: str
) -> None:
    source = shared_dir / "models" / f"{model}.tflite"
    assert count_differing(source, photographs[:PHOTOGRAPHS], activations=activations, target=target) == 0


@cache
def stretched(size: int, photographs: tuple[Path, ...]) -> tuple[NDArray[np.uint8], ...]:
    """The photographs at network size, uint8 ``(1, size, size, 3)`` each."""
    how = Preparation(ImageInput(size, size, Rescaling(1.0, 0.0), "bilinear-antialias"))
    return tuple(prepared.pixels[None] for prepared in prepare_many(photographs, how, workers=2))


def finished(source: Path, target: str) -> OnnxRuntime:
    """The finished file with its head, open on one thread."""
    options = ConvertOptions(target=target)  # type: ignore[arg-type]  # parametrised
    model = convert_to_bytes(source, options).model
    return open_onnxruntime(model, file=f"{target}.onnx", choices=RuntimeChoices(threads=1))


def all_outputs(runtime: OnnxRuntime, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The five outputs down to a score of 0.001, and the raw head."""
    found = runtime.detect(image, Thresholds(score=0.001))
    boxes = {field.name: getattr(found, field.name) for field in fields(found)}
    return {"head": runtime.head(image), **boxes}


@pytest.mark.shared
@pytest.mark.parametrize("model", MODELS)
def test_both_targets_give_the_same_bits_and_litert_head_on_every_photograph(
    shared_dir: Path, photographs: list[Path], model: str
) -> None:
    source = shared_dir / "models" / f"{model}.tflite"
    litert, portable, cpu = LiteRt(source), finished(source, "portable"), finished(source, "cpu")
    images = stretched(litert.size, tuple(photographs))

    def both(image: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        return all_outputs(portable, image), all_outputs(cpu, image)

    boxes, differing = 0, list[str]()
    for path, (image, outcome) in zip(photographs, in_order(images, both, workers=2), strict=True):
        expected, found = outcome()
        boxes += int(found["num_detections"][0])
        differing += [
            f"{path.name}: {name}"
            for name, value in expected.items()
            if found[name].dtype != value.dtype or found[name].tobytes() != value.tobytes()
        ]
        if litert(image).tobytes() != found["head"].tobytes():
            differing.append(f"{path.name}: LiteRT's head")
    assert differing == []
    assert len(photographs) == 150
    assert boxes > 1500, "an equality of nothing proves nothing"
