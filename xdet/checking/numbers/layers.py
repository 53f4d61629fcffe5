"""The layers of a network in the words of no format, with their numbers.

Each source makes them of its own operators (``tflite_layers``, ``keras_layers``); every comparison with the graph is
written for these. Numbers are real ones in float64, which conversion folds and rounds, or those that the graph holds as
they are: codes with scale and zero-point, or float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.convolution import same_padding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Pads = tuple[int, int, int, int]  # top, left, bottom, right
Size = tuple[int, int, int]  # height, width, channels
NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """A convolution, or a product with a matrix, and what is folded into it."""

    # ``(O, I / groups, H, W)``, or ``(O, I)`` of a matrix; without values where it is computed at run time
    kernel: NDArray[Any]
    bias: NDArray[Any]  # ``(O,)``
    strides: tuple[int, int] = (1, 1)  # down, right
    dilations: tuple[int, int] = (1, 1)  # likewise
    groups: int = 1  # as ONNX counts them
    # those of a layer in front of it that was folded included; None where the input's size is not known
    pads: Pads | None = NO_PADS
    # height and width of what it reads, in front of all ``pads``; None where that is not known
    size: tuple[int, int] | None = None
    # float64 ``(O,)``, the sum of the magnitudes that the bias was added up from: what its rounding is relative to;
    # None where the graph holds these very numbers
    terms: NDArray[np.float64] | None = None
    # of the kernel's codes, ``(O,)`` or ``(1,)``; None where the graph holds numbers without a scale
    scales: NDArray[Any] | None = None
    zero_point: int = 0  # of the kernel's codes
    # of its input's codes, the likeliest first: the bias has one of them times the kernel's; none where the graph's
    # bias has no scale
    input_scales: tuple[np.float32, ...] = ()
    layers: tuple[str, ...] = ()  # the source's layers in it
    # what messages call the kernel and the bias; the layers where they have no names of their own
    tensors: tuple[str, ...] = ()

    def then(self, affine: Affine, layer: str) -> Product:
        """With ``y = factor * x + offset`` behind it."""
        assert self.terms is not None  # noqa: S101 - only real numbers are folded
        return replace(
            self,
            kernel=self.kernel * affine.factor.reshape(-1, 1, 1, 1),
            bias=self.bias * affine.factor + affine.offset,
            terms=self.terms * np.abs(affine.factor) + affine.terms,
            layers=(*self.layers, layer),
        )

    @property
    def title(self) -> str:
        """The layers in words."""
        first, *rest = (repr(layer) for layer in self.layers)
        return f"{first} (with {', '.join(rest)} folded in)" if rest else first


@dataclass(frozen=True, eq=False, slots=True)
class Affine:
    """``y = factor * x + offset`` per channel, float64.

    ``terms`` is the sum of the magnitudes that the offset was added up from: what its rounding is relative to.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    terms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leaky:
    """LeakyReLU."""

    slope: float


@dataclass(frozen=True, slots=True)
class Clamp:
    """ReLU: lower limit 0, upper limit or None."""

    high: float | None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool; ``pads`` is None where the input's size is not known."""

    op: str
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads | None


@dataclass(frozen=True, slots=True)
class Padding:
    """Zeros around the picture."""

    pads: Pads


@dataclass(frozen=True, slots=True)
class Other:
    """What is not compared in numbers, by its source's name for it."""

    kind: str


Act = Product | Affine | Leaky | Clamp | Pool | Padding | Other


def same_pads(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...] = (1, 1)
) -> Pads:
    """SAME padding of both axes; ``size`` begins with height and width."""
    (top, bottom), (left, right) = (
        same_padding(size[axis], window[axis], strides[axis], dilations[axis]) for axis in (0, 1)
    )
    return (top, left, bottom, right)


def added(pads: Iterable[Pads]) -> Pads:
    """Several paddings, one around the other."""
    top, left, bottom, right = (sum(sides) for sides in zip(NO_PADS, *pads, strict=True))
    return (top, left, bottom, right)
