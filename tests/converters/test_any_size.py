"""A file that takes photographs of any size finds what the file of fixed size finds in the prepared photograph.

The resize rules as ONNX nodes give the bits of the resize rules in numpy and Pillow.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from converters.any_size import network_picture
from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.graph import GraphWriter
from converters.options import ConvertOptions
from converters.spec import IMAGE, NETWORK_IMAGE, Color, ImageInput, ModelDocument, Rescaling, ResizeRule, Thresholds
from tests.converters.sessions import session_of
from tests.converters.sources.tflite.look_alikes import blazeface, fastestdet, yolo_v8
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, SAID, NetworkBuilder
from xdet.detection.detector import Detector
from xdet.errors import ModelError, UsageError
from xdet.model.file import ModelFile
from xdet.model.surgery import at_network_size
from xdet.pictures.images import network_pixels, read_image
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnxruntime as ort
    from numpy.typing import NDArray

    from converters.convert import Conversion
    from xdet.runtimes.base import Runtime

RULES = get_args(ResizeRule)
PHOTOGRAPHS = ((1, 1), (64, 64), (48, 300), (301, 77), (480, 640), (1, 2_000), (64, 65))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector of 8 x 8 cells."""
    path = tmp_path_factory.mktemp("small") / "small.tflite"
    network = NetworkBuilder(64, seed=3, gain=8.0).conv(16, stride=2, activation="RELU").max_pool()
    path.write_bytes(network.conv(32, activation="RELU").max_pool().conv(HEAD_CHANNELS, 1).build())
    return path


def converted(
    source: Path, *, any_size: bool = True, rule: str = "nearest", source_options: SourceOptions = SAID, **options: Any
) -> Conversion:
    source_options = replace(source_options, resize=cast("ResizeRule", rule), head=options.pop("head", "auto"))
    return convert_to_bytes(source, ConvertOptions(source=source_options, any_size=any_size, **options))


def opened(conversion: Conversion) -> Runtime:
    return open_model(ModelFile(Path("m.onnx"), conversion.model, "onnx"), RuntimeChoices("onnxruntime", threads=1))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


