"""Enlargements by whole factors become copies of pixels and rows; other ones stay, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import infer_shapes
from converters.passes.base import Skipped
from converters.passes.pipelines import run_pipeline
from converters.passes.repeat_pixels import RepeatPixels
from converters.spec import TensorTwin
from tests.converters.passes.test_pipelines import kinds, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESIZE = """g (uint8[{N},{C},{H},4] x) => (uint8[a,b,c,d] y)
<float s = {0.05}, float s2 = {OTHER}, uint8 z = {7}, float[4] scales = {1, 1, FACTORS}>
{
  f = DequantizeLinear(x, s, z)
  r = Resize<mode = "MODE", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(f, , scales)
  y = QuantizeLinear(r, s2, z)
}"""


def resize(factors: str = "2, 2", mode: str = "nearest", **changes: object) -> ir.Model:
    text = RESIZE.replace("FACTORS", factors).replace("MODE", mode).replace("{OTHER}", "{{OTHER}}")
    for name, value in {"N": 1, "C": 3, "H": 5, "OTHER": 0.05, **changes}.items():
        text = text.replace(f"{{{name}}}", str(value))
    model = parse(text)
    infer_shapes(model)
    return model


def run(model: ir.Model, batch: int = 1) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shape = (batch, *session.get_inputs()[0].shape[1:])
    codes = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return np.asarray(session.run(None, {"x": codes})[0])


@settings(max_examples=20)
@given(
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 9),
    batch=st.sampled_from([1, 2, "N"]),
)
def test_every_code_is_the_same(factors: tuple[int, int], channels: int, batch: int | str) -> None:
    numbers: dict[str, Any] = {"factors": f"{factors[0]}, {factors[1]}", "C": channels, "N": batch}
    before, after = resize(**numbers), resize(**numbers)
    assert RepeatPixels()(after).modified
    images = 3 if batch == "N" else int(batch)
    np.testing.assert_array_equal(run(after, images), run(before, images))


def test_two_concatenations_between_views_are_left_and_the_tensors_are_kept() -> None:
    model = resize()
    twins = {name: TensorTwin(name, "NHWC->NCHW", 0) for name in ("x", "y")}
    rewritten = run_pipeline(model, "cpu", twins)
    assert rewritten.passes == ("repeat pixels",)
    assert kinds(model) == "Transpose Concat Reshape Concat Reshape Transpose"
    assert rewritten.twins == twins


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"factors": "1.4, 2"}, "not whole factors", id="a fraction"),
        pytest.param({"mode": "linear"}, "it is {'mode': 'linear'", id="bilinear"),
        pytest.param({"OTHER": 0.06}, "not between one pair", id="requantised"),
        pytest.param({"H": "H"}, "its picture has no fixed size", id="any size"),
    ],
)
def test_it_declines_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    model = resize(**changes)
    before = kinds(model)
    (skipped,) = RepeatPixels().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert kinds(model) == before
