"""Factors, offsets and a Pad around a convolution go into it; what is none of that kind stays, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from converters.passes.fold import FoldAffine, FoldPad
from tests.converters.passes.networks import assert_bits_stay, assert_declined, kinds, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONSTANTS = (
    "float[3,2,1,1] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}, float[1,3,1,1] c = {2,4,8}, "
    "float[3,1,1] d = {0.5,1,2}, float[1] one = {3}, float[4] wide = {1,2,3,4}"
)
X = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)


def model(body: str) -> ir.Model:
    return parse(f"net (float[1,2,4,4] x) => (float[1,3,4,4] y) <{CONSTANTS}> {{ {body} }}")


def run(graph: ir.Model) -> NDArray[np.float32]:
    (y,) = ReferenceEvaluator(ir.to_proto(graph)).run(None, {"x": X})
    return np.asarray(y)


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param("y = Mul(q, c)", id="factors"),
        pytest.param("y = Mul(c, q)", id="factors first"),
        pytest.param("m = Mul(q, c) y = Add(m, d)", id="factors and offsets"),
        pytest.param("y = Sub(q, c)", id="subtracted"),
        pytest.param("y = Div(q, c)", id="divided"),
        pytest.param("y = Mul(q, one)", id="one factor for all"),
        pytest.param("y = BatchNormalization<epsilon = 0.5>(q, b, b, b, b)", id="batch normalisation"),
    ],
)
@pytest.mark.parametrize("conv", ["Conv(x, w, b)", "Conv(x, w)"], ids=["with bias", "without bias"])
def test_nothing_but_the_convolution_is_left_and_it_computes_the_same(conv: str, behind: str) -> None:
    before, after = model(f"q = {conv} {behind}"), model(f"q = {conv} {behind}")
    changes = FoldAffine().changes(after)
    assert [node.op_type for node in after.graph] == ["Conv"]
    assert after.graph.outputs[0].name == "y"
    assert len(changes) == behind.count("=") - behind.count("epsilon")
    np.testing.assert_allclose(run(after), run(before), rtol=1e-5)  # float32 rounding of the folded weights
    assert FoldAffine().changes(after) == ()


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        pytest.param(
            "y = Sub(c, q)", "it subtracts the channels from a constant, or divides by them", id="subtracted from"
        ),
        pytest.param(
            "y = Mul(q, wide)", "its other operand is [4], not one number per channel", id="a factor per column"
        ),
        pytest.param("e = Exp(c) y = Mul(q, e)", "its other operand is computed", id="computed"),
    ],
)
def test_what_is_no_factor_or_offset_stays_with_the_reason(behind: str, reason: str) -> None:
    assert_declined(FoldAffine(), model(f"q = Conv(x, w, b) {behind}"), reason)


def test_a_result_that_others_read_is_left_alone() -> None:
    graph = model("q = Conv(x, w, b) m = Mul(q, c) y = Add(m, q)")
    assert FoldAffine().changes(graph) == ()


PAD = """
g (uint8[1,2,6,7] x) => (float[1,3,OUT] y)
<float s = {0.05}, uint8 z = {125}, int64[8] pads = {EDGES}, float zero = {VALUE},
 float sw = {0.01}, int8 zw = {0}, float so = {0.2}, uint8 zo = {120}>
{
  d = DequantizeLinear(x, s, z)
  p = Pad(d, pads, zero)
  q = QuantizeLinear(p, s, z)
  e = DequantizeLinear(q, s, z)
  w = DequantizeLinear(codes, sw, zw)
  c = Conv<kernel_shape = [3, 3]CONV>(e, w)
  o = QuantizeLinear(c, so, zo)
  y = DequantizeLinear(o, so, zo)
}"""
AROUND = {"EDGES": "0,0,1,1,0,0,1,1", "VALUE": "0.0", "CONV": "", "OUT": "6,7"}


@pytest.mark.parametrize(
    ("pads", "conv", "out"),
    [
        ("0,0,1,1,0,0,1,1", "", "6,7"),
        ("0,0,0,0,0,0,1,1", ", strides = [2, 2]", "3,3"),
        ("0,0,2,0,0,0,0,3", ", pads = [1, 1, 1, 1]", "8,10"),
    ],
    ids=["all around", "behind, stride 2", "on top of the convolution's own"],
)
def test_a_pad_becomes_the_padding_of_its_convolution(pads: str, conv: str, out: str) -> None:
    model = assert_bits_stay(FoldPad(), lambda: parse(PAD, EDGES=pads, VALUE="0.0", CONV=conv, OUT=out))
    assert sorted(kinds(model).split()) == ["Conv", *["DequantizeLinear"] * 3, "QuantizeLinear"]


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        pytest.param(PAD, {"VALUE": "0.5"}, "another value than 0", id="value"),
        pytest.param(PAD, {"EDGES": "0,0,-1,0,0,0,0,0", "OUT": "3,5"}, "crops", id="crop"),
        pytest.param(
            PAD.replace("QuantizeLinear(p, s, z)", "QuantizeLinear(p, so, z)").replace("(q, s, z)", "(q, so, z)"), {},
            "changes scale", id="rescales",
        ),
    ],
)  # fmt: skip
def test_another_pad_keeps_its_place(text: str, changes: dict[str, str], reason: str) -> None:
    assert_declined(FoldPad(), parse(text, **AROUND | changes), reason)


def test_a_pad_with_another_reader_stays_for_that_reader() -> None:
    text = PAD.replace("(float[1,3,OUT] y)", "(float[1,3,OUT] y, uint8[1,2,8,9] q)")
    assert "Pad" in kinds(assert_bits_stay(FoldPad(), lambda: parse(text, **AROUND)))
