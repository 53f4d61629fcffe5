"""Arithmetic, activations and requantisation against LiteRT, over all pairs or all codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import GraphWriter, image_pixels
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.importer import translate
from converters.sources.tflite.reader import read_tflite
from converters.spec import ImageInput, Rescaling
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import Quant, Runs, assert_exact, codes, run_everywhere, run_single
from tests.slow import mostly_slow

LEFT = np.repeat(np.arange(-128, 128), 256).astype(np.int8).reshape(1, 16, 16, 256)
RIGHT = np.tile(np.arange(-128, 128), 256).astype(np.int8).reshape(1, 16, 16, 256)
IRREGULAR = [
    (Quant(0.0371, -3), Quant(0.0583, 17), Quant(0.0911, 5)),
    (Quant(0.0712, -128), Quant(0.0229, 127), Quant(0.0633, -128)),
    (Quant(0.0513, 127), Quant(0.0872, -128), Quant(0.1531, 127)),
]
ZERO_POINT_IDS = ["inner zero-points", "rims", "other rims"]


def combine(op: str, quants: tuple[Quant, Quant, Quant], **options: Any) -> Runs:
    """All 65536 pairs of codes."""
    b = TfliteBuilder()
    x, y = (b.input(n, LEFT.shape, "int8", q.scale, q.zero_point) for n, q in zip("xy", quants[:2], strict=True))
    z = b.op(op, [x, y], LEFT.shape, "int8", quants[2].scale, quants[2].zero_point, name="z", **options)
    return run_everywhere(b.build([z]), [LEFT, RIGHT])


@pytest.mark.parametrize("quants", IRREGULAR, ids=ZERO_POINT_IDS)
@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_of_all_pairs_is_exact(op: str, quants: tuple[Quant, Quant, Quant]) -> None:
    runs = combine(op, quants)
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("zero_points", mostly_slow([(-3, 12, 40), (0, 0, 0), (-128, -128, -128)], fast=1), ids=str)
@pytest.mark.parametrize("scales", [(0.05, 0.05, 0.1), (0.05, 0.1, 0.1), (0.1, 0.05, 0.05), (0.05,) * 3], ids=str)
@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_is_exact_where_many_sums_are_ties(
    op: str, scales: tuple[float, ...], zero_points: tuple[int, ...]
) -> None:
    """Ties go up in XNNPACK and to even in ONNX Runtime: half of all sums of (0.05, 0.05, 0.1) are ties."""
    a, b, out = (Quant(s, z) for s, z in zip(scales, zero_points, strict=True))
    assert_exact(combine(op, (a, b, out)))


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_the_real_function_stays_within_one_code(op: str) -> None:
    b = TfliteBuilder()
    x, y = b.input("x", LEFT.shape, "int8", 0.05), b.input("y", LEFT.shape, "int8", 0.05)
    z = b.op(op, [x, y], LEFT.shape, "int8", 0.1 if op != "MUL" else 0.3, name="z")
    runs = run_everywhere(b.build([z]), [LEFT, RIGHT], leaky_relu="float")
    assert runs.worst == 1
    assert runs.dialects_agree


@pytest.mark.parametrize("quants", IRREGULAR, ids=ZERO_POINT_IDS)
def test_a_product_of_all_pairs_is_exact(quants: tuple[Quant, Quant, Quant]) -> None:
    runs = combine("MUL", (*quants[:2], Quant(quants[2].scale * 3.7, quants[2].zero_point)))
    assert runs.delegated
    assert_exact(runs)


def test_a_product_of_round_scales_is_exact() -> None:
    """0.05 * 0.05 / 0.3 is 1/120: products of 60, 180, ... are ties."""
    assert_exact(combine("MUL", (Quant(0.05), Quant(0.05), Quant(0.3))))


@pytest.mark.parametrize("activation", ["NONE", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("quants", IRREGULAR, ids=ZERO_POINT_IDS)
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_an_operator_step_by_step_is_exact(
    op: str, quants: tuple[Quant, Quant, Quant], activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.arithmetic.search_form", lambda *_, **__: None)
    assert_exact(combine(op, quants, fused_activation=activation))


@pytest.mark.parametrize("op", ["ADD", "MUL", "RESIZE_BILINEAR"])
def test_an_operator_without_an_exact_form_stays_fused_if_told(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.arithmetic.search_form", lambda *_, **__: None)
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 4, 3), "int8", 0.05)
    second = b.constant(np.array([7, 6], np.int32)) if op == "RESIZE_BILINEAR" else x
    y = b.op(op, [x, second], (1, 7, 6, 3) if op == "RESIZE_BILINEAR" else (1, 4, 4, 3), "int8", 0.05, name="y")
    source = read_tflite(b.build([y]), "built.tflite")
    written = {}
    for arithmetic in ("litert", "fused"):
        context = ImportContext(source, GraphWriter("one"), "uint8", "litert", arithmetic=arithmetic)
        context.define(x, image_pixels(context.writer, ImageInput(4, 4, Rescaling(1.0, 0.0)), 1))
        translate(context)
        written[arithmetic] = [node.op_type for node in context.writer.graph], context.notes
    assert "Cast" in written["litert"][0]
    assert written["fused"][0][-1] == "QuantizeLinear"
    assert "(<= 1 LSB)" in written["fused"][1][0]


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_what_xnnpack_declines_stays_within_one_code(op: str) -> None:
    runs = combine(op, (Quant(0.05, -3), Quant(0.00004, 12), Quant(0.06 if op != "MUL" else 1.0, 40)))
    assert not runs.delegated
    assert runs.worst <= 1


SCALES = st.floats(-3.5, 1.5).map(lambda x: 0.0523 * 2**x) | st.sampled_from([0.025, 0.05, 0.1, 0.15, 0.2, 1 / 255])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_sum_and_product_is_exact(data: st.DataObject) -> None:
    """All pairs of codes, or a constant of any shape, whatever the scales, zero-points and fused activation."""
    op, dtype = (data.draw(st.sampled_from(["ADD", "SUB", "MUL"])), data.draw(st.sampled_from(["int8", "uint8"])))
    info = np.iinfo(dtype)
    zero_points = st.integers(info.min, info.max) | st.sampled_from([info.min, info.min + 128, info.max])
    quants = [Quant(data.draw(SCALES), data.draw(zero_points)) for _ in range(3)]
    shape = data.draw(st.sampled_from([LEFT.shape, (256,), (), (1, 16, 16, 1), (1, 1, 16, 1)]))
    every = np.arange(info.min, info.max + 1)
    left = np.repeat(every, 256).astype(dtype).reshape(LEFT.shape)
    right = np.tile(every, 256).astype(dtype).reshape(LEFT.shape) if shape == LEFT.shape else codes(shape, dtype)
    b = TfliteBuilder()
    x = b.input("x", left.shape, dtype, quants[0].scale, quants[0].zero_point)
    feeds = [left]
    if shape in {(), (256,)} or data.draw(st.booleans()):
        y = b.constant(right, quants[1].scale, quants[1].zero_point)
    else:
        y = b.input("y", shape, dtype, quants[1].scale, quants[1].zero_point)
        feeds.append(right)
    operands = [y, x] if data.draw(st.booleans()) else [x, y]
    activation = data.draw(st.sampled_from(["NONE", "RELU", "RELU6"]))
    z = b.op(
        op, operands, LEFT.shape, dtype, quants[2].scale, quants[2].zero_point, name="z",
        fused_activation=activation,
    )  # fmt: skip
    runs = run_everywhere(b.build([z]), feeds)
    if runs.delegated:
        assert_exact(runs)
    else:
        assert runs.worst <= 1


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_a_product_with_a_fused_activation_is_exact(activation: str) -> None:
    quants = (Quant(0.0371, -3), Quant(0.0583, 17), Quant(0.0911, 5))
    assert_exact(combine("MUL", quants, fused_activation=activation))


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("shape", [(), (6,), (1, 6), (1, 1, 1, 6), (5, 1), (1, 4, 5, 6)], ids=str)
def test_a_constant_operand_is_broadcast(op: str, shape: tuple[int, ...]) -> None:
    constant = (codes(shape, seed=3), Quant(0.0583, 17))
    assert_exact(run_single(op, ((1, 4, 5, 6), (1, 4, 5, 6)), (Quant(0.0371, -3), Quant(0.3011, 5)), constant))


def test_operands_of_another_rank_meet_the_right_axes() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 5, 6), "int8", 0.0371, -3)
    row = b.input("row", (1, 6), "int8", 0.0583, 17)
    z = b.op("MUL", [row, x], (1, 4, 5, 6), "int8", 0.3011, 5, name="z")
    assert_exact(run_everywhere(b.build([z]), [codes((1, 4, 5, 6)), codes((1, 6), seed=1)]))


@pytest.mark.parametrize(
    ("op", "scale"), [("ADD", 20.0), ("SUB", 9.0), ("MUL", 300.0), ("DIV", 0.0091), ("DIV", 0.4), ("DIV", 1e-5)]
)
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
def test_what_xnnpack_does_not_take_is_looked_up(op: str, scale: float, activation: str) -> None:
    """All pairs of codes; a divisor of 0 has no result."""
    first, second = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    second = np.where(second == 3, 4, second)
    b, shape = TfliteBuilder(), (1, 256, 256, 1)
    x, y = b.input("x", shape, "int8", 0.0137, -9), b.input("y", shape, "int8", 0.0071, 3)
    z = b.op(op, [x, y], shape, "int8", scale, -7, name="z", version=2, fused_activation=activation)
    runs = run_everywhere(b.build([z]), [codes.astype(np.int8).reshape(shape) for codes in (first, second)])
    assert not runs.delegated
    assert_exact(runs)


EVERY_CODE = (1, 4, 8, 8)


@pytest.mark.parametrize("zero_point", [-128, -3, 127])
@pytest.mark.parametrize("op", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_an_activation_at_one_scale_is_exact(op: str, zero_point: int) -> None:
    quant = Quant(0.05, zero_point)
    assert_exact(run_single(op, (EVERY_CODE, EVERY_CODE), (quant, quant)))


@pytest.mark.parametrize(
    ("op", "quant"), [("RELU", Quant(0.4, -100)), ("RELU6", Quant(0.024, -100)), ("RELU_N1_TO_1", Quant(0.008))]
)
def test_an_activation_that_rescales_is_exact(op: str, quant: Quant) -> None:
    """LiteRT's only kernel rounds twice in 31-bit fixed point: 0.25 becomes 1 after the two roundings of 0.5."""
    runs = run_single(op, (EVERY_CODE, EVERY_CODE), (Quant(0.1, -3), quant))
    assert not runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [(0.011, -3), (0.07, 127), (0.1734, -128), (0.0244335, 92), (0.0138917, -14), (0.0222367, 17)],
)  # with the last three a sum with -128 makes a tie
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_logistic_is_exact(scale: float, zero_point: int, dtype: str) -> None:
    shift = 0 if dtype == "int8" else 128
    quants = Quant(scale, zero_point + shift), Quant(1 / 256, shift - 128)
    runs = run_single("LOGISTIC", (EVERY_CODE, EVERY_CODE), quants, dtype=dtype)
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", [(1, 400, 1), (1, 400, 2), (1, 4, 5, 7), (1, 90, 80), (1, 1001)], ids=str)
@pytest.mark.parametrize(("scale", "beta"), [(1 / 256, 1.0), (0.1, 0.5)])
def test_a_softmax_is_exact(shape: tuple[int, ...], scale: float, beta: float, dtype: str) -> None:
    """Two classes by a small scale have many shares near a tie."""
    shift = 0 if dtype == "int8" else 128
    quants = Quant(scale, shift + 3), Quant(1 / 256, shift - 128)
    runs = run_single("SOFTMAX", (shape, shape), quants, dtype=dtype, beta=beta)
    assert not runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("form", ["fused", "table"])
