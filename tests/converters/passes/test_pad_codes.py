"""A Pad between a pair becomes a Pad of codes; whatever is none of that kind stays, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.passes.base import Skipped
from converters.passes.pad_codes import PadCodes
from converters.passes.pipelines import run_pipeline
from converters.spec import TensorTwin
from tests.converters.passes.test_pipelines import kinds, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAD = """g (CODES[1,2,3,4] x) => (CODES[a,b,c,d] y)
<float s = {SCALE}, CODES z = {ZERO}, float s2 = {OTHER}, int64[8] pads = {PADS}, float value = {VALUE}>
{ f = DequantizeLinear(x, s, z)  p = Pad(f, pads, value)  y = QuantizeLinear(p, s2, z) }"""
NUMBERS = {"SCALE": 0.05, "ZERO": 7, "OTHER": 0.05, "PADS": "0,0,1,0,0,0,2,1", "VALUE": 0, "CODES": "uint8"}


def padded(text: str = PAD, **changes: object) -> ir.Model:
    for name, value in {**NUMBERS, **changes}.items():
        text = text.replace(name, str(value)) if name == "CODES" else text.replace(f"{{{name}}}", f"{{{value}}}")
    return parse(text)


def run(model: ir.Model) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 4)).astype(np.uint8)
    return np.asarray(session.run(None, {"x": codes})[0])


@given(
    scale=st.floats(2**-10, 1, width=32),
    zero=st.integers(0, 255),
    pads=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_every_code_is_the_same(scale: float, zero: int, pads: list[int]) -> None:
    numbers: dict[str, Any] = {"SCALE": scale, "OTHER": scale, "ZERO": zero, "PADS": ",".join(map(str, pads))}
    before, after = padded(**numbers), padded(**numbers)
    assert PadCodes()(after).modified
    assert kinds(after) == "Pad"
    np.testing.assert_array_equal(run(after), run(before))
    assert not PadCodes()(after).modified


def test_no_value_means_zero() -> None:
    model = padded(PAD.replace("pads, value)", "pads)"))
    assert PadCodes()(model).modified
    np.testing.assert_array_equal(run(model), run(padded()))


def test_the_pipeline_keeps_the_tensors_on_both_sides() -> None:
    twins = {name: TensorTwin(name, "same", 0) for name in ("x", "y")}
    rewritten = run_pipeline(padded(), "cpu", twins)
    assert rewritten.passes == ("pad codes",)
    assert rewritten.twins == twins


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        pytest.param(PAD, {"OTHER": 0.06}, "it changes scale or zero-point", id="requantised"),
        pytest.param(PAD, {"CODES": "int8"}, "its codes are int8", id="int8 codes"),
        pytest.param(PAD, {"VALUE": 1}, "it pads with another value than 0", id="another value"),
        pytest.param(PAD.replace("Pad(", 'Pad<mode = "edge">('), {}, "it does not pad with a constant", id="edges"),
        pytest.param(
            PAD.replace("y = Q", "e = Exp(p) y = Q"), {}, "one QuantizeLinear that nothing else reads", id="read twice"
        ),
    ],
)
def test_other_pads_stay_with_the_reason(text: str, changes: dict[str, Any], reason: str) -> None:
    model = padded(text, **changes)
    before = kinds(model)
    (skipped,) = PadCodes().rewrite(model.graph)
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason
    assert kinds(model) == before
