"""Factors and offsets behind a convolution go into it; whatever is none of that kind stays, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from converters.passes.base import Skipped
from converters.passes.fold import FoldAffine

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONSTANTS = (
    "float[3,2,1,1] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}, float[1,3,1,1] c = {2,4,8}, "
    "float[3,1,1] d = {0.5,1,2}, float[1] one = {3}, float[4] wide = {1,2,3,4}"
)
X = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)


def model(body: str) -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["": 19]> net (float[1,2,4,4] x) => (float[1,3,4,4] y) <{CONSTANTS}> {{ {body} }}'
    return ir.from_proto(onnx.parser.parse_model(text))


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
    graph = model(f"q = Conv(x, w, b) {behind}")
    kinds = [node.op_type for node in graph.graph]
    (skipped,) = FoldAffine().rewrite(graph.graph)
    assert isinstance(skipped, Skipped)
    assert skipped.reason == reason
    assert [node.op_type for node in graph.graph] == kinds


def test_a_result_that_others_read_is_left_alone() -> None:
    graph = model("q = Conv(x, w, b) m = Mul(q, c) y = Add(m, q)")
    assert FoldAffine().changes(graph) == ()