CASES: dict[str, dict[str, Any]] = {rule: {"rule": rule} for rule in RULES} | {
    "frozen": {"rule": "letterbox", "freeze_thresholds": True},
    "cpu": {"rule": "letterbox", "target": "cpu"},
    "int8": {"rule": "bilinear", "activations": "int8"},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_boxes_and_head_are_those_of_the_prepared_photograph(source: Path, options: dict[str, Any]) -> None:
    fixed = converted(source, any_size=False, **options)
    found_any = 0
    with opened(fixed) as prepared, opened(converted(source, **options)) as whole:
        for size in PHOTOGRAPHS:
            photograph = noise(*size)
            ready = prepare(photograph, Preparation(fixed.document.spec.image))
            for asked in [Thresholds(0.05, 0.45)] + [Thresholds(0.5, 0.3)] * (not options.get("freeze_thresholds")):
                wanted, found = (prepared.detect(ready.pixels[None], asked), whole.detect(photograph[None], asked))
                count = int(wanted.num_detections[0])
                assert int(found.num_detections[0]) == count
                found_any += count
                np.testing.assert_array_equal(
                    found.boxes_xyxy[:, :count], ready.placement.to_photograph(wanted.boxes_xyxy[:, :count])
                )
                assert not found.boxes_xyxy[:, count:].any()
                for name in ("scores", "classes", "anchors"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
            np.testing.assert_array_equal(whole.head(photograph[None]), prepared.head(ready.pixels[None]))
            (picture,) = whole.tensors(photograph[None], [NETWORK_IMAGE]).values()
            np.testing.assert_array_equal(picture[0], ready.pixels)
    assert found_any > 20


def test_a_file_that_ends_at_the_head_takes_any_size(source: Path) -> None:
    fixed = converted(source, any_size=False, rule="letterbox", head="none")
    with opened(fixed) as prepared, opened(converted(source, rule="letterbox", head="none")) as whole:
        ready = prepare(noise(48, 100), Preparation(fixed.document.spec.image))
        np.testing.assert_array_equal(whole.head(noise(48, 100)[None]), prepared.head(ready.pixels[None]))


LOOK_ALIKES: dict[str, tuple[Callable[[], bytes], SourceOptions]] = {
    "blazeface": (blazeface, SourceOptions(score_threshold=0.01)),
    "yolo_v8": (lambda: yolo_v8(3), SourceOptions(score_threshold=0.01)),
    "fastestdet": (lambda: fastestdet(3), SourceOptions(score_threshold=0.01, class_agnostic=True)),
}


@pytest.mark.parametrize(("build", "source_options"), LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_every_row_of_other_heads_is_mapped_back(
    build: Callable[[], bytes], source_options: SourceOptions, tmp_path: Path
) -> None:
    (tmp_path / "net.tflite").write_bytes(build())
    fixed, whole = (
        converted(tmp_path / "net.tflite", source_options=source_options, any_size=flag, rule="letterbox")
        for flag in (False, True)
    )
    photograph, image = noise(50, 90), fixed.document.spec.image
    ready = prepare(photograph, Preparation(image))
    wanted = run(fixed, ready.pixels)
    found = run(whole, photograph)
    count, place = int(wanted["num_detections"][0]), ready.placement
    assert count > 3
    for name, values in wanted.items():
        if name == "detection_boxes":
            values[:, :count] = place.to_photograph(values[:, :count])
        elif name == "detection_keypoints":  # not clipped
            start, size = np.array([place.left, place.top]), np.array([place.width, place.height])
            values[:, :count] = (values[:, :count].astype(np.float64) * place.network_wh - start) / size
        np.testing.assert_array_equal(found[name], values)


def run(conversion: Conversion, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """All outputs by name, as any program gets them."""
    session = session_of(conversion.model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {IMAGE: image[None]}), strict=True))


@pytest.mark.parametrize("rule", ["bilinear", "letterbox"])
def test_without_the_resize_rule_the_fixed_file_is_left(source: Path, rule: str) -> None:
    fixed, whole = (converted(source, any_size=flag, rule=rule) for flag in (False, True))
    left, wanted = (onnx.load_from_string(at_network_size(whole.model, "m.onnx")), onnx.load_from_string(fixed.model))
    onnx.checker.check_model(left, full_check=True)
    assert list(left.graph.node) == list(wanted.graph.node)
    assert left.graph.input[0].type == wanted.graph.input[0].type
    assert {tensor.name for tensor in left.graph.initializer} == {tensor.name for tensor in wanted.graph.initializer}
    assert ModelDocument.from_json(left.metadata_props[0].value) == fixed.document
    assert at_network_size(fixed.model, "m.onnx") is fixed.model


def test_the_document_says_so_and_older_documents_mean_a_fixed_size(source: Path) -> None:
    document = converted(source).document
    assert document.spec.image.any_size
    assert ModelDocument.from_json(document.to_json()) == document
    assert '"any_size":true' in document.to_json()
    assert "any_size" not in converted(source, any_size=False).document.to_json()
    assert IMAGE not in {twin.onnx for twin in document.tensors.values()}


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 64, 64, 1), np.uint8), np.zeros((1, 0, 9, 3), np.uint8), np.zeros((1, 9, 9, 3), np.float32)],
    ids=["grey", "empty", "real"],
)
def test_what_is_no_photograph_is_refused(source: Path, images: NDArray[Any]) -> None:
    with (
        opened(converted(source)) as runtime,
        pytest.raises(UsageError, match=r"uint8 \(N, height, width, 3\).*found .*give RGB photographs"),
    ):
        runtime.head(images)


