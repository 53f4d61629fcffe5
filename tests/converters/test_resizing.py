"""The resize rules as ONNX nodes give the bits of the resize rules in numpy and Pillow."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from converters.any_size import network_picture
from converters.graph import GraphWriter
from converters.spec import Color, ImageInput, Rescaling, ResizeRule
from tests.converters.sessions import session_of
from xdet.pictures.images import network_pixels, read_image

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime as ort
    from numpy.typing import NDArray

RULES = get_args(ResizeRule)
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


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


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
