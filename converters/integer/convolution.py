"""Convolutions and matrix products of codes: exact int32 sums.

Codes relative to their zero-points are at most 255 in size, so a sum of K products stays below 2^16 * K: for every network that
fits into memory far below 2^53, up to which float64 counts without a gap. A float64 matrix product is therefore exact whatever
the order of its additions, and as fast as the installed BLAS. The bias is added in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.integer.values import Quantized, Sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PRODUCTS = 1 << 37  # some 10 s; Tiny YOLO v2 at 416 has 2^31.3
BLOCK_BYTES = 1 << 24  # of unrolled input at a time: larger blocks are no faster, and take memory


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel walks over an image; pairs are (rows, columns).

    Attributes:
        kernel: size.
        strides: steps.
        dilations: distance of the taps.
        pads: top, left, bottom, right.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def padded(self, image_nchw: NDArray[Any], fill: float) -> NDArray[Any]:
        """The image with its padding."""
        top, left, bottom, right = self.pads
        if not any(self.pads):
            return image_nchw
        return np.pad(image_nchw, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)

    def taps(self, padded_nchw: NDArray[Any]) -> NDArray[Any]:
        """A view ``(N, C, rows out, columns out, kernel rows, kernel columns)`` of a padded image."""
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        views = np.lib.stride_tricks.sliding_window_view(padded_nchw, reach, (2, 3))
        rows, columns = self.strides
        down, across = self.dilations
        return np.asarray(views[:, :, ::rows, ::columns, ::down, ::across])


def convolve(x: Quantized, w: Quantized, bias: Quantized | None, window: Window, groups: int) -> Sums:
    """A convolution.

    Args:
        x: codes ``(N, C, H, W)``, one scale.
        w: codes ``(O, C / groups, rows, columns)``, one scale or one per O.
        bias: int32 ``(O,)`` with the scale of the sums; None is 0.
        window: kernel, strides, dilations and pads.
        groups: groups of channels.

    Raises:
        NotImplementedError: more products than any detector of this family has.
    """
    products = x.codes[:, 0].size * w.codes.size // (window.strides[0] * window.strides[1])
    if products > MOST_PRODUCTS:
        raise NotImplementedError(
            f"adds up {products:.1e} products, at most {MOST_PRODUCTS:.1e} are evaluated"
        )
    image, weights = window.padded(x.relative, 0), w.relative
    if groups == image.shape[1] and weights.shape[1] == 1:
        sums = _depthwise(image, weights, window)
    else:
        parts = zip(np.split(image, groups, axis=1), np.split(weights, groups), strict=True)
        sums = np.concatenate([_dense(part, kernels, window) for part, kernels in parts], axis=1)
    return Sums(_biased(sums, bias), x.scale, w.scale)


def multiply(x: Quantized, w: Quantized, bias: Quantized | None) -> Sums:
    """Rows ``(N, K)`` times the transpose of weights ``(O, K)``: sums ``(N, O)``."""
    products = x.relative.astype(np.float64) @ w.relative.T.astype(np.float64)
    return Sums(_biased(products.astype(np.int32), bias), x.scale, w.scale)


def _dense(image: NDArray[np.int32], weights: NDArray[np.int32], window: Window) -> NDArray[np.int32]:
    """Every output channel reads every input channel: blocks of rows, unrolled and multiplied; int32 ``(N, O, H, W)``."""
    outputs = weights.shape[0]
    matrix = weights.transpose(2, 3, 1, 0).reshape(-1, outputs).astype(np.float64)
    # channels last, so that unrolling copies runs of kernel columns * channels
    last = np.ascontiguousarray(image.transpose(0, 2, 3, 1), np.float64).transpose(0, 3, 1, 2)
    taps = window.taps(last).transpose(0, 2, 3, 4, 5, 1)
    count, rows, columns = taps.shape[:3]
    sums = np.empty((count, rows, columns, outputs), np.int32)
    step = max(1, BLOCK_BYTES // (8 * columns * matrix.shape[0]))
    for n in range(count):
        for top in range(0, rows, step):
            block = taps[n, top : top + step]
            products = block.reshape(-1, matrix.shape[0]) @ matrix
            sums[n, top : top + step] = products.reshape(*block.shape[:2], outputs)
    return sums.transpose(0, 3, 1, 2)


def _depthwise(image: NDArray[np.int32], weights: NDArray[np.int32], window: Window) -> NDArray[np.int32]:
    """Every output channel reads one input channel: tap by tap in int32."""
    channels, outputs = image.shape[1], weights.shape[0]
    taps = window.taps(image if outputs == channels else image.repeat(outputs // channels, axis=1))
    sums = np.zeros(taps.shape[:4], np.int32)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            sums += taps[..., row, column] * weights[:, 0, row, column, None, None]
    return sums


def _biased(sums: NDArray[np.int32], bias: Quantized | None) -> NDArray[np.int32]:
    if bias is None:
        return sums
    return sums + bias.codes.astype(np.int32).reshape(-1, *[1] * (sums.ndim - 2))
