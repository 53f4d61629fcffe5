"""Random models of one operator over its options, scales and zero-points, held against LiteRT by what the operator's row says.

    python -m tests.converters.sources.tflite.generated --cases 10000 --seed 1

prints what differs by more than its row's bound, and a count by operator.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.sources.tflite.operators import OPERATORS
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import codes, run_litert, run_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

ACTIVATIONS = ("NONE", "RELU", "RELU6")
SAME_SCALE = frozenset({"MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR", "MIRROR_PAD", "PAD"})

THIRD = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL"})  # versions with int8


@dataclass
class Draw:
    """One model under construction: an int8 image ``x``, and random numbers."""

    rng: np.random.Generator
    b: TfliteBuilder
    shape: tuple[int, ...]
    quant: tuple[float, int]
    x: int

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, values: Any) -> Any:
        """One of several values."""
        return values[self.whole(0, len(values) - 1)]

    def scales(self) -> tuple[float, int]:
        """A scale from 1e-3 to 1, often a round one, and a zero-point, often at a rim."""
        scale = (
            self.pick((0.05, 0.1, 1 / 255, 1 / 256))
            if self.whole(0, 3) == 0
            else 10 ** self.rng.uniform(-3, 0)
        )
        return float(scale), self.pick((-128, 0, 127, self.whole(-128, 127), self.whole(-128, 127)))

    def ints(self, *values: Any) -> int:
        """An int32 constant."""
        return self.b.constant(np.array(values, np.int32))

    def close(self, op: str, operands: list[int], shape: tuple[int, ...], **options: Any) -> bytes:
        """The operator under test, behind which the file ends."""
        scale, zero_point = self.quant if op in SAME_SCALE else self.scales()
        if op in {"TANH", "LOGISTIC", "SOFTMAX"}:
            scale, zero_point = (1 / 128, 0) if op == "TANH" else (1 / 256, -128)
        return self.b.build(
            [
                self.b.op(
                    op,
                    operands,
                    shape,
                    "int8",
                    scale,
                    zero_point,
                    name="y",
                    version=3 if op in THIRD else 2,
                    **options,
                )
            ]
        )


def _unary(op: str) -> Callable[[Draw], bytes]:
    return lambda d: d.close(
        op, [d.x], d.shape, **({"alpha": float(d.rng.uniform(0, 0.9))} if op == "LEAKY_RELU" else {})
    )


def _pair(op: str) -> Callable[[Draw], bytes]:
    def build(d: Draw) -> bytes:
        shape = d.pick((d.shape, (d.shape[3],), ()))
        constant = d.b.constant(codes(shape, seed=d.whole(0, 999)), *d.scales())
        operands = d.pick(([d.x, constant], [constant, d.x], [d.x, d.x]))
        return d.close(op, operands, d.shape, fused_activation=d.pick(ACTIVATIONS))

    return build


def _silu(d: Draw) -> bytes:
    gate = d.b.op("LOGISTIC", [d.x], d.shape, "int8", 1 / 256, -128, name="gate")
    return d.close("MUL", [d.x, gate], d.shape)


def _reduced(op: str) -> Callable[[Draw], bytes]:
    def build(d: Draw) -> bytes:
        axes = d.pick(((1, 2), (3,), (2,), (1, 2, 3)))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(d.shape))
        return d.close(op, [d.x, d.ints(*axes)], shape, keep_dims=True)

    return build


def _pool(op: str) -> Callable[[Draw], bytes]:
    def build(d: Draw) -> bytes:
        size, stride, padding = d.whole(1, 3), d.whole(1, 3), d.pick(("SAME", "VALID"))
        shape = (1, *(_length(n, size, stride, padding) for n in d.shape[1:3]), d.shape[3])
        return d.close(op, [d.x], shape, padding=padding, stride_h=stride, stride_w=stride, filter_h=size,
                       filter_w=size, fused_activation=d.pick(ACTIVATIONS))  # fmt: skip

    return build


def _length(size: int, kernel: int, stride: int, padding: str) -> int:
    return -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1


def _weights(d: Draw, shape: tuple[int, ...], axis: int) -> list[int]:
    """Weights with a scale per channel, and a bias."""
    scales = (10 ** d.rng.uniform(-3, -1, shape[axis])).astype(np.float32)
    taps = d.rng.integers(-127, 128, shape).astype(np.int8)
    bias = d.rng.integers(-3000, 3000, shape[axis]).astype(np.int32)
    return [d.b.constant(taps, scales, axis=axis), d.b.constant(bias, np.float32(d.quant[0]) * scales)]


def _convolution(op: str) -> Callable[[Draw], bytes]:
    def build(d: Draw) -> bytes:
        kernel, stride, channels = d.whole(1, 3), d.whole(1, 2), d.shape[3]
        padding, depthwise = d.pick(("SAME", "VALID")), op == "DEPTHWISE_CONV_2D"
        out = channels if depthwise else d.whole(1, 5)
        shape = (1, kernel, kernel, out) if depthwise else (out, kernel, kernel, channels)
        operands = [d.x, *_weights(d, shape, 3 if depthwise else 0)]
        sides = (_length(n, kernel, stride, padding) for n in d.shape[1:3])
        return d.close(op, operands, (1, *sides, out), padding=padding, stride_h=stride, stride_w=stride,
                       fused_activation=d.pick(ACTIVATIONS), **({"depth_multiplier": 1} if depthwise else {}))  # fmt: skip

    return build


def _transpose_conv(d: Draw) -> bytes:
    kernel, stride, padding, out = d.whole(1, 5), d.whole(1, 3), d.pick(("SAME", "VALID")), d.whole(1, 4)
    sides = (n * stride if padding == "SAME" else (n - 1) * stride + kernel for n in d.shape[1:3])
    shape = (1, *sides, out)
    weights, bias = _weights(d, (out, kernel, kernel, d.shape[3]), 0)
    return d.close("TRANSPOSE_CONV", [d.ints(*shape), weights, d.x, bias], shape, padding=padding,
                   stride_h=stride, stride_w=stride)  # fmt: skip


def _resize(op: str) -> Callable[[Draw], bytes]:
    def build(d: Draw) -> bytes:
        sizes = (d.whole(1, 13), d.whole(1, 13))
        options = d.pick(({}, {"half_pixel_centers": True}, {"align_corners": True}))
        return d.close(op, [d.x, d.ints(*sizes)], (1, *sizes, d.shape[3]), **options)

    return build


def _mirror_pad(d: Draw) -> bytes:
    pads = d.rng.integers(0, 3, (4, 2))
    pads[0] = 0
    pads[3] = 0
    shape = tuple(int(size + around.sum()) for size, around in zip(d.shape, pads, strict=True))
    mode = d.pick(("REFLECT", "SYMMETRIC"))
    return d.close("MIRROR_PAD", [d.x, d.ints(*pads)], shape, mode=mode)


def _matmul(d: Draw) -> bytes:
    return d.close("BATCH_MATMUL", [d.x, d.x], (*d.shape[:3], d.shape[2]), adj_y=True)


BUILDERS: Mapping[str, Callable[[Draw], bytes]] = {
    **{
        op: _unary(op) for op in ("LEAKY_RELU", "LOGISTIC", "QUANTIZE", "ABS", "EXP", "TANH", "RELU", "RELU6")
    },
    **{op: _pair(op) for op in ("ADD", "SUB", "MUL")},
    "SiLU": _silu,
    **{op: _reduced(op) for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")},
    **{op: _pool(op) for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D")},
    **{op: _convolution(op) for op in ("CONV_2D", "DEPTHWISE_CONV_2D")},
    "TRANSPOSE_CONV": _transpose_conv,
    **{op: _resize(op) for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")},
    "MIRROR_PAD": _mirror_pad,
    "BATCH_MATMUL": _matmul,
}


@dataclass(frozen=True)
class Outcome:
    """What a generated model gave.

    Attributes:
        name: which builder made it.
        worst: the largest distance from LiteRT, in codes; None where LiteRT does not run the model.
        bound: what the rows allow.
    """

    name: str
    worst: float | None
    bound: int


def run_case(seed: int) -> Outcome:
    """Make and compare the model of a seed."""
    rng = np.random.default_rng(seed)
    name = list(BUILDERS)[int(rng.integers(len(BUILDERS)))]
    b, shape = TfliteBuilder(), (1, int(rng.integers(4, 9)), int(rng.integers(4, 9)), int(rng.integers(1, 8)))
    draw = Draw(rng, b, shape, (0.0, 0), 0)
    draw.quant = draw.scales()
    draw.x = b.input("x", shape, "int8", *draw.quant)
    data = BUILDERS[name](draw)
    image: NDArray[Any] = codes(shape, seed=seed)
    try:
        (wanted,), _ = run_litert(data, [image])
    except RuntimeError:
        return Outcome(name, None, 0)
    (found,) = run_onnx(data, [image], "uint8")
    model = read_tflite(data, "generated.tflite")
    bound = sum(OPERATORS[op.op].case_of(model, op).bound_lsb for op in model.operators)
    return Outcome(name, float(np.abs(found - wanted).max()), bound)


def main() -> None:
    """Run the cases of a range of seeds, and print what they gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    given = parser.parse_args()
    ran, refused, wrong = Counter[str](), Counter[str](), 0
    for seed in range(given.seed, given.seed + given.cases):
        outcome = run_case(seed)
        (refused if outcome.worst is None else ran)[outcome.name] += 1
        if outcome.worst is not None and outcome.worst > outcome.bound:
            wrong += 1
            print(f"seed {seed}: {outcome.name} differs by {outcome.worst}, its row allows {outcome.bound}")  # noqa: T201
    print(f"{ran.total()} ran, {refused.total()} refused by LiteRT, {wrong} beyond their row: {dict(ran)}")  # noqa: T201


if __name__ == "__main__":
    main()
