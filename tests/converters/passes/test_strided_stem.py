"""The strided stem computes the same codes as the convolution it replaces, whatever its kernel and padding."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.passes.pipelines import run_pipeline
from converters.passes.split_weights import split_rows
from converters.passes.strided_stem import StridedStem, grouped_weights
from converters.spec import TensorTwin
from xdet.checking.numbers.rewrites import strided_kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stem:
    """A small quantised stem: Transpose -> DQ -> Conv -> Q."""

    height: int = 8
    width: int = 12
    colours: int = 3
    channels: int = 5
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] = (0, 0, 1, 1)
    strides: tuple[int, int] = (2, 2)
    zero_point: int = 3
    per_channel: bool = True
    dtype: type[Any] = np.uint8
    dilations: tuple[int, int] = (1, 1)
    weight_dtype: type[Any] = np.int8
    weight_zero_point: int = 0
    bias: bool = True
    batch: int | str = 1
    read_twice: bool = False
    seed: int = 0

    def build(self) -> ir.Model:
        rng = np.random.default_rng(self.seed)
        writer = GraphWriter("stem")
        kind = ir.DataType.UINT8 if self.dtype is np.uint8 else ir.DataType.INT8
        image = writer.input("image", kind, [self.batch, self.height, self.width, self.colours])
        pixels = writer.op("Transpose", [image], "pixels", perm=[0, 3, 1, 2])
        x = writer.op("DequantizeLinear", [pixels, *self._link(writer, 0.02, self.zero_point, "x")], "x")
        shape = (self.channels,) if self.per_channel else ()
        info = np.iinfo(self.weight_dtype)
        codes = rng.integers(info.min, info.max + 1, (self.channels, self.colours, *self.kernel))
        scale = rng.uniform(0.002, 0.01, shape).astype(np.float32)
        axis = {"axis": 0} if self.per_channel else {}
        constants = {"w": (codes.astype(self.weight_dtype), scale, self.weight_zero_point)}
        if self.bias:
            integers = rng.integers(-2000, 2000, self.channels).astype(np.int32)
            constants["b"] = (integers, np.float32(0.02) * scale, 0)
        reals = [
            writer.op(
                "DequantizeLinear",
                [
                    writer.constant(array, name),
                    writer.constant(scales, f"{name}/scale"),
                    writer.constant(np.full(shape, zero, array.dtype), f"{name}/zero_point"),
                ],
                f"{name}/dequantized",
                **axis,
            )
            for name, (array, scales, zero) in constants.items()
        ]
        attributes: dict[str, Any] = {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}
        y = writer.op("Conv", [x, *reals], "conv", kernel_shape=self.kernel, **attributes)
        q = writer.op("QuantizeLinear", [y, *self._link(writer, 0.5, 100, "q")], "codes")
        writer.graph.outputs.append(q)
        q.type = ir.TensorType(kind)
        if self.read_twice:
            writer.graph.outputs.append(y)
            y.type = ir.TensorType(ir.DataType.FLOAT)
        model = ir.Model(writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model

    def _link(self, writer: GraphWriter, scale: float, zero: int, name: str) -> list[ir.Value]:
        code = np.array(zero if self.dtype is np.uint8 else zero - 128, self.dtype)
        return [writer.constant(np.float32(scale), f"{name}/s"), writer.constant(code, f"{name}/z")]

    def images(self) -> NDArray[Any]:
        info, n = np.iinfo(self.dtype), self.batch if isinstance(self.batch, int) else 2
        rng = np.random.default_rng(self.seed + 1)
        shape = (n, self.height, self.width, self.colours)
        return rng.integers(info.min, info.max + 1, shape).astype(self.dtype)


def run(model: ir.Model, image: NDArray[Any]) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


FRAMES = st.sampled_from(
    [
        ((3, 3), (0, 0, 1, 1)),  # SAME of an even picture
        ((3, 3), (1, 1, 1, 1)),  # PyTorch's
        ((3, 3), (1, 1, 0, 0)),  # a PAD in front, as old converters of Keras write it
        ((3, 3), (0, 1, 0, 1)),
        ((5, 5), (1, 1, 2, 2)),
        ((5, 3), (4, 1, 4, 0)),
        ((6, 6), (2, 2, 2, 2)),  # YOLOv5's
        ((2, 2), (0, 0, 0, 0)),
        ((7, 7), (2, 2, 3, 3)),
        ((7, 7), (3, 5, 3, 0)),
        ((1, 1), (0, 0, 0, 0)),
    ]
)


@settings(max_examples=60)
@given(
    stem=st.builds(
        Stem,
        height=st.integers(7, 13),
        width=st.integers(2, 5).map(lambda n: 4 * n),
        colours=st.integers(1, 3),
        channels=st.integers(1, 9),
        strides=st.sampled_from([(2, 2), (1, 2)]),
        zero_point=st.sampled_from([0, 1, 127, 128, 255]),
        per_channel=st.booleans(),
        bias=st.booleans(),
        batch=st.sampled_from([1, 3, "N"]),
        seed=st.integers(0, 1000),
    ),
    frame=FRAMES,
    kind=st.sampled_from(["signed", "unsigned"]),
)
def test_codes_are_equal_bit_for_bit(
    stem: Stem, frame: tuple[tuple[int, int], tuple[int, int, int, int]], kind: str
) -> None:
    stem = replace(stem, kernel=frame[0], pads=frame[1])
    if kind == "unsigned":  # as files of TensorFlow 1 have them: one scale, and a zero-point
        stem = replace(stem, weight_dtype=np.uint8, weight_zero_point=stem.seed % 256, per_channel=False)
    model = stem.build()
    expected = run(stem.build(), stem.images())
    assert StridedStem()(model).modified
    np.testing.assert_array_equal(run(model, stem.images()), expected)
    assert model.graph.outputs[0].name == "codes"


def test_a_strided_stem_is_one_convolution_of_two_columns_between_free_views() -> None:
    model = Stem().build()
    twins = {"w": TensorTwin("w", "OHWI->OIHW", 0), "b": TensorTwin("b", "same", 0)}
    rewritten = run_pipeline(model, "cpu", twins)
    assert rewritten.passes == ("strided stem", "cancel transposes")
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    found = {name: list(conv.attributes.get_ints(name, [])) for name in ("kernel_shape", "strides", "pads")}
    assert found == {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 1, 1]}
    told = {name: (twin.fate, twin.by) for name, twin in rewritten.twins.items()}
    assert told == dict.fromkeys(("w", "b"), ("replicated", "strided stem"))
    kinds = [node.op_type for node in model.graph if node.op_type in ("Transpose", "Reshape")]
    assert kinds == ["Reshape", "Transpose", "Transpose", "Reshape", "Transpose"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"dtype": np.int8}, "its input is int8", id="int8 codes"),
        pytest.param({"dilations": (2, 2), "pads": (2, 2, 2, 2)}, "its dilations are (2, 2)", id="dilated"),
        pytest.param({"width": 10}, "its 10 columns", id="a width that is no multiple of 4"),
        pytest.param({"pads": (0, 0, 0, 0)}, "are not 2 results per 4 pixels", id="a column less"),
        pytest.param({"height": "H"}, "its picture has no fixed size", id="any size"),
        pytest.param({"read_twice": True}, "others read its result", id="read as reals, too"),
    ],
)
def test_it_declines_with_a_reason(change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model = replace(Stem(), **change).build()
    before = [node.op_type for node in model.graph]
    with caplog.at_level(logging.INFO):
        assert not StridedStem()(model).modified
    assert reason in caplog.text
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize(
    ("row", "rows", "stride"),
    [
        pytest.param(1, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7], 3, id="odd row"),
        pytest.param(0, [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7], 3, id="even row"),
        pytest.param(None, range(8), 2, id="none"),
    ],
)
def test_a_row_is_repeated_where_a_weight_is_no_int8(row: int | None, rows: Sequence[int], stride: int) -> None:
    numbers = np.ones((5, 3, 3, 3), np.int16)
    if row is not None:
        numbers[2, 1, row, 2] = -203
    split = split_rows(numbers, 2, 8, (0, 1))
    assert (list(range(8)) if split.picture is None else split.picture.tolist()) == list(rows)
    assert (split.stride, split.padding) == (stride, (0, 1))
    assert split.weights.shape[2] == (3 if row is None else 4)


@pytest.mark.parametrize("change", [{"strides": (1, 1)}, {"colours": 4}], ids=["no stride", "four channels"])
def test_other_convolutions_are_no_stems(change: dict[str, Any]) -> None:
    assert list(StridedStem().rewrite(replace(Stem(), **change).build().graph)) == []


def test_twice_is_once() -> None:
    model = Stem().build()
    assert StridedStem()(model).modified
    assert not StridedStem()(model).modified


@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 9), st.integers(0, 1000))
def test_the_check_derives_the_same_weights(depth: int, width: int, left: int, seed: int) -> None:
    if left > width + 1:
        left %= width + 1
    kernel = np.random.default_rng(seed).integers(-127, 128, (2, depth, 3, width)).astype(np.int8)
    np.testing.assert_array_equal(grouped_weights(kernel, left), strided_kernel(kernel, left))
