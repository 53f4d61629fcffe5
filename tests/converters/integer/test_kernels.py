"""The integer kernels: exact sums, half to even, clamped; what they do not cover is named.

Every operator is compared with ONNX Runtime by the tests of that operator (``single_operator``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import GraphWriter, dequantize_node, quantize_node
from converters.integer import convolution
from converters.integer.convolution import Window, convolve, multiply
from converters.integer.evaluate import GraphValues, NotEvaluatedError, attempt_golden_vector, evaluate, golden_vector
from converters.integer.golden import stored_codes
from converters.integer.kernels import MOVERS, combine, fold
from converters.integer.values import Quantized, Reals, Rounding, Sums, is_settled, quantize_value, to_reals
from converters.quant import QuantParams
from converters.sources import ImportedNetwork
from converters.spec import DetectorSpec, ImageInput, RawOutput, Rescaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = QuantParams.per_tensor(0.1, 128)
SPEC = DetectorSpec(image=ImageInput(8, 8, Rescaling(1.0, 0.0)), head=None, raw_outputs=(RawOutput("", (8, 8, 3)),))


def quantized(codes: NDArray[Any], scale: float = 1.0, zero_point: int = 0) -> Quantized:
    return Quantized(codes, np.array(scale, np.float32), np.array(zero_point, np.int32))


def codes(seed: int, *shape: int, dtype: type[np.integer[Any]] = np.uint8) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def plain_convolution(x: NDArray[np.int64], w: NDArray[np.int64], window: Window, groups: int) -> NDArray[np.int64]:
    """The definition, loop by loop; ``x`` is padded."""
    (rows, columns), (down, across) = window.strides, window.dilations
    height = (x.shape[2] - (w.shape[2] - 1) * down - 1) // rows + 1
    width = (x.shape[3] - (w.shape[3] - 1) * across - 1) // columns + 1
    sums = np.zeros((x.shape[0], w.shape[0], height, width), np.int64)
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // groups) * w.shape[1]
        for c in range(w.shape[1]):
            for i in range(w.shape[2]):
                for j in range(w.shape[3]):
                    part = x[:, first + c, i * down :, j * across :][:, ::rows, ::columns]
                    sums[:, o] += w[o, c, i, j] * part[:, :height, :width]
    return sums


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 999),
    window=st.builds(Window, pairs(1, 3), pairs(1, 3), pairs(1, 2), st.tuples(*[st.integers(0, 2)] * 4)),
    groups=st.sampled_from([1, 2, 6]),
    multiplier=st.integers(1, 3),
    zero_point=st.integers(0, 255),
)
def test_sums_are_those_of_the_definition(
    seed: int, window: Window, groups: int, multiplier: int, zero_point: int
) -> None:
    x, w = (codes(seed, 2, 6, 7, 8), codes(seed + 1, groups * multiplier, 6 // groups, *window.kernel, dtype=np.int8))
    bias = codes(seed + 2, groups * multiplier, dtype=np.int32) // 2
    found = convolve(quantized(x, zero_point=zero_point), quantized(w), quantized(bias), window, groups)
    top, left, bottom, right = window.pads
    padded = np.pad(x.astype(np.int64) - zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))
    expected = plain_convolution(padded, w.astype(np.int64), window, groups) + bias.reshape(-1, 1, 1)
    np.testing.assert_array_equal(found.sums, expected)


def test_float32_counts_every_sum_of_the_largest_codes_without_a_gap() -> None:
    depth = 700  # 255 * 127 * 9 * 700 is far beyond 2^24
    codes = np.full((1, depth, 4, 4), 255, np.uint8)
    weights = np.full((2, depth, 3, 3), 127, np.int8)
    weights[1, ::2] = -127
    weights[1, 1, 0, 0] = 126
    one, zero = np.ones(1, np.float32), np.zeros(1, np.int32)
    window = Window((3, 3), (1, 1), (1, 1), (0, 0, 0, 0))
    sums = convolve(Quantized(codes, one, zero), Quantized(weights, one, zero), None, window, 1)
    wanted = 255 * weights.astype(np.int64).sum(axis=(1, 2, 3))
    assert sums.sums.tolist() == [[[[total] * 2] * 2 for total in wanted]]


def test_the_largest_layer_of_extreme_codes_is_exact() -> None:
    x, w = np.full((1, 1024, 3, 3), 255, np.uint8), np.full((1, 1024, 3, 3), -128, np.int8)
    w[0, 0, 0, 0] = -127
    found = convolve(quantized(x), quantized(w), None, Window((3, 3), (1, 1), (1, 1), (0, 0, 0, 0)), 1)
    assert found.sums.tolist() == [[[[-128 * 255 * 9216 + 255]]]]


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = quantized(codes(0, 1, 4, 9, 9)), quantized(codes(1, 5, 4, 3, 3, dtype=np.int8))
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    whole = convolve(x, w, None, window, 1).sums
    monkeypatch.setattr(convolution, "BLOCK_BYTES", 1)
    np.testing.assert_array_equal(convolve(x, w, None, window, 1).sums, whole)


def test_rows_times_weights_are_exact() -> None:
    x, w = codes(0, 3, 50), codes(1, 4, 50, dtype=np.int8)
    found = multiply(quantized(x, zero_point=7), quantized(w), quantized(np.arange(4, dtype=np.int32)))
    expected = (x.astype(np.int64) - 7) @ w.T.astype(np.int64) + np.arange(4)
    np.testing.assert_array_equal(found.sums, expected)


@pytest.mark.parametrize(
    ("sums", "expected"),
    [(1, 10), (3, 12), (5, 12), (-1, 10), (-3, 8), (600, 255), (-600, 0), (2**31 - 1, 255), (-(2**31), 0)],
)
def test_sums_are_rounded_half_to_even_and_clamped(sums: int, expected: int) -> None:
    value = Sums(np.full((1, 1), sums, np.int32), np.array(0.25, np.float32), np.array(2.0, np.float32))
    like = Quantized(np.empty(0, np.uint8), np.array(1.0, np.float32), np.array(10, np.int32))
    assert quantize_value(value, like, Rounding()).tolist() == [[expected]]


def test_a_lone_number_is_rounded_too() -> None:
    like = Quantized(np.empty(0, np.uint8), np.array(1.0, np.float32), np.array(0, np.int32))
    assert quantize_value(Reals(np.array(2.5, np.float32)), like, Rounding()).item() == 2


def test_a_moved_decision_changes_near_ties_alone() -> None:
    like = Quantized(np.empty(0, np.uint8), np.array(1.0, np.float32), np.array(0, np.int32))
    value = Reals(np.array([1.49, 1.4, 2.5, 2.6], np.float32))
    up, down = (quantize_value(value, like, Rounding(exact=s)).tolist() for s in (2.0**-6, -(2.0**-6)))
    assert quantize_value(value, like, Rounding()).tolist() == [1, 1, 2, 3]
    assert (up, down) == ([2, 1, 3, 3], [1, 1, 2, 3])


def sum_of_two(*, fused: bool = True) -> ir.Graph:
    """Pixels and their 90 degree turn, added; ``head`` is float32 (1, 8, 8, 3)."""
    writer = GraphWriter("two")
    image = writer.input("image", ir.DataType.UINT8, [1, 8, 8, 3])
    turned = writer.op("Transpose", [image], "turned", perm=[0, 2, 1, 3])
    operands = [dequantize_node(writer, value, CODES, np.uint8, name) for value, name in ((image, "a"), (turned, "b"))]
    total = writer.op("Add" if fused else "Erf", operands if fused else operands[:1], "total")
    summed = quantize_node(writer, total, QuantParams.per_tensor(0.2, 128), np.uint8, "codes")
    writer.graph.outputs.append(dequantize_node(writer, summed, QuantParams.per_tensor(0.2, 128), np.uint8, "head"))
    return writer.graph


def run(graph: ir.Graph, feeds: dict[str, NDArray[Any]], *wanted: str) -> GraphValues:
    return evaluate(graph, feeds, wanted)


def test_values_inside_the_graph_can_be_asked_for_and_given() -> None:
    graph, image = sum_of_two(), codes(0, 1, 8, 8, 3)
    asked = run(graph, {"image": image}, "turned", "head")
    np.testing.assert_array_equal(to_reals(asked.values["turned"]).array, image.transpose(0, 2, 1, 3))
    assert asked.inexact == ("codes",)
    forced = run(graph, {"codes": np.full((1, 8, 8, 3), 138, np.uint8)}, "head")
    assert set(to_reals(forced.values["head"]).array.reshape(-1).tolist()) == {float(np.float32(2.0))}
    assert forced.inexact == ()


def test_what_has_no_kernel_is_named() -> None:
    with pytest.raises(NotEvaluatedError, match="Erf 'total' has no kernel"):
        run(sum_of_two(fused=False), {"image": codes(0, 1, 8, 8, 3)}, "head")


def test_a_value_without_a_producer_is_named() -> None:
    with pytest.raises(NotEvaluatedError, match="values without a producer: image, nowhere"):
        run(sum_of_two(), {}, "head", "nowhere")


def test_a_convolution_beyond_any_detector_is_not_evaluated() -> None:
    x = quantized(np.broadcast_to(np.uint8(0), (1, 4096, 128, 128)))
    w = quantized(np.broadcast_to(np.int8(0), (4096, 4096, 1, 1)))
    with pytest.raises(NotImplementedError, match=r"adds up 2\.7e\+11 products"):
        convolve(x, w, None, Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0)), 1)


def test_padding_far_beyond_the_image_is_not_evaluated() -> None:
    x = quantized(np.zeros((1, 3, 8, 8), np.uint8))
    w = quantized(np.zeros((4, 3, 3, 3), np.int8))
    with pytest.raises(NotImplementedError, match=r"pads 192 numbers to 1\.3e\+11"):
        convolve(x, w, None, Window((3, 3), (1, 1), (1, 2**31), (1, 2**31, 1, 2**31)), 1)


def test_a_network_that_adds_gets_a_bound_and_one_that_does_not_gets_none() -> None:
    found = golden_vector(sum_of_two(), ["head"], SPEC)
    assert (found.bound_lsb, found.other_kernels_lsb) == (2, 2)  # ties flip by one code, doubled
    assert (found.stride, stored_codes(found).size) == (4, 48)  # every third of 192 would hold one channel
    assert (found.scale, found.zero_point) == (float(np.float32(0.2)), 128)


@pytest.mark.parametrize(
    ("scale", "settled"),
    [(0.2, False), (0.37, True), (0.2001, False), (1e-30, False)],
    ids=["ties", "far from every edge", "within rounding of an edge", "absurd"],
)
def test_a_sum_of_codes_is_exact_where_no_result_is_near_an_edge(scale: float, *, settled: bool) -> None:
    like = Quantized(np.empty(0, np.uint8), np.array(scale, np.float32), np.array(128, np.int32))
    a, b = (quantized(codes, 0.1, 128) for codes in np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2))
    node = ir.node("Add", [ir.Value(name="a"), ir.Value(name="b")])
    total = combine(node, [a, b])
    assert is_settled(total, like) == settled


def test_a_product_of_codes_is_never_settled() -> None:
    like = Quantized(np.empty(0, np.uint8), np.array(0.37, np.float32), np.array(128, np.int32))
    one = quantized(np.array([129], np.uint8), 0.1, 128)
    assert not is_settled(combine(ir.node("Mul", [ir.Value(name="a"), ir.Value(name="b")]), [one, one]), like)


@pytest.mark.parametrize(
    ("graph", "head", "notes"),
    [
        (sum_of_two(fused=False), "head", ("no golden vector for xdet selftest: Erf 'total' has no kernel",)),
        (sum_of_two(), "total", ("no golden vector for xdet selftest: the head 'total' is not quantised to 8 bits",)),
    ],
    ids=["unknown operator", "float head"],
)
def test_a_network_without_a_vector_gets_a_note(graph: ir.Graph, head: str, notes: tuple[str, ...]) -> None:
    network = ImportedNetwork((ir.Value(name=head),), {}, "int8 per-tensor", "uint8")
    assert attempt_golden_vector(graph, network, SPEC) == (None, notes)


def test_a_float_network_needs_no_note() -> None:
    network = ImportedNetwork((ir.Value(name="head"),), {}, "float32", "float32")
    assert attempt_golden_vector(sum_of_two(), network, SPEC) == (None, ())


def test_int8_codes_are_stored_in_uint8_form(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Quantized(codes(3, 1, 8, 8, 3, dtype=np.int8), np.array(0.2, np.float32), np.array(-5, np.int32))
    monkeypatch.setattr("converters.integer.evaluate._head", lambda *_: ([found], ()))
    stored = golden_vector(sum_of_two(), ["head"], replace(SPEC))
    assert stored.zero_point == 123
    assert stored_codes(stored)[0] == int(found.codes[0, 0, 0, 0]) + 128


def test_a_maximum_takes_all_operands_and_is_as_exact_as_they_are() -> None:
    one, two, nine = (Reals(np.array([x], np.float32)) for x in (1, 2, 9))
    largest, smallest = ir.Node("", "Max", []), ir.Node("", "Min", [])
    assert to_reals(fold(largest, [one, two, nine])).array == 9
    assert nine.array == 9, "no operand is written to"
    assert to_reals(fold(largest, [one])).array == 1
    assert to_reals(fold(smallest, [two, one, nine])).array == 1
    assert not to_reals(fold(largest, [one, Reals(two.array, exact=False)])).exact


@pytest.mark.parametrize(
    ("operands", "expected"),
    [
        (([1, 0], [2, 3]), np.s_[1:2, 0:3]),
        (([1], [3], [1]), np.s_[:, 1:3]),
        (([1], [3], None, [2]), np.s_[1:3:2]),
        (([3], [0], [1], [-1]), np.s_[:, 3:0:-1]),
    ],
    ids=["bounds", "axes", "steps", "all"],
)
def test_axes_and_steps_of_a_slice_may_be_left_out(operands: tuple[list[int] | None, ...], expected: Any) -> None:
    x = np.arange(12).reshape(3, 4)
    arrays = [None if operand is None else np.array(operand, np.int64) for operand in operands]
    (found,) = MOVERS["Slice"](ir.node("Slice", []), x, arrays)
    assert np.array_equal(found, x[expected])
