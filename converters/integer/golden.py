"""Golden vectors: a picture that is computed from a seed, and the head's codes that exact integer kernels give for it.

The picture is not stored. ``golden_image`` computes it in integers alone (splitmix64 of the position, no
library's generator), so it is the same on every platform and version of numpy. It is built to reach what photographs
reach, and what they do not:

* smooth patches of several sizes, stretched until they saturate at 0 and 255: activations of both signs on every scale;
* flat rectangles on top: edges;
* a quarter of black and white noise: pairs of products beyond 16 bits, which saturating kernels get wrong;
* a quarter of plain noise: every code.

Codes are those of uint8 activations; codes of int8 models are shifted by 128, so both dialects of a source share one
vector.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import GoldenPart, GoldenVector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GENERATOR = 1  # raise it with any change to the picture
SEED = 0x78646574  # "xdet"
NO_VECTOR = "no golden vector for xdet selftest: "  # a document's note says why behind it
LEAST_VALUES = 64  # that many codes are stored however small the file
SHARE = 0.02  # of the constants' bytes, at most, in base64
CELLS = (64, 32, 16, 8, 4)  # pixels per smooth patch, coarse to fine
RECTANGLES = 12

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def golden_image(height: int, width: int, seed: int = SEED, *, channels: int = 3) -> NDArray[np.uint8]:
    """The picture, uint8 ``(1, height, width, channels)``, by its arguments alone; a grey one is its first channel.

    Example:
        >>> golden_image(192, 192)[:, :1, :1].tolist()
        [[[[103, 52, 229]]]]
    """
    picture = _smooth(height, width, seed)
    _draw_rectangles(picture, seed + 1)
    noise = _random_bytes(height * width * 3, seed + 2).reshape(height, width, 3)
    rows, columns = slice(height // 2, None), slice(width // 2, None)
    picture[: height // 2, columns] = np.where(noise[: height // 2, columns] < 128, 0, 255)
    picture[rows, columns] = noise[rows, columns]
    return picture[None, ..., :channels]


def random_words(count: int, seed: int) -> NDArray[np.uint64]:
    """uint64 ``(count,)``: splitmix64's first outputs from ``seed``, each computed from its position alone.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state = np.full(count, seed, np.uint64) + np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    state = (state ^ (state >> np.uint64(30))) * _MIXERS[0]
    state = (state ^ (state >> np.uint64(27))) * _MIXERS[1]
    return np.asarray(state ^ (state >> np.uint64(31)))


def _random_bytes(count: int, seed: int) -> NDArray[np.uint8]:
    """uint8 ``(count,)``: the highest byte of each word."""
    return (random_words(count, seed) >> np.uint64(56)).astype(np.uint8)


