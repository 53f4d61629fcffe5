"""Graph rewrites: ONNX text in, an operator list and exact numbers out; what is declined, and why; twice is once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.activations import LeakyAsSum, PoolBeforeActivation
from converters.passes.cancel_transposes import CancelTransposes
from converters.passes.fold import FoldPad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.passes.base import Rewrite

HEADER = '<ir_version: 9, opset_import: ["" : 19]>\n'

POOL = """
g (uint8[1,2,8,8] x) => (float[1,2,4,4] y)
<float sa = {0.05}, uint8 za = {125}, float sl = {0.0495}, float s = {0.04}, uint8 z = {128}>
{
  xf = DequantizeLinear(x, sa, za)
  n = Neg(xf)
  q = QuantizeLinear(n, sa, za)
  f = DequantizeLinear(q, sl, za)
  a = LeakyRelu<alpha = SLOPE>(f)
  c = QuantizeLinear(a, s, z)
  d = DequantizeLinear(c, s, z)
  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
  o = QuantizeLinear(p, s, z)
  y = DequantizeLinear(o, s, z)
}"""

PAD = """
g (uint8[1,2,6,7] x) => (float[1,3,OUT] y)
<float s = {0.05}, uint8 z = {125}, int64[8] pads = {PADS}, float zero = {VALUE},
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

TRANSPOSES = """
g (uint8[1,2,3,4] x) => (float[1,2,3,4] y)
<float s = {0.05}, uint8 z = {125}>
{
  d = DequantizeLinear(x, s, z)
  r = Relu(d)
  a = Transpose<perm = [0, 2, 3, 1]>(r)
  q = QuantizeLinear(a, s, z)
  e = DequantizeLinear(q, s, z)
  b = Transpose<perm = PERM>(e)
  y = Neg(b)
}"""


def parse(text: str, **values: str) -> ir.Model:
    for name, value in values.items():
        text = text.replace(name, value)
    proto = onnx.parser.parse_model(HEADER + text.strip())
    if "codes" in text:
        weights = np.random.default_rng(0).integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "codes"))
    return ir.from_proto(proto)


def kinds(model: ir.Model) -> str:
    return " ".join(node.op_type for node in model.graph)


def run(model: ir.Model, *, seed: int = 0) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(seed).integers(0, 256, session.get_inputs()[0].shape).astype(np.uint8)
    return np.asarray(session.run(None, {"x": codes})[0])


def declined(rewrite: Rewrite, model: ir.Model, caplog: pytest.LogCaptureFixture) -> str:
    """Run a rewrite that must leave the graph alone; return its reason."""
    before = kinds(model)
    with caplog.at_level(logging.INFO):
        assert not rewrite(model).modified
    assert kinds(model) == before
    return caplog.text


def assert_once(rewrite: Rewrite, model: ir.Model, expected: str) -> None:
    """The rewrite changes the operators to ``expected`` and no number, and a second run finds nothing."""
    before = run(model)
    assert rewrite(model).modified
    assert kinds(model) == expected
    np.testing.assert_array_equal(run(model), before)
    assert not rewrite(model).modified


def test_a_pool_moves_in_front_of_the_activation() -> None:
    assert_once(
        PoolBeforeActivation(),
        parse(POOL, SLOPE="0.2"),
        "DequantizeLinear Neg QuantizeLinear DequantizeLinear MaxPool QuantizeLinear "
        "DequantizeLinear LeakyRelu QuantizeLinear DequantizeLinear",
    )


def test_a_falling_activation_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    assert "do not commute" in declined(PoolBeforeActivation(), parse(POOL, SLOPE="-0.2"), caplog)


def test_an_activation_that_is_read_elsewhere_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    text = POOL.replace("(float[1,2,4,4] y)", "(float[1,2,4,4] y, uint8[1,2,8,8] c)").replace("SLOPE", "0.2")
    assert "used elsewhere" in declined(PoolBeforeActivation(), parse(text), caplog)


def test_a_pool_that_rescales_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    text = POOL.replace("QuantizeLinear(p, s, z)", "QuantizeLinear(p, sl, z)").replace("SLOPE", "0.2")
    assert "changes scale" in declined(PoolBeforeActivation(), parse(text), caplog)


@settings(max_examples=25)
@given(st.floats(-1, 1).filter(lambda slope: abs(slope) > 1e-3), st.integers(0, 2**16))
def test_a_pool_moves_only_where_no_number_changes(slope: float, seed: int) -> None:
    model = parse(POOL, SLOPE=f"{slope:.6f}")
    before = run(model, seed=seed)
    assert PoolBeforeActivation()(model).modified == (slope > 0) or slope > -0.01
    np.testing.assert_array_equal(run(model, seed=seed), before)


