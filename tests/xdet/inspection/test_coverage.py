"""Integer coverage: read back from ONNX Runtime, with the rule behind every miss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import xdet
from tests.xdet.finished_models import model_from_text
from xdet.errors import ModelError
from xdet.inspection.coverage import integer_coverage

if TYPE_CHECKING:
    from pathlib import Path

ONES = ", ".join(["1"] * 16)
# A quantised 1x1 convolution of 4 to 4 channels on 5 x 5: 400 MACs.
CONVOLUTION = f"""g (uint8[1,4,5,5] x) => (uint8[1,4,5,5] y)
<float s = {{0.5}}, uint8 z = {{7}}, int8[4,4,1,1] codes = {{{ONES}}}, float ws = {{0.25}}, int8 wz = {{0}},
 int32[4] b = {{1, 1, 1, 1}}, float bs = {{0.125}}, int32 bz = {{0}}, float[4] real_bias = {{1, 1, 1, 1}},
 float[4,4,1,1] real_weights = {{{ONES}}}>
{{
    real = DequantizeLinear(x, s, z)
    weights = DequantizeLinear(codes, ws, wz)
    bias = DequantizeLinear(b, bs, bz)
    [conv] sums = Conv(real, weights, bias)
    y = QuantizeLinear(sums, s, z)
}}"""


def network(*changes: tuple[str, str]) -> bytes:
    """The convolution with words of its text exchanged."""
    text = CONVOLUTION
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return bytes(model_from_text(text).SerializeToString())


@pytest.mark.parametrize("bias", ["bias", "", "real_bias"])
def test_a_quantised_convolution_runs_in_integers_whatever_its_bias(bias: str) -> None:
    found = integer_coverage(network(("weights, bias)", f"weights, {bias})".replace(", )", ")"))))
    assert (found.provider, found.macs_total, found.macs_integer, found.misses) == ("cpu", 400, 400, ())
    assert found.share == 1.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            [("(uint8[1,4,5,5] x)", "(float[1,4,5,5] x)"), ("real = DequantizeLinear(x, s, z)", "real = Identity(x)")],
            "its input 'real' is float: no DequantizeLinear in front of it",
        ),
        (
            [("Conv(real, weights", "Conv(real, real_weights")],
            "its weights 'real_weights' are float: no DequantizeLinear behind them",
        ),
        ([("0.125", "0.2")], "its bias scale is 60.0% off input scale x weight scale, more than 1%"),
        (
            [
                (
                    "float ws = {0.25}, int8 wz = {0}",
                    "float[4] ws = {0.25, 0.25, 0.25, 0.25}, int8[4] wz = {0, 0, 0, 0}",
                ),
                ("float bs = {0.125}, int32 bz = {0}", "float[2] bs = {0.125, 0.125}, int32[2] bz = {0, 0}"),
            ],
            "its input, weights and bias have 1, 4 and 2 scales",
        ),
        ([("] y)", "] y, float[1,4,5,5] sums)")], "its float result 'sums' is an output of the model"),
        (
            [("] y)", "] y, float[1,4,5,5] n)"), ("    y =", "    n = Neg(sums)\n    y =")],
            "its float result 'sums' is read by 2 operators, not by one QuantizeLinear",
        ),
        (
            [("y = QuantizeLinear(sums", "bent = Sigmoid(sums)\n    y = QuantizeLinear(bent")],
            "its float result 'sums' goes to Sigmoid, not to a QuantizeLinear",
        ),
    ],
    ids=["input", "weights", "bias-scale", "bias-scales", "output", "readers", "behind"],
)
def test_what_stays_in_float_is_told_with_the_rule_that_blocked_it(changes: list[tuple[str, str]], reason: str) -> None:
    found = integer_coverage(network(*changes))
    assert (found.macs_total, found.macs_integer, found.share) == (400, 0, 0.0)
    assert [(miss.node, miss.reason) for miss in found.misses] == [("conv", reason)]


def two_convolutions(*, second_in_float: bool) -> bytes:
    """Two convolutions that share one weight; the second one perhaps reads real numbers."""
    x2, real2 = ("float", "Identity(x2)") if second_in_float else ("uint8", "DequantizeLinear(x2, s, z)")
    text = f"""g (uint8[1,4,5,5] x, {x2}[1,4,5,5] x2) => (uint8[1,4,5,5] y, uint8[1,4,5,5] y2)
        <float s = {{0.5}}, uint8 z = {{7}}, float ws = {{0.25}}, int8 wz = {{0}}, int8[4,4,1,1] codes = {{{ONES}}}>
        {{
            w1 = DequantizeLinear(codes, ws, wz)
            w2 = DequantizeLinear(codes, ws, wz)
            real = DequantizeLinear(x, s, z)
            [first] sums = Conv(real, w1)
            y = QuantizeLinear(sums, s, z)
            real2 = {real2}
            [second] sums2 = Conv(real2, w2)
            y2 = QuantizeLinear(sums2, s, z)
        }}"""
    return bytes(model_from_text(text).SerializeToString())


@pytest.mark.parametrize(("in_float", "integer", "misses"), [(True, 400, ["second"]), (False, 800, [])])
def test_convolutions_that_share_a_weight_are_told_apart(*, in_float: bool, integer: int, misses: list[str]) -> None:
    found = integer_coverage(two_convolutions(second_in_float=in_float))
    assert (found.macs_total, found.macs_integer) == (800, integer)
    assert [miss.node for miss in found.misses] == misses


@pytest.mark.parametrize("target", ["portable", "cpu"])
def test_every_convolution_of_the_embedded_detector_runs_in_integers(
    target: Any, embedded_tflite: Path, tmp_path: Path
) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx", target=target)
    found = integer_coverage((tmp_path / "m.onnx").read_bytes(), "cpu")
    assert (found.share, found.misses) == (1.0, ())
    # the cpu target's first convolution does more, cheaper work: zeros in its kernel count, too
    assert found.macs_total == (773_864_448 if target == "portable" else 829_258_752)


def test_the_exact_kernels_of_saturating_processors_are_integer_kernels_too(
    embedded_tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdet.runtimes.ort_session.kernels_saturate", lambda: True)
    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    assert integer_coverage((tmp_path / "m.onnx").read_bytes()).share == 1.0


def test_nodes_without_names_are_found_by_their_weights() -> None:
    model = onnx.load_from_string(two_convolutions(second_in_float=False))
    for node in model.graph.node:
        node.name = ""
    model.graph.node[1].input[0] = "codes2"
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.int8), "codes2"))
    assert integer_coverage(model.SerializeToString()).macs_integer == 800


def test_damage_is_told_with_the_file() -> None:
    with pytest.raises(ModelError, match=r"'m\.onnx' is a damaged ONNX file"):
        integer_coverage(network()[:-5], file="m.onnx")