@pytest.mark.parametrize(
    ("dtype", "quants", "activation"),
    [
        ("uint8", (Quant(1 / 256, 99), Quant(0.1, 221)), "RELU_N1_TO_1"),
        ("uint8", (Quant(0.1), Quant(0.1, 10)), "RELU"),
        ("int8", (Quant(0.05), Quant(0.1, -128)), "NONE"),
    ],
)
def test_a_square_is_exact(
    dtype: str, quants: tuple[Quant, Quant], activation: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XNNPACK makes a table of a tensor times itself, which rounds another way than its products."""
    if form == "table":
        monkeypatch.setattr("converters.sources.tflite.ops.arithmetic.search_form", lambda *_, **__: None)
    b, (before, after) = TfliteBuilder(), quants
    x = b.input("x", EVERY_CODE, dtype, before.scale, before.zero_point)
    y = b.op(
        "MUL", [x, x], EVERY_CODE, dtype, after.scale, after.zero_point, name="y", fused_activation=activation,
        version=2 if dtype == "int8" else 1,
    )  # fmt: skip
    runs = run_everywhere(b.build([y]), [codes(EVERY_CODE, dtype)])
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize(("source", "target"), [("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
@pytest.mark.parametrize("count", [15, 16, 64, 256])
def test_a_requantisation_of_a_built_in_kernel_is_exact(source: str, target: str, count: int) -> None:
    """To another type, or to a far scale: halves go up in blocks of 16 values, away from zero in fewer."""
    scale = 0.07125287 if source != target else 10.0
    b, shape, shifts = TfliteBuilder(), (1, 1, 1, count), [128 * (t == "uint8") for t in (source, target)]
    x = b.input("x", shape, source, 0.03267441, 113 + shifts[0])
    y = b.op("QUANTIZE", [x], shape, target, scale, 20 + shifts[1], name="y", version=2)
    runs = run_everywhere(b.build([y]), [codes(shape, source)])
    assert not runs.delegated
    assert_exact(runs)


@settings(max_examples=40)
@given(st.floats(0.01, 0.2), st.integers(-128, 127), st.floats(0.01, 0.2), st.integers(-128, 127))
def test_a_requantisation_is_exact(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> None:
    runs = run_single("QUANTIZE", (EVERY_CODE, EVERY_CODE), (Quant(scale_in, zero_in), Quant(scale_out, zero_out)))
    assert runs.delegated
    assert_exact(runs)


@pytest.mark.parametrize("op", ["QUANTIZE", "RELU", "RELU6", "AVERAGE_POOL_2D", "RESIZE_BILINEAR"])
def test_an_operator_between_others_still_rounds_on_its_own(op: str) -> None:
    """ONNX Runtime merges Q -> DQ -> Q -> DQ into one pair; nothing here may leave such a chain."""
    b = TfliteBuilder()
    x = b.input("x", (1, 8, 8, 8), "int8", 0.05, -3)
    weights = np.maximum(codes((8, 3, 3, 8), seed=2), -127)
    bias = b.constant(np.zeros(8, np.int32), 0.0005)
    c = b.op("CONV_2D", [x, b.constant(weights, 0.01), bias], (1, 8, 8, 8), "int8", 0.4, 5, name="c", padding="SAME")
    if op == "AVERAGE_POOL_2D":
        side, quant, window = 4, Quant(0.4, 5), {"filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2}
        m = b.op(
            op, [c], (1, side, side, 8), "int8", quant.scale, quant.zero_point, name="m", padding="VALID", **window
        )
    elif op == "RESIZE_BILINEAR":
        side, quant = 16, Quant(0.4, 5)
        size = b.constant(np.array([16, 16], np.int32))
        m = b.op(op, [c, size], (1, side, side, 8), "int8", quant.scale, quant.zero_point, name="m")
    else:
        side, quant = 8, Quant(6 / 255 if op == "RELU6" else 0.51, -128)
        m = b.op(op, [c], (1, side, side, 8), "int8", quant.scale, quant.zero_point, name="m")
    w = b.constant(weights, 0.01)
    y = b.op(
        "CONV_2D",
        [m, w, b.constant(np.zeros(8, np.int32), quant.scale * 0.01)],
        (1, side, side, 8),
        "int8",
        2.0,
        1,
        name="y",
        padding="SAME",
    )
    assert_exact(run_everywhere(b.build([y]), [codes((1, 8, 8, 8))]))
