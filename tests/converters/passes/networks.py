"""What tests of rewrites share: small quantised networks, their codes on ONNX Runtime, and refusals with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.passes import run_pipeline
from converters.passes.base import DeclinedError
from converters.passes.weights import dequantized
from converters.spec import TensorTwin
from tests.converters.sessions import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.passes.base import Rewrite

HEADER = '<ir_version: 9, opset_import: ["" : 19]>\n'
Fates = dict[str, tuple[str, str | None]]


def parse(text: str, **values: object) -> ir.Model:
    """ONNX text, with ``NAME`` replaced by its value; a constant ``codes`` is random weights."""
    for name, value in values.items():
        text = text.replace(name, str(value))
    proto = onnx.parser.parse_model(HEADER + text.strip())
    if "codes" in text:
        weights = np.random.default_rng(0).integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "codes"))
    model = ir.from_proto(proto)
    infer_shapes(model)
    return model


def kinds(model: ir.Model) -> str:
    return " ".join(node.op_type for node in model.graph)


def run(model: ir.Model, *, seed: int = 3, **entries: str) -> list[NDArray[Any]]:
    """All outputs for random codes; open sizes are 3."""
    named = {f"session.{name}": value for name, value in entries.items()}
    session = session_of(ir.to_proto(model).SerializeToString(), entries=named)
    (x,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 3 for size in x.shape]
    info = np.iinfo(np.int8 if x.type == "tensor(int8)" else np.uint8)
    codes = np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(info.dtype)
    return [np.asarray(result) for result in session.run(None, {x.name: codes})]


def assert_equal(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_bits_stay(rewrite: Rewrite, build: Callable[[], ir.Model], *, seed: int = 3) -> ir.Model:
    """The rewrite changes the network and no number, and a second run finds nothing; returns the network."""
    model = build()
    expected = run(model, seed=seed)
    assert rewrite(model).modified
    assert_equal(run(model, seed=seed), expected)
    assert not rewrite(model).modified
    return model


def assert_declined(rewrite: Rewrite, model: ir.Model, *reasons: str) -> None:
    """The rewrite leaves the network alone, at each place with its reason."""
    before = ir.to_proto(model)
    outcomes = list(rewrite.rewrite(model.graph))
    assert [isinstance(outcome, DeclinedError) for outcome in outcomes] == [True] * len(reasons)
    for outcome, reason in zip(outcomes, reasons, strict=True):
        assert reason in str(outcome)
    assert ir.to_proto(model) == before


def rewritten(model: ir.Model, *names: str) -> tuple[tuple[str, ...], Fates]:
    """The passes of the CPU's pipeline that changed a network, and the fate of some of its values."""
    result = run_pipeline(model, "cpu", {name: TensorTwin(name, "same", 0) for name in names})
    return result.passes, {name: (twin.fate, twin.by) for name, twin in result.twins.items()}