def test_where_a_file_does_not_load_one_of_fixed_size_is_advised(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModelError("the provider cannot load it")

    monkeypatch.setattr("xdet.runtimes.onnxruntime.OrtSession", fail)
    with pytest.raises(ModelError, match=r"cannot load it; .*without `any_size` it may load here"):
        opened(converted(source))
    with pytest.raises(ModelError, match=r"cannot load it$"):
        opened(converted(source, any_size=False))


def test_several_photographs_per_call_are_refused() -> None:
    with pytest.raises(OptionError, match=r"`any_size` takes one photograph per call.*leave `batch` dynamic out"):
        ConvertOptions(any_size=True, batch="dynamic")


def test_a_detector_hands_the_photograph_over(source: Path, tmp_path: Path) -> None:
    files = []
    for flag in (False, True):
        files.append(tmp_path / f"{flag}.onnx")
        files[-1].write_bytes(converted(source, any_size=flag, rule="letterbox").model)
    with Detector(files[0], workers=2) as fixed, Detector(files[1], workers=2) as whole:
        photographs = [noise(*size) for size in PHOTOGRAPHS]
        for wanted, found in zip(fixed(photographs), whole(photographs), strict=True):
            assert found.to_dict() == wanted.to_dict()


SIZES = (  # height, width
    *((1, 1), (1, 17), (17, 1), (2, 2), (1, 10_000), (3_000, 1), (64, 48), (65, 47), (63, 49), (128, 96)),
    *((480, 640), (375, 500), (640, 427), (1000, 300), (300, 1000), (64, 300), (300, 48), (1080, 1920)),
)


def image_input(rule: str, color: str = "rgb", size: tuple[int, int] = (64, 48)) -> ImageInput:
    return ImageInput(*size, Rescaling(1 / 255, 0.0), rule, color)  # type: ignore[arg-type]  # of the literals


@cache
def graph_of(image: ImageInput) -> bytes:
    writer = GraphWriter("rule")
    writer.graph.opset_imports[""] = 13
    photograph = writer.input("image", ir.DataType.UINT8, [1, "height", "width", 3])
    picture, _ = network_picture(writer, photograph, image)
    picture.name, picture.type = "picture", ir.TensorType(ir.DataType.UINT8)
    picture.shape = ir.Shape([1, *image.shape])
    writer.graph.outputs.append(picture)
    proto = ir.to_proto(ir.Model(writer.graph, ir_version=7))
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


@cache
def session(image: ImageInput) -> ort.InferenceSession:
    return session_of(graph_of(image))


def assert_equal(image: ImageInput, photograph: NDArray[np.uint8]) -> None:
    (found,) = session(image).run(None, {"image": photograph[None]})
    np.testing.assert_array_equal(found[0], network_pixels(photograph, image), strict=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_rule_in_the_graph_has_the_bits_of_the_rule_in_numpy(rule: str, size: tuple[int, int]) -> None:
    assert_equal(image_input(rule), noise(*size))


@pytest.mark.parametrize("rule", RULES)
@given(height=st.integers(1, 400), width=st.integers(1, 400), seed=st.integers(0, 9), dark=st.integers(0, 254))
@settings(max_examples=60, deadline=None)
def test_any_size_and_contrast_has_the_same_bits(rule: str, height: int, width: int, seed: int, dark: int) -> None:
    assert_equal(image_input(rule), np.maximum(noise(height, width, seed), np.uint8(dark)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("color", get_args(Color))
@pytest.mark.parametrize("network", [(192, 192), (300, 300), (7, 5), (96, 160)], ids=str)
def test_colours_and_network_sizes(rule: str, color: str, network: tuple[int, int]) -> None:
    for size in ((480, 640), (640, 480), network, (network[0], 200), (90, 100)):
        assert_equal(image_input(rule, color, network), noise(*size))


@pytest.mark.parametrize("rule", RULES)
def test_photographs_have_the_same_bits(rule: str, sample_pictures: list[Path]) -> None:
    for path in sample_pictures:
        assert_equal(image_input(rule, size=(192, 192)), read_image(path, honour_exif=True))


@pytest.mark.parametrize("rule", RULES)
def test_the_standards_own_evaluator_agrees(rule: str) -> None:
    image = image_input(rule, "grey")
    for size in ((97, 131), (1, 1), (300, 40)):
        photograph = noise(*size)
        (found,) = ReferenceEvaluator(graph_of(image)).run(None, {"image": photograph[None]})
        np.testing.assert_array_equal(found[0], network_pixels(photograph, image))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("color", get_args(Color))
def test_a_photograph_of_the_networks_size_is_taken_as_it_is(rule: str, color: str) -> None:
    image = image_input(rule, color)
    picture = noise(*image.shape[:2])[..., : image.channels]
    taken = ImageInput(image.height, image.width, image.rescaling, image.resize, image.color, any_size=True).as_fed(
        picture
    )
    (found,) = session(image).run(None, {"image": taken[None]})
    np.testing.assert_array_equal(found[0], picture)
