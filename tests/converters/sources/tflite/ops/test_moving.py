"""Operators that only move values are exact, and shape arithmetic leaves no trace in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import ConversionError, OptionError
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import (
    Quant,
    Runs,
    assert_exact,
    codes,
    run_everywhere,
    run_single,
    translated,
)

Q = Quant(0.05, -3)
PICTURE = (1, 4, 5, 6)
Shape = tuple[int, ...]


def move(op: str, before: Shape, after: Shape, *constants: np.ndarray[Any, Any], **o: Any) -> Runs:
    return run_single(op, (before, after), (Q, Q), *constants, **o)


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 6, 4, 10), (1, 240)),
        ((1, 6, 4, 10), (1, 24, 10)),
        ((1, 6, 4, 10), (1, 6, 4, 2, 5)),
        ((1, 240), (1, 6, 4, 10)),
        ((1, 6, 4, 10), (1, 4, 6, 10)),
        ((1, 6, 4, 10), (24, 10)),
        ((1, 6, 4, 10), (1, 6, 4, 10)),
    ],
    ids=str,
)
def test_a_reshape_is_exact(before: Shape, after: Shape) -> None:
    assert_exact(move("RESHAPE", before, after, ints(*after), new_shape=after))


@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1), (0, 2, 1, 3), (3, 1, 0, 2)], ids=str)
def test_a_transposition_is_exact(perm: Shape) -> None:
    shape = (1, 6, 4, 10)
    assert_exact(move("TRANSPOSE", shape, tuple(shape[axis] for axis in perm), ints(*perm)))


def test_a_transposition_of_three_axes_is_exact() -> None:
    assert_exact(move("TRANSPOSE", (1, 6, 40), (1, 40, 6), ints(0, 2, 1)))


@pytest.mark.parametrize(
    "pads", [((0, 0), (1, 2), (3, 0), (0, 0)), ((0, 0), (0, 0), (0, 0), (2, 1))], ids=["space", "channels"]
)
def test_a_padding_is_exact(pads: tuple[tuple[int, int], ...]) -> None:
    shape = (1, 6, 4, 10)
    after = tuple(n + a + b for n, (a, b) in zip(shape, pads, strict=True))
    assert_exact(move("PAD", shape, after, np.array(pads, np.int32)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_padding_in_front_of_a_convolution_is_exact_and_vanishes(stride: int) -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 7, 7, 3), "int8", 0.05, -128)
    p = b.op(
        "PAD", [x, b.constant(ints(0, 0, 1, 1, 0, 1, 0, 0).reshape(4, 2))], (1, 9, 8, 3), "int8", 0.05, -128, name="p"
    )
    w = b.constant(np.maximum(codes((8, 3, 3, 3)), -127), 0.01)
    side = [(n - 3) // stride + 1 for n in (9, 8)]
    bias = b.constant(np.zeros(8, np.int32), 0.0005)
    options: dict[str, Any] = {"padding": "VALID", "stride_h": stride, "stride_w": stride}
    y = b.op("CONV_2D", [p, w, bias], (1, *side, 8), "int8", 0.3, 7, name="y", **options)
    data = b.build([y])
    assert_exact(run_everywhere(data, [codes((1, 7, 7, 3))]))
    assert "Pad" not in operators(data)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_concatenation_is_exact(axis: int, count: int) -> None:
    b, shape = TfliteBuilder(), [1, 4, 5, 6]
    inputs = [b.input(f"x{i}", shape, "int8", Q.scale, Q.zero_point) for i in range(count)]
    after = list(shape)
    after[axis] *= count
    y = b.op("CONCATENATION", inputs, after, "int8", Q.scale, Q.zero_point, name="y", axis=axis)
    assert_exact(run_everywhere(b.build([y]), [codes(shape, seed=i) for i in range(count)]))


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_packing_is_exact(axis: int) -> None:
    b, shape = TfliteBuilder(), [1, 4, 6]
    inputs = [b.input(f"x{i}", shape, "int8", Q.scale, Q.zero_point) for i in range(2)]
    after = list(shape)
    after.insert(axis % 4, 2)
    y = b.op("PACK", inputs, after, "int8", Q.scale, Q.zero_point, name="y", axis=axis, values_count=2)
    assert_exact(run_everywhere(b.build([y]), [codes(shape), codes(shape, seed=1)]))


@pytest.mark.parametrize("axis", [1, 3, -2])
def test_a_split_is_exact(axis: int) -> None:
    b, shape = TfliteBuilder(), [1, 6, 6, 9]
    x, after = b.input("x", shape, "int8", Q.scale, Q.zero_point), list(shape)
    after[axis] //= 3
    outputs = [b.tensor(f"y{i}", after, "int8", Q.scale, Q.zero_point) for i in range(3)]
    b.operator("SPLIT", [b.constant(np.array(axis, np.int32)), x], outputs, num_splits=3)
    assert_exact(run_everywhere(b.build(outputs), [codes(shape)]))


@pytest.mark.parametrize("repeats", [(1, 2, 3, 1), (1, 1, 1, 2)], ids=str)
def test_tiling_is_exact(repeats: Shape) -> None:
    shape = (1, 4, 5, 6)
    assert_exact(move("TILE", shape, tuple(n * r for n, r in zip(shape, repeats, strict=True)), ints(*repeats)))


@pytest.mark.parametrize(
    ("axis", "indices", "after"),
    [(3, [5, 0, 0], (1, 4, 5, 3)), (1, [[3, 0]], (1, 1, 2, 5, 6)), (-2, 4, (1, 4, 6))],
    ids=["channels", "a new axis", "one row"],
)
def test_gathering_is_exact(axis: int, indices: Any, after: Shape) -> None:
    assert_exact(move("GATHER", (1, 4, 5, 6), after, np.array(indices, np.int32), axis=axis))


def test_a_cast_to_float_keeps_the_stored_numbers() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 8, 8), "int8", 0.05, -3)
    y = b.op("CAST", [x], (1, 4, 8, 8), "float32", name="y", in_data_type="int8", out_data_type="float32")
    assert_exact(run_everywhere(b.build([y]), [codes((1, 4, 8, 8))]))


@st.composite
def slices(draw: st.DrawFn) -> tuple[Shape, dict[str, int], list[list[int]], Shape]:
    """A shape, the masks, [begin, end, strides] and the result's shape, by numpy's own indexing."""
    shape = (1, *draw(st.lists(st.integers(2, 6), min_size=1, max_size=3)))
    index: list[slice | int] = [slice(0, 1)]
    limits, masks = [[0], [1], [1]], {"begin_mask": 0, "end_mask": 0, "shrink_axis_mask": 0}
    for axis, size in enumerate(shape[1:], start=1):
        begin, end = draw(st.integers(-size, size - 1)), draw(st.integers(-size - 2, size + 2))
        stride = draw(st.sampled_from([1, 2, 3, -1, -2]))
        begin_open, end_open, shrink = (draw(st.booleans()) for _ in range(3))
        if shrink:
            begin_open, stride, end_open, end = False, 1, False, begin + 1
        entry = begin if shrink else slice(None if begin_open else begin, None if end_open else end, stride)
        if isinstance(entry, slice) and not range(*entry.indices(size)):
            entry, begin_open, end_open = slice(None, None, stride), True, True
        index.append(entry)
        for values, value in zip(limits, (begin, end, stride), strict=True):
            values.append(value)
        for mask, flag in zip(masks, (begin_open, end_open, shrink), strict=True):
            masks[mask] |= flag << axis
    return shape, masks, limits, np.zeros(shape)[tuple(index)].shape


@settings(max_examples=60)
@given(slices())
def test_a_strided_slice_is_exact(case: tuple[Shape, dict[str, int], list[list[int]], Shape]) -> None:
    shape, masks, limits, after = case
    assert_exact(move("STRIDED_SLICE", shape, after, *(ints(*values) for values in limits), **masks))


@pytest.mark.parametrize(
    ("limits", "masks", "after"),
    [
        (([0, 1], [0, 3], [1, 1]), {"ellipsis_mask": 1}, (1, 4, 5, 2)),
        (([0, 0, 2], [1, 0, 4], [1, 1, 1]), {"new_axis_mask": 2}, (1, 1, 2, 5, 6)),
        (([0, 2, 1], [1, 0, 3], [1, 1, 1]), {"ellipsis_mask": 2, "begin_mask": 1}, (1, 4, 5, 2)),
    ],
    ids=["ellipsis", "new axis", "ellipsis between"],
)
def test_a_strided_slice_with_an_ellipsis_or_a_new_axis_is_exact(
    limits: tuple[list[int], ...], masks: dict[str, int], after: Shape
) -> None:
    assert_exact(move("STRIDED_SLICE", (1, 4, 5, 6), after, *(ints(*values) for values in limits), **masks))


def shape_arithmetic() -> bytes:
    """RESHAPE to [SHAPE(x)[0], 24, 5 * 2], written the way converters do it."""
    b = TfliteBuilder()
    x = b.input("x", (1, 6, 4, 10), "int8", 0.05, -3)
    shape = b.op("SHAPE", [x], (4,), "int32", name="shape", out_type="int32")
    limits = [b.constant(ints(value)) for value in (0, 1, 1)]
    batch = b.op("STRIDED_SLICE", [shape, *limits], (), "int32", name="batch", shrink_axis_mask=1)
    ten = b.op("MUL", [b.constant(np.array(5, np.int32)), b.constant(np.array(2, np.int32))], (), "int32", name="ten")
    sizes = [batch, b.constant(np.array(24, np.int32)), ten]
    packed = b.op("PACK", sizes, (3,), "int32", name="packed", values_count=3, axis=0)
    y = b.op("RESHAPE", [x, packed], (1, 24, 10), "int8", 0.05, -3, name="y")
    return b.build([y])


def operators(data: bytes, **options: Any) -> list[str]:
    return [node.op_type for node in translated(read_tflite(data, "built.tflite"), **options).graph]


def test_shape_arithmetic_is_folded_away_and_exact() -> None:
    assert_exact(run_everywhere(shape_arithmetic(), [codes((1, 6, 4, 10))]))
    # the two Transpose around the Reshape (harness input, NHWC for the Reshape) cancel, too
    assert not {"Shape", "Slice", "Concat", "Mul", "Gather"} & set(operators(shape_arithmetic()))


@pytest.mark.parametrize("batch", ["N", 3])
def test_a_batch_survives_a_reshape(batch: int | str) -> None:
    model = translated(read_tflite(shape_arithmetic(), "built.tflite"), batch=batch)
    ir.passes.common.ShapeInferencePass()(model)
    shape = model.graph.outputs[0].shape
    assert shape is not None
    assert [d if isinstance(d, int) else d.value for d in shape] == [batch, 24, 10]


def test_an_operator_along_the_batch_is_refused_for_several_images() -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 4, 6), "int8", 0.05, -3)
    y = b.op("PACK", [x, x], (2, 1, 4, 6), "int8", 0.05, -3, name="y", values_count=2, axis=0)
    with pytest.raises(OptionError, match="--batch 1"):
        operators(b.build([y]), batch=3)


@pytest.mark.parametrize(
    ("op", "before", "constants", "after", "options", "words"),
    [
        ("RESHAPE", PICTURE, [ints(1, 7)], (1, 7), {}, "another number of values"),
        ("TRANSPOSE", PICTURE, [ints(0, 1, 1, 2)], PICTURE, {}, "each of 4 axes once"),
        ("TRANSPOSE", PICTURE, [ints(0, 1)], PICTURE, {}, "each of 4 axes once"),
        ("PAD", PICTURE, [ints(1, 1).reshape(1, 2)], PICTURE, {}, "paddings of shape"),
        ("STRIDED_SLICE", PICTURE, [ints(0), ints(1), ints(0)], PICTURE, {}, "no stride of 0"),
        ("STRIDED_SLICE", PICTURE, [ints(0, 1), ints(1), ints(1)], PICTURE, {}, "equally many"),
        ("STRIDED_SLICE", PICTURE, [ints(7), ints(8), ints(1)], (4, 5, 6), {"shrink_axis_mask": 1}, "out of range"),
        ("STRIDED_SLICE", PICTURE, [ints(*[0] * 5), ints(*[1] * 5), ints(*[1] * 5)], (1,), {}, "out of range"),
        ("GATHER", PICTURE, [ints(6)], (1, 4, 5, 1), {"axis": 3}, "reads outside"),
        ("GATHER", PICTURE, [ints(0)], (1, 4, 5, 1), {"axis": 4}, "a tensor with 4 axes"),
        ("GATHER", PICTURE, [ints(0)], (1, 4, 5, 1), {"axis": 3, "batch_dims": 1}, "batch_dims"),
        ("TILE", PICTURE, [ints(1, 0, 1, 1)], PICTURE, {}, "numbers above 0"),
        ("RESIZE_BILINEAR", PICTURE, [ints(0, 5)], PICTURE, {}, "expected height and width"),
        ("RESIZE_BILINEAR", PICTURE, [ints(5)], PICTURE, {}, "expected height and width"),
        ("MEAN", PICTURE, [ints(9)], (1, 6), {}, "reduces axes"),
        ("MAX_POOL_2D", PICTURE, [], PICTURE, {"stride_h": 0}, "stride_h 0"),
        ("MAX_POOL_2D", PICTURE, [], (1, 9, 9, 6), {"filter_h": 1, "filter_w": 1}, "has shape"),
        ("ADD", PICTURE, [], PICTURE, {}, "1 operands, expected 2"),
        ("SLICE", (1, 6), [ints(0, 0), ints(1, 9)], (1, 9), {}, "out of range, or nothing"),
        ("SLICE", (1, 6), [ints(0), ints(1)], (1, 6), {}, "out of range, or nothing"),
        ("DEPTH_TO_SPACE", (1, 2, 2, 6), [], (1, 4, 4, 1), {"block_size": 2}, "6 channels for blocks of 2"),
        ("SPACE_TO_DEPTH", (1, 3, 2, 6), [], (1, 1, 1, 24), {"block_size": 2}, "cuts 3 x 2 into blocks of 2"),
        ("UNPACK", (1, 2, 3), [], (1, 3), {"axis": 1, "num": 2}, "unpacks 2 values into 1"),
        (
            "MIRROR_PAD",
            (1, 3, 3, 2),
            [ints(0, 0, 3, 0, 0, 0, 0, 0).reshape(4, 2)],
            (1, 6, 3, 2),
            {},
            "mirrors .* pixels",
        ),
    ],
)
def test_operands_that_make_no_sense_are_refused(
    *, op: str, before: Shape, constants: list[Any], after: Shape, options: dict[str, Any], words: str
) -> None:
    b = TfliteBuilder()
    x = b.input("x", before, "int8", 0.05, -3)
    y = b.op(op, [x, *map(b.constant, constants)], after, "int8", 0.05, -3, name="y", **options)
    with pytest.raises(ConversionError, match=words):
        operators(b.build([y]))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("op", "shapes", "after", "options"),
    [
        ("DEPTH_TO_SPACE", ((1, 3, 5, 18), (1, 9, 15, 2)), Q, {"block_size": 3}),
        ("DEPTH_TO_SPACE", ((1, 4, 4, 12), (1, 8, 8, 3)), Q, {"block_size": 2}),
        ("SPACE_TO_DEPTH", ((1, 9, 15, 2), (1, 3, 5, 18)), Q, {"block_size": 3}),
        ("SQUEEZE", ((1, 1, 6, 10), (6, 10)), Q, {"squeeze_dims": (0, 1)}),
        ("SQUEEZE", ((1, 6, 1, 10), (1, 6, 10)), Quant(0.02, 4), {"squeeze_dims": (2,)}),
    ],
)
def test_codes_are_regrouped_exactly(
    op: str, shapes: tuple[Shape, Shape], options: dict[str, Any], after: Quant, dtype: str
) -> None:
    before, shift = Q, 128 if dtype == "uint8" else 0
    quants = Quant(before.scale, before.zero_point + shift), Quant(after.scale, after.zero_point + shift)
    assert_exact(run_single(op, shapes, quants, dtype=dtype, **options))


@pytest.mark.parametrize(
    ("begin", "size", "after"),
    [((0, 0, 0, 0), (1, 6, 4, 10), (1, 6, 4, 10)), ((0, 1, 2, 3), (-1, 2, -1, 5), (1, 2, 2, 5))],
    ids=["all", "a part"],
)
def test_a_slice_is_exact(begin: Shape, size: Shape, after: Shape) -> None:
    assert_exact(move("SLICE", (1, 6, 4, 10), after, ints(*begin), ints(*size)))


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_unpacking_is_exact(axis: int) -> None:
    shape = (1, 2, 3, 4)
    b = TfliteBuilder()
    x = b.input("x", shape, "int8", 0.05, -3)
    left = tuple(size for i, size in enumerate(shape) if i != axis % 4)
    outputs = [b.tensor(f"y{i}", left, "int8", 0.05, -3) for i in range(shape[axis])]
    b.operator("UNPACK", [x], outputs, num=shape[axis], axis=axis)
    assert_exact(run_everywhere(b.build(outputs), [codes(shape)]))


@pytest.mark.parametrize("op", ["MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize("shape", [(1, 6, 8, 10), (10,), (1, 6, 8, 1)], ids=str)
@pytest.mark.parametrize("scale", [0.05, 0.011])
def test_the_larger_and_the_smaller_of_codes_are_exact(op: str, shape: Shape, scale: float) -> None:
    b = TfliteBuilder()
    x = b.input("x", (1, 6, 8, 10), "int8", 0.05, -3)
    other = b.constant(codes(shape, seed=1), scale, -3)
    y = b.op(op, [x, other], (1, 6, 8, 10), "int8", 0.05, -3, name="y")
    assert_exact(run_everywhere(b.build([y]), [codes((1, 6, 8, 10))]))
