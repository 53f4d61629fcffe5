"""What a strided stem must hold (pass ``strided stem``), derived here from its description, not by the pass that wrote it.

The picture is read in groups of four pixels, and one position computes two neighbouring columns of the source's result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STRIDED_STEM = "strided stem"
PIXELS = 4  # of a group
COPIES = 2  # of the kernel: two columns, two pixels apart


def strided_kernel(kernel: NDArray[Any], left: int) -> NDArray[Any]:
    """The weights, built place by place.

    Args:
        kernel: ``(O, C, kh, kw)``, OIHW.
        left: padding of the source's convolution.

    Returns:
        ``(2 * O, 4 * C, kh, groups)``. Output channel ``column * O + o`` computes every second column from ``column`` on; input
        channel ``pixel * C + c`` of kernel column ``group`` is picture column ``(group - front) * 4 + pixel``, where ``front``
        is the number of groups of padding.
    """
    channels, depth, height, width = kernel.shape
    front, behind = group_padding(width, left)
    shape = (COPIES * channels, PIXELS * depth, height, front + 1 + behind)
    wide = np.zeros(shape, kernel.dtype)
    for column in range(COPIES):
        rows = slice(column * channels, (column + 1) * channels)
        for x in range(width):
            group, pixel = divmod(front * PIXELS + 2 * column + x - left, PIXELS)
            wide[rows, pixel * depth : (pixel + 1) * depth, :, group] = kernel[:, :, :, x]
    return wide


def group_padding(kernel_width: int, left: int) -> tuple[int, int]:
    """Groups of padding in front of a row and behind it."""
    last = (
        2 - left + kernel_width - 1
    )  # the last picture column that the second of the first two results reads
    return -(-left // PIXELS), last // PIXELS


def strided_attributes(attributes: Mapping[str, Any], kernel_width: int) -> dict[str, Any]:
    """What the source's strides and padding become."""
    top, left, bottom, _ = attributes["pads"]
    front, behind = group_padding(kernel_width, left)
    return {**attributes, "strides": (attributes["strides"][0], 1), "pads": (top, front, bottom, behind)}


def is_strided(kernel: tuple[int, ...], found: tuple[int, ...], channels: int) -> bool:
    """Whether weights of shape ``found`` may be a strided stem of a kernel's shape with so many output channels."""
    return kernel[1] < PIXELS and found[:2] == (COPIES * channels, PIXELS * kernel[1])