class QdqWriter:
    """A quantised network of random weights under construction; its input is ``x``.

    Args:
        shape: of the input.
        dtype: of the activation codes.
        zero_point: of activations, in uint8 form.
        seed: of the weights.
    """

    def __init__(
        self, shape: Sequence[int | str], *, dtype: type[Any] = np.uint8, zero_point: int = 9, seed: int = 0
    ) -> None:
        self.writer, self.rng = GraphWriter("net"), np.random.default_rng(seed)
        self.dtype, self.zero_point = dtype, zero_point
        self._kind = ir.DataType.UINT8 if dtype is np.uint8 else ir.DataType.INT8
        self.x = self.writer.input("x", self._kind, shape)

    def link(
        self, op_type: str, value: ir.Value, name: str, scale: float = 0.05, zero_point: int | None = None
    ) -> ir.Value:
        """A QuantizeLinear or DequantizeLinear."""
        stored = (self.zero_point if zero_point is None else zero_point) - (0 if self.dtype is np.uint8 else 128)
        constants = [
            self.writer.constant(np.float32(scale), f"{name}/s"),
            self.writer.constant(np.array(stored, self.dtype), f"{name}/z"),
        ]
        return self.writer.op(op_type, [value, *constants], name)

    def between(
        self, op_type: str, codes: Sequence[ir.Value], name: str, *constants: Any, **attributes: Any
    ) -> ir.Value:
        """An operator between pairs of one scale."""
        reals = [self.link("DequantizeLinear", value, f"{name}/d{i}") for i, value in enumerate(codes)]
        operands = [self.writer.constant(np.asarray(c), f"{name}/c{i}") for i, c in enumerate(constants)]
        real = self.writer.op(op_type, [*reals, *operands], f"{name}/f", **attributes)
        return self.link("QuantizeLinear", real, name)

    def weights(
        self,
        shape: tuple[int, ...],
        name: str,
        *,
        dtype: type[Any] = np.int8,
        bounds: tuple[int, int] | None = None,
        zero_point: int | tuple[int, ...] = 0,
        per_channel: bool = True,
        bias: str | None = "int32",
    ) -> list[ir.Value]:
        """Weights ``name/w`` between two bounds, both of which occur, and a bias ``name/b`` of codes or reals."""
        info = np.iinfo(dtype)
        low, high = (int(info.min), int(info.max)) if bounds is None else bounds
        codes = self.rng.integers(low, high + 1, shape).astype(dtype)
        codes.flat[0], codes.flat[-1] = low, high
        channels = shape[:1] if per_channel or isinstance(zero_point, tuple) else ()
        zero_points = np.broadcast_to(np.array(zero_point, dtype), channels)
        relative = codes.astype(np.int64) - np.array(zero_point).reshape(-1, 1, 1, 1)
        size = max(1.0, float(np.sqrt(np.square(relative).sum(axis=(1, 2, 3)).mean())))
        scale = (self.rng.uniform(0.1, 0.8, channels) / size).astype(np.float32)  # results of some 100 codes
        operands = [dequantized(self.writer, (codes, scale, zero_points), f"{name}/w")]
        middle = relative.sum(axis=(1, 2, 3)) * (self.zero_point - 128)
        integers = (middle + self.rng.uniform(-50 * size, 50 * size, shape[0])).astype(np.int32)
        if bias == "int32":
            held = (integers, scale * np.float32(0.05), np.zeros(channels, np.int32))
            operands.append(dequantized(self.writer, held, f"{name}/b"))
        elif bias is not None:
            operands.append(self.writer.constant(integers.astype(np.float32), f"{name}/b"))
        return operands

    def conv(self, codes: ir.Value, shape: tuple[int, ...], name: str, **attributes: Any) -> ir.Value:
        """A convolution with weights OIHW; depthwise where I is 1."""
        real = self.link("DequantizeLinear", codes, f"{name}/x")
        group = shape[0] if shape[1] == 1 else 1
        pads = [shape[2] // 2] * 4
        named = {"kernel_shape": shape[2:], "group": group, "pads": pads, **attributes}
        operands = [real, *self.weights(shape, name, **named.pop("constants", {}))]
        stated = {attribute: value for attribute, value in named.items() if value is not None}
        real = self.writer.op("Conv", operands, f"{name}/f", **stated)
        return self.link("QuantizeLinear", real, name)

    def model(self, *outputs: ir.Value) -> ir.Model:
        """The network with its outputs."""
        self.writer.graph.outputs.extend(outputs)
        for value in outputs:
            value.type = ir.TensorType(self._kind)
        model = ir.Model(self.writer.graph, ir_version=IR_VERSION)
        infer_shapes(model)
        return model


@dataclass(frozen=True)
class Convolution:
    """One quantised convolution ``conv``; see ``QdqWriter.weights`` for its constants.

    Attributes:
        pads: None for automatic ones.
        nhwc: whether the input is a picture, which a Transpose moves to NCHW.
    """

    inputs: int = 16
    outputs: int = 16
    size: tuple[int | str, int] = (8, 8)
    batch: int | str = 1
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] | None = (1, 1, 1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    dtype: type[Any] = np.uint8
    zero_point: int = 9
    weight_dtype: type[Any] = np.int8
    weight_bounds: tuple[int, int] | None = None
    weight_zero_point: int | tuple[int, ...] = 0
    per_channel: bool = True
    bias: str | None = "int32"
    nhwc: bool = False
    seed: int = 0

    def write(self) -> tuple[QdqWriter, ir.Value]:
        """The network, and the codes that the convolution gives."""
        picture = (*self.size, self.inputs) if self.nhwc else (self.inputs, *self.size)
        net = QdqWriter([self.batch, *picture], dtype=self.dtype, zero_point=self.zero_point, seed=self.seed)
        codes = net.writer.op("Transpose", [net.x], "pixels", perm=[0, 3, 1, 2]) if self.nhwc else net.x
        constants = {
            "dtype": self.weight_dtype,
            "bounds": self.weight_bounds,
            "zero_point": self.weight_zero_point,
            "per_channel": self.per_channel,
            "bias": self.bias,
        }
        attributes: dict[str, Any] = {"strides": self.strides, "dilations": self.dilations, "group": self.group}
        attributes |= {"auto_pad": "SAME_UPPER", "pads": None} if self.pads is None else {"pads": self.pads}
        shape = (self.outputs, self.inputs // self.group, *self.kernel)
        return net, net.conv(codes, shape, "conv", constants=constants, **attributes)

    def build(self) -> ir.Model:
        """The network, which ends behind the convolution."""
        net, codes = self.write()
        return net.model(codes)