def _smooth(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Random values on grids of several cell sizes, interpolated and added, uint8 ``(height, width, 3)``."""
    total = np.zeros((height, width, 3), np.int32)
    for octave, cell in enumerate(CELLS):
        rows, columns = height // cell + 2, width // cell + 2
        grid = _random_bytes(rows * columns * 3, seed + 16 * (octave + 1)).reshape(rows, columns, 3)
        lines = _interpolated(grid.astype(np.int32) - 128, height, cell, axis=0)
        patch = _interpolated(lines, width, cell, axis=1)
        total += patch >> (2 * (cell.bit_length() - 1) + octave)  # by cell * cell, a power of two; finer is fainter
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def _interpolated(grid: NDArray[np.int32], size: int, cell: int, *, axis: int) -> NDArray[np.int32]:
    """Linear interpolation along an axis, times ``cell``, in integers: at most 2^19 for bytes along two axes."""
    index, part = np.divmod(np.arange(size, dtype=np.int32), np.int32(cell))
    lines = np.diff(grid, axis=axis).take(index, axis)
    lines *= part.reshape([-1 if each == axis else 1 for each in range(grid.ndim)])
    lines += (grid * cell).take(index, axis)
    return np.asarray(lines)


def _draw_rectangles(picture: NDArray[np.uint8], seed: int) -> None:
    """Flat rectangles of up to a third of the picture, in place."""
    height, width = picture.shape[:2]
    words = random_words(RECTANGLES * 5, seed).reshape(RECTANGLES, 5)
    for top, left, rows, columns, colour in words.tolist():
        y, x = top % height, left % width
        box = picture[y : y + 2 + rows % (height // 3 + 1), x : x + 2 + columns % (width // 3 + 1)]
        box[...] = [colour & 255, colour >> 8 & 255, colour >> 16 & 255]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a head compares with a golden vector."""

    exact: bool  # every value is the golden code's real, bit for bit
    differing: int  # compared values that are not; at least 1 where ``exact`` is False
    compared: int  # values that were compared one by one (all, unless the vector holds a selection)
    # the largest difference in codes; a fraction where the head does not lie on the codes' lattice, infinite where a
    # value is no number
    worst_lsb: float
    off_lattice: int  # values that are no code's real: the runtime did not quantise the head, or another scale was used


@dataclass(frozen=True, eq=False, slots=True)
class RawCodes:
    """One raw output of a network for the golden picture."""

    codes: NDArray[np.uint8]  # uint8, of one image
    scale: np.float32
    zero_point: int  # in uint8 form


def make_vector(
    outputs: Sequence[RawCodes], *, room_bytes: int, bound_lsb: int, other_kernels_lsb: int
) -> GoldenVector:
    """Store a head's codes, in a share of the room that the model's constants take."""
    flat = np.concatenate([output.codes.reshape(-1) for output in outputs])
    channels = math.lcm(*(output.codes.shape[-1] for output in outputs if output.codes.ndim))
    starts = np.cumsum([output.codes.size for output in outputs]).tolist()
    room = max(LEAST_VALUES, int(room_bytes * SHARE * 3 / 4))
    stride = -(-flat.size // room)
    while math.gcd(stride, channels) != 1:  # so that a selection holds every channel
        stride += 1
    return GoldenVector(
        generator=GENERATOR,
        seed=SEED,
        codes=base64.b64encode(flat[::stride].tobytes()).decode("ascii"),
        stride=stride,
        sha256=hashlib.sha256(flat.tobytes()).hexdigest(),
        scale=float(outputs[0].scale),
        zero_point=outputs[0].zero_point,
        bound_lsb=bound_lsb,
        other_kernels_lsb=other_kernels_lsb,
        further=tuple(
            GoldenPart(start, float(output.scale), output.zero_point)
            for start, output in zip(starts, outputs[1:], strict=False)
        ),
    )


def stored_codes(vector: GoldenVector) -> NDArray[np.uint8]:
    """The codes that a vector holds, uint8 ``(n,)``: every ``stride``-th of the flattened head.

    Raises:
        ValueError: no base64.
    """
    return np.frombuffer(base64.b64decode(vector.codes, validate=True), np.uint8)


def compare_head(head: NDArray[np.float32], vector: GoldenVector) -> Agreement:
    """Compare a raw head, float32 of any shape (``Runtime.head``), with the vector of its picture.

    Raises:
        ValueError: the vector belongs to a head of another size.
    """
    flat, golden = head.reshape(-1), stored_codes(vector).astype(np.int64)
    if golden.size != -(-flat.size // vector.stride):
        raise ValueError(
            f"{golden.size} golden codes, every {vector.stride}th, do not fit a head of {flat.size} values"
        )
    scale, zero_point = np.full(flat.size, vector.scale, np.float32), np.full(flat.size, vector.zero_point, np.int32)
    for part in vector.further:
        scale[part.start :], zero_point[part.start :] = part.scale, part.zero_point
    steps = flat.astype(np.float64) / scale + zero_point
    codes = np.clip(np.rint(np.nan_to_num(steps)), 0, 255).astype(np.uint8)
    on_lattice = (codes.astype(np.int32) - zero_point).astype(np.float32) * scale == flat
    same = hashlib.sha256(codes.tobytes()).hexdigest() == vector.sha256
    exact = bool(on_lattice.all()) and same
    picked = slice(None, None, vector.stride)
    distances = np.abs(np.where(on_lattice, codes, steps)[picked] - golden)
    differing = int(((distances != 0) | ~on_lattice[picked]).sum())
    return Agreement(
        exact=exact,
        differing=0 if exact else max(1, differing),
        compared=golden.size,
        worst_lsb=float(np.where(np.isnan(distances), np.inf, distances).max(initial=0)),
        off_lattice=int((~on_lattice).sum()),
    )
