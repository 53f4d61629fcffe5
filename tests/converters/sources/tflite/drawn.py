"""Random models of one operator under construction: scales, zero-points, codes and options (for ``drawings``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.single_operator import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Shape = tuple[int, ...]

ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")
SMALLEST = 1e-8  # of output scales: LiteRT computes 6 / scale in 32 bits
FIXED = {"TANH": (1 / 128, 0), "LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128)}
VERSIONS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL"), 3),
    **dict.fromkeys(("FULLY_CONNECTED", "TRANSPOSE"), 4),
    **dict.fromkeys(
        ("NEG", "HARD_SWISH", "RELU_N1_TO_1", "PRELU", "EXPAND_DIMS", "SQUEEZE", "UNPACK", "TILE", "CAST"), 1
    ),
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "RESHAPE", "MIRROR_PAD", "GELU"), 1),
}
"""Version of an operator that takes int8 where it is not 2; uint8 is version 1 mostly."""
UINT8_VERSIONS = {"RELU": 2}


@dataclass
class Draw:
    """One model under construction, and random numbers.

    Attributes:
        rng: where all of them come from.
        dtype: of its codes.
        shape: of its first input.
        b: the file.
        quant: scale and zero-point of the first input.
        feeds: codes for every input.
        x: the first input.
    """

    rng: np.random.Generator
    dtype: str
    shape: Shape
    b: TfliteBuilder = field(default_factory=TfliteBuilder)
    quant: tuple[float, int] = (0.0, 0)
    feeds: list[NDArray[Any]] = field(default_factory=list)
    x: int = 0

    def __post_init__(self) -> None:
        self.quant = self.quantisation()
        self.x = self.input(self.shape, *self.quant)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, values: Sequence[Any]) -> Any:
        """One of several values."""
        return values[self.whole(0, len(values) - 1)]

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return bool(self.rng.random() < share)

    @property
    def lowest(self) -> int:
        return int(np.iinfo(self.dtype).min)

    def zero_point(self) -> int:
        """One of the codes, often at a rim."""
        low = self.lowest
        return int(self.pick((low, low + 128, low + 255, self.whole(low, low + 255), self.whole(low, low + 255))))

    def quantisation(self) -> tuple[float, int]:
        """A scale from 1e-3 to 1, often a round one, and a zero-point."""
        scale = self.pick((0.05, 0.1, 1 / 255, 1 / 256)) if self.chance(0.25) else 10 ** self.rng.uniform(-3, 0)
        return float(scale), self.zero_point()

    def output(self, likely: float) -> tuple[float, int]:
        """Scale and zero-point of a result that has about ``likely`` per code; one in five lies far from that."""
        spread = self.rng.uniform(-6, 3) if self.chance(0.2) else self.rng.uniform(-0.7, 0.7)
        scale = self.pick((0.05, 0.1, 1 / 256, self.quant[0])) if self.chance(0.2) else likely * 10**spread
        return max(float(scale), SMALLEST), self.zero_point()

    def ints(self, *values: Any) -> int:
        """An int32 constant."""
        return self.b.constant(np.array(values, np.int32))

    def codes(self, shape: Shape) -> NDArray[Any]:
        """Random codes."""
        return codes(shape, self.dtype, seed=self.whole(0, 1 << 30))

    def input(self, shape: Shape, scale: float, zero_point: int) -> int:
        """Another input, and codes for it."""
        self.feeds.append(self.codes(shape))
        return self.b.input(f"x{len(self.feeds)}", shape, self.dtype, scale, zero_point)

    def second(self, shape: Shape, quant: tuple[float, int]) -> int:
        """An operand of random codes: a constant, or another input."""
        if self.chance(0.5) or shape == ():
            return self.b.constant(self.codes(shape), *quant)
        return self.input(shape, *quant)

    def close(
        self,
        op: str,
        operands: Sequence[int | None],
        shape: Shape,
        quant: tuple[float, int] | None = None,
        *,
        dtype: str | None = None,
        **options: Any,
    ) -> bytes:
        """The operator under test, behind which the file ends; its output is quantised as its input by default."""
        scale, zero_point = self.fixed(op) or quant or self.quant
        y = self.b.op(op, operands, shape, dtype or self.dtype, scale, zero_point, name="y",
                      version=self.version(op), **options)  # fmt: skip
        return self.b.build([y])

    def several(self, op: str, operands: Sequence[int], shapes: Sequence[Shape], **options: Any) -> bytes:
        """``close`` for an operator with several outputs."""
        parts = [self.b.tensor(f"y{i}", shape, self.dtype, *self.quant) for i, shape in enumerate(shapes)]
        self.b.operator(op, operands, parts, version=self.version(op), **options)
        return self.b.build(parts)

    def fixed(self, op: str) -> tuple[float, int] | None:
        """The only quantisation that LiteRT lets an output of this operator have."""
        if op not in FIXED:
            return None
        scale, zero_point = FIXED[op]
        return scale, zero_point if self.dtype == "int8" else zero_point + 128

    def version(self, op: str) -> int:
        """The version of an operator that has a kernel for these codes."""
        return UINT8_VERSIONS.get(op, 1) if self.dtype == "uint8" else VERSIONS.get(op, 2)