FOLDED = "DequantizeLinear DequantizeLinear Conv QuantizeLinear DequantizeLinear"


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
    model = parse(PAD, PADS=pads, VALUE="0.0", CONV=conv, OUT=out)
    before = run(model)
    assert FoldPad()(model).modified
    assert sorted(kinds(model).split()) == sorted(FOLDED.split())
    np.testing.assert_array_equal(run(model), before)
    assert not FoldPad()(model).modified


@pytest.mark.parametrize(
    ("pads", "value", "out", "reason"),
    [("0,0,1,1,0,0,1,1", "0.5", "6,7", "another value than 0"), ("0,0,-1,0,0,0,0,0", "0.0", "3,5", "crops")],
    ids=["value", "crop"],
)
def test_a_pad_that_is_none_keeps_its_place(
    pads: str, value: str, out: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = parse(PAD, PADS=pads, VALUE=value, CONV="", OUT=out)
    assert reason in declined(FoldPad(), model, caplog)


def test_a_pad_that_rescales_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    text = PAD.replace("QuantizeLinear(p, s, z)", "QuantizeLinear(p, so, z)").replace("(q, s, z)", "(q, so, z)")
    model = parse(text, PADS="0,0,1,1,0,0,1,1", VALUE="0.0", CONV="", OUT="6,7")
    assert "changes scale" in declined(FoldPad(), model, caplog)


def test_a_pad_with_another_reader_stays_for_that_reader() -> None:
    text = PAD.replace("(float[1,3,OUT] y)", "(float[1,3,OUT] y, uint8[1,2,8,9] q)")
    model = parse(text, PADS="0,0,1,1,0,0,1,1", VALUE="0.0", CONV="", OUT="6,7")
    assert FoldPad()(model).modified
    assert "Pad" in kinds(model)
    assert not FoldPad()(model).modified


def test_inverse_transposes_cancel_across_a_quantisation() -> None:
    assert_once(
        CancelTransposes(),
        parse(TRANSPOSES, PERM="[0, 3, 1, 2]"),
        "DequantizeLinear Relu QuantizeLinear DequantizeLinear Neg",
    )


def test_other_transposes_stay(caplog: pytest.LogCaptureFixture) -> None:
    text = TRANSPOSES.replace("(float[1,2,3,4] y)", "(float[1,4,2,3] y)")
    assert "not its inverse" in declined(CancelTransposes(), parse(text, PERM="[0, 2, 3, 1]"), caplog)


def test_transposes_around_a_value_with_another_reader_stay(caplog: pytest.LogCaptureFixture) -> None:
    text = TRANSPOSES.replace("(float[1,2,3,4] y)", "(float[1,2,3,4] y, uint8[1,3,4,2] q)")
    assert "read elsewhere" in declined(CancelTransposes(), parse(text, PERM="[0, 3, 1, 2]"), caplog)


LEAKY = """
g (uint8[1,2,3,4] x) => (float[1,2,3,4] y)
<float s = {0.05}, uint8 z = {125}, float so = {0.0487}, uint8 zo = {30}>
{
  d = DequantizeLinear(x, s, z)
  a = LeakyRelu<alpha = SLOPE>(d)
  q = QuantizeLinear(a, so, zo)
  y = DequantizeLinear(q, so, zo)
}"""


def test_a_leaky_relu_becomes_a_sum() -> None:
    assert_once(
        LeakyAsSum(),
        parse(LEAKY, SLOPE="0.1"),
        "Max DequantizeLinear DequantizeLinear Add QuantizeLinear DequantizeLinear",
    )


def test_a_leaky_relu_of_slope_1_or_more_stays(caplog: pytest.LogCaptureFixture) -> None:
    assert "no two scales" in declined(LeakyAsSum(), parse(LEAKY, SLOPE="1.0"), caplog)


def test_an_int8_leaky_relu_stays(caplog: pytest.LogCaptureFixture) -> None:
    text = LEAKY.replace("uint8[1,2,3,4] x", "int8[1,2,3,4] x").replace("uint8 z = {125}", "int8 z = {-3}")
    assert "its codes are int8" in declined(LeakyAsSum(), parse(text, SLOPE="0.1"), caplog)


def test_a_leaky_relu_whose_result_is_read_in_float_stays(caplog: pytest.LogCaptureFixture) -> None:
    text = LEAKY.replace("(float[1,2,3,4] y)", "(float[1,2,3,4] y, float[1,2,3,4] a)")
    assert "nothing else reads" in declined(LeakyAsSum(), parse(text, SLOPE="0.1"), caplog)


@settings(max_examples=25)
@given(st.floats(0.001, 0.999), st.integers(0, 2**16))
def test_a_leaky_relu_becomes_a_sum_only_where_no_code_changes(slope: float, seed: int) -> None:
    model = parse(LEAKY, SLOPE=f"{slope:.6f}")
    before = run(model, seed=seed)
    LeakyAsSum()(model)
    np.testing.assert_array_equal(run(model, seed=seed), before)
