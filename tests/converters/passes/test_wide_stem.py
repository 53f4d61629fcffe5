"""The wide stem computes the same codes as the convolution and pool it replaces."""

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

from converters.graph import IR_VERSION, GraphWriter
from converters.passes.wide_stem import WideStem

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stem:
    """A small quantised stem: DQ -> Conv -> Q -> DQ -> MaxPool -> Q."""

    height: int = 8
    width: int = 12
    channels: int = 5
    zero_point: int = 3
    per_channel: bool = True
    dtype: type[Any] = np.uint8
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    pool_strides: tuple[int, int] = (2, 2)
    pool_padding: str = "VALID"
    weight_zero_point: int = 0
    pooled_scale: float = 0.7
    batch: int | str = 1
    seed: int = 0

    def build(self) -> ir.Model:
        rng = np.random.default_rng(self.seed)
        writer = GraphWriter("stem")
        kind = ir.DataType.UINT8 if self.dtype is np.uint8 else ir.DataType.INT8
        codes = writer.input("codes", kind, [self.batch, 3, self.height, self.width])
        x = self._dequantized(writer, codes, 0.02, self.zero_point, "x")
        shape = (self.channels,) if self.per_channel else ()
        scale = rng.uniform(0.005, 0.02, shape).astype(np.float32)
        weights = writer.op(
            "DequantizeLinear",
            [
                writer.constant(rng.integers(-127, 128, (self.channels, 3, 3, 3)).astype(np.int8), "w"),
                writer.constant(scale, "w/scale"),
                writer.constant(np.full(shape, self.weight_zero_point, np.int8), "w/zero_point"),
            ],
            "w/dequantized",
            **({"axis": 0} if self.per_channel else {}),
        )
        bias = writer.op(
            "DequantizeLinear",
            [
                writer.constant(rng.integers(-2000, 2000, self.channels).astype(np.int32), "b"),
                writer.constant(np.float32(0.02) * scale, "b/scale"),
                writer.constant(np.zeros(shape, np.int32), "b/zero_point"),
            ],
            "b/dequantized",
            **({"axis": 0} if self.per_channel else {}),
        )
        y = writer.op("Conv", [x, weights, bias], "conv", kernel_shape=[3, 3], strides=self.strides, pads=self.pads)
        y = self._quantized(writer, y, 0.7, "y")
        y = writer.op(
            "MaxPool",
            [self._dequantized(writer, y, 0.7, 100, "pool/x")],
            "pool",
            kernel_shape=[2, 2],
            strides=self.pool_strides,
            auto_pad=self.pool_padding,
        )
        writer.graph.outputs.append(self._quantized(writer, y, self.pooled_scale, "pooled"))
        writer.graph.outputs[0].type = ir.TensorType(kind)
        return ir.Model(writer.graph, ir_version=IR_VERSION)

    def _zero_point(self, value: int) -> NDArray[Any]:
        return np.array(value if self.dtype is np.uint8 else value - 128, self.dtype)

    def _dequantized(self, writer: GraphWriter, value: ir.Value, scale: float, zero: int, name: str) -> ir.Value:
        constants = [
            writer.constant(np.float32(scale), f"{name}/s"),
            writer.constant(self._zero_point(zero), f"{name}/z"),
        ]
        return writer.op("DequantizeLinear", [value, *constants], f"{name}/dequantized")

    def _quantized(self, writer: GraphWriter, value: ir.Value, scale: float, name: str) -> ir.Value:
        constants = [
            writer.constant(np.float32(scale), f"{name}/s"),
            writer.constant(self._zero_point(100), f"{name}/z"),
        ]
        return writer.op("QuantizeLinear", [value, *constants], name)

    def images(self) -> NDArray[Any]:
        info, n = np.iinfo(self.dtype), self.batch if isinstance(self.batch, int) else 2
        rng = np.random.default_rng(self.seed + 1)
        return rng.integers(info.min, info.max + 1, (n, 3, self.height, self.width)).astype(self.dtype)


def run(model: ir.Model, codes: NDArray[Any]) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"codes": codes})[0])


def assert_same_codes(stem: Stem) -> None:
    model = stem.build()
    expected = run(stem.build(), stem.images())
    assert WideStem()(model).modified
    assert [node.attributes.get_ints("kernel_shape") for node in model.graph if node.op_type == "Conv"] == [(4, 2)]
    np.testing.assert_array_equal(run(model, stem.images()), expected)
    assert model.graph.outputs[0].name == "pooled"


@settings(max_examples=40)
@given(
    stem=st.builds(
        Stem,
        height=st.integers(1, 6).map(lambda n: 2 * n),
        width=st.integers(1, 5).map(lambda n: 4 * n),
        channels=st.integers(1, 9),
        zero_point=st.sampled_from([0, 1, 127, 128, 255]),
        per_channel=st.booleans(),
        pool_padding=st.sampled_from(["VALID", "SAME_UPPER"]),
        batch=st.sampled_from([1, 3, "N"]),
        seed=st.integers(0, 1000),
    )
)
def test_codes_are_equal_bit_for_bit(stem: Stem) -> None:
    assert_same_codes(stem)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"dtype": np.int8}, "its input is int8", id="int8 codes"),
        pytest.param({"strides": (2, 2)}, "strides are (2, 2)", id="a strided convolution"),
        pytest.param({"pads": (0, 0, 1, 1)}, "pads are (0, 0, 1, 1)", id="other padding"),
        pytest.param({"height": 7}, "7 x 12", id="an odd height"),
        pytest.param({"width": 10}, "8 x 10", id="a width that is no multiple of 4"),
        pytest.param({"pool_strides": (1, 1)}, "no 2x2 MaxPool", id="a pool of stride 1"),
        pytest.param({"pooled_scale": 0.8}, "changes scale", id="a pool that requantises"),
        pytest.param({"weight_zero_point": 1}, "not symmetric", id="asymmetric weights"),
    ],
)
def test_it_declines_with_a_reason(change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model = replace(Stem(), **change).build()
    before = [node.op_type for node in model.graph]
    with caplog.at_level(logging.INFO):
        assert not WideStem()(model).modified
    assert reason in caplog.text
    assert [node.op_type for node in model.graph] == before


def test_twice_is_once() -> None:
    model = Stem().build()
    assert WideStem()(model).modified
    assert not WideStem()(model).modified
