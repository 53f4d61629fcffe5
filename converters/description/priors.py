"""Prior boxes as people state them, with format and variances; nothing is guessed.

A file is ``.npy``, ``.csv`` or ``.json`` with a row per box: four numbers, or eight where the variances stand behind
them, as Caffe's PriorBox layer gives them (the same in every row). A JSON object has them under ``priors``, and may
state ``format`` and ``variances`` beside them. Formats name the four numbers:

    yxhw    centre y and x, height, width (TensorFlow's Object Detection API)       yxyx    corners, y first
    xywh    centre x and y, width, height (Caffe, PyTorch)                          xyxy    corners, x first

all as fractions of the picture. Offsets are multiplied by the variances, in the order of the format.

``coco-ssd`` makes the priors of the SSD detectors in TensorFlow's Object Detection API,
``coco-ssd:layers=6,min=0.2,max=0.95`` with other numbers; ``coco-ssd-fpn``, or
``coco-ssd-fpn:first=3,last=7,scale=4,octaves=2``, those of its feature pyramids. Sources of the formulas:
``create_ssd_anchors`` of tensorflow/models (research/object_detection/anchor_generators/
multiple_grid_anchor_generator.py), after W. Liu et al., "SSD: Single Shot MultiBox Detector" (2016), 2.2, and
multiscale_grid_anchor_generator.py beside it, after T.-Y. Lin et al., "Focal Loss for Dense Object Detection" (2017),
4.
"""

from __future__ import annotations

import io
import json
import math
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from converters.description.values import MAX_BYTES, located, read_bytes
from converters.errors import OptionError, SourceFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

PriorFormat = Literal["yxhw", "xywh", "xyxy", "yxyx"]
ScoreActivation = Literal["none", "sigmoid", "softmax"]
Four = tuple[float, float, float, float]

GENERATED_VARIANCES = (0.1, 0.1, 0.2, 0.2)
MOST_BYTES = 16 * MAX_BYTES
FARTHEST = 4.0  # pictures: no prior that is a fraction of one reaches further


def require_option(option: str, value: object, literal: object) -> None:
    """Raise OptionError unless a value is None, or one of the texts of a ``Literal``."""
    if value is not None and value not in get_args(literal):
        raise OptionError(f"{option} must be one of {', '.join(get_args(literal))}, got {value!r}")


@dataclass(frozen=True, slots=True)
class PriorStatement:
    """What is stated about an SSD head; None = not stated."""

    priors: str | None = None  # a file's name, or the name of a generator with its parameters
    format: PriorFormat | None = None  # how four numbers of a prior are read
    variances: Four | None = None  # four factors of the offsets, in the order of the format; 1 each for none
    activation: ScoreActivation | None = None  # what the scores still need

    def __post_init__(self) -> None:
        require_option("--prior-format", self.format, PriorFormat)
        require_option("--score-activation", self.activation, ScoreActivation)
        if self.variances is not None:
            with located("--variances", OptionError):
                require_variances(self.variances)

    def behind(self, other: PriorStatement) -> PriorStatement:
        """This statement, and what it leaves open from another."""
        return PriorStatement(
            self.priors or other.priors,
            self.format or other.format,
            self.variances or other.variances,
            self.activation or other.activation,
        )


@dataclass(frozen=True, eq=False)
class Priors:
    """Priors that were read, float64 ``(B, 4)``; format and variances are None where nobody states them."""

    rows: NDArray[np.float64]
    format: PriorFormat | None
    variances: Four | None
    where: str


def parse_variances(text: str) -> Four:
    """Read what ``--variances`` was given: four numbers with commas between them."""
    with located(f"--variances '{text}'", OptionError, "; write them like 0.1,0.1,0.2,0.2"):
        return require_variances([float(part) for part in text.split(",")])


def require_variances(value: object) -> Four:
    """Four numbers above 0."""
    numbers = list(value) if isinstance(value, list | tuple) else []
    sound = [isinstance(n, int | float) and not isinstance(n, bool) and 1e-6 <= n <= 1e6 for n in numbers]
    if len(numbers) != 4 or not all(sound):
        raise ValueError(f"expected four numbers above 0, found {value!r}")
    a, b, c, d = map(float, numbers)
    return a, b, c, d


def read_priors(text: str, image_wh: tuple[int, int]) -> Priors:
    """Read the file of priors that ``--priors`` names, or make them by a generator for a picture of this size."""
    name, _, parameters = text.partition(":")
    if name in GENERATORS:
        generator = GENERATORS[name]
        rows = generator.make(image_wh, _parameters(text, parameters, generator))
        return Priors(rows, "yxhw", GENERATED_VARIANCES, f"--priors {text}")
    path = Path(text)
    if path.suffix not in READERS:
        raise OptionError(
            f"--priors '{text}': expected {', '.join(GENERATORS)}, or a file that ends in {', '.join(READERS)}"
        )
    where = f"priors '{path.name}'"
    data = read_bytes(path, MOST_BYTES, where)
    try:
        table, kind, variances = READERS[path.suffix](data)
        rows, beside = _checked(np.asarray(table, np.float64))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SourceFileError(f"{where}: {error}") from error
    return Priors(rows, kind, beside or variances, where)


def _checked(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], Four | None]:
    """The priors of a table, and the variances behind them; raises ValueError where it is none of priors."""
    if rows.ndim != 2 or rows.shape[1] not in (4, 8) or not len(rows):
        raise ValueError(f"expected rows of 4 numbers, or 8 with variances, found an array {list(rows.shape)}")
    farthest = float(np.abs(rows[:, :4]).max())
    if not farthest <= FARTHEST:
        raise ValueError(f"expected fractions of the picture, found {farthest:.4g}; divide pixels by its size")
    if rows.shape[1] == 4:
        return rows, None
    if (rows[:, 4:] != rows[0, 4:]).any():
        raise ValueError("expected the same variances in every row, found several")
    return rows[:, :4], require_variances(rows[0, 4:].tolist())


def _read_npy(data: bytes) -> tuple[object, None, None]:
    """An array of numbers; ``np.load`` would make room for what the header announces before it looks at the data."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_column, dtype = read(stream)
    except (SyntaxError, tokenize.TokenError) as error:  # numpy evaluates the header as a literal of Python
        raise ValueError("its header is damaged") from error
    room = len(data) - stream.tell()
    if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != room:
        raise ValueError(f"expected numbers, found {dtype} {list(shape)} in {room} bytes")
    numbers = np.frombuffer(data, dtype, offset=stream.tell())
    return numbers.reshape(shape, order="F" if by_column else "C"), None, None


def _read_csv(data: bytes) -> tuple[object, None, None]:
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    return [[float(cell) for cell in line.split(",")] for line in lines if line], None, None


def _read_json(data: bytes) -> tuple[object, PriorFormat | None, Four | None]:
    content = json.loads(data)
    if not isinstance(content, dict):
        return content, None, None
    if unknown := content.keys() - {"priors", "format", "variances"}:
        raise ValueError(f"unknown keys {', '.join(map(repr, sorted(unknown)))}; known are priors, format, variances")
    kind, variances = content.get("format"), content.get("variances")
    if kind is not None and kind not in get_args(PriorFormat):
        raise ValueError(f"format must be one of {', '.join(get_args(PriorFormat))}, found {kind!r}")
    return content.get("priors", []), kind, None if variances is None else require_variances(variances)


READERS = {".npy": _read_npy, ".csv": _read_csv, ".json": _read_json}


def _parameters(text: str, words: str, generator: Generator) -> dict[str, float]:
    parameters = dict(generator.defaults)
    for word in filter(None, words.split(",")):
        key, _, value = word.partition("=")
        try:
            parameters[key] = type(parameters[key])(value)
        except (KeyError, ValueError) as error:
            example = next(iter(parameters.items()))
            raise OptionError(
                f"--priors '{text}': expected {', '.join(parameters)} as in {example[0]}={example[1]}"
            ) from error
    if not generator.are_sound(parameters):
        raise OptionError(f"--priors '{text}': expected {generator.expected}")
    return parameters


def coco_ssd_priors(image_wh: tuple[int, int], parameters: Mapping[str, float]) -> NDArray[np.float64]:
    """Priors of TensorFlow's SSD detectors, float64 ``(B, 4)``: y, x, h, w.

    Maps at stride 16, and half the size from one to the next; three boxes a cell of the first map, six of the others.
    """
    count, low, high = int(parameters["layers"]), parameters["min"], parameters["max"]
    scales = [low + (high - low) * i / (count - 1) for i in range(count)] + [1.0]
    sides = [math.ceil(size / 16) for size in image_wh]
    shortest = min(image_wh)
    rows = []
    for layer in range(count):
        scale = scales[layer]
        shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        shapes.append((math.sqrt(scale * scales[layer + 1]), 1.0))
        if layer == 0:
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        sizes = [
            (s / math.sqrt(r) * shortest / image_wh[1], s * math.sqrt(r) * shortest / image_wh[0]) for s, r in shapes
        ]
        rows.append(_tile(sizes, sides))
        sides = [math.ceil(side / 2) for side in sides]
    return np.concatenate(rows)


def coco_ssd_fpn_priors(image_wh: tuple[int, int], parameters: Mapping[str, float]) -> NDArray[np.float64]:
    """Priors of TensorFlow's feature pyramids, float64 ``(B, 4)``: y, x, h, w.

    At level l a map of stride 2^l, its boxes by ratio and, within one, by size. The centres of a level whose stride
    does not divide the picture's side begin at 0 instead of half a stride, as there.
    """
    octave = [parameters["scale"] * 2 ** (i / parameters["octaves"]) for i in range(int(parameters["octaves"]))]
    rows = []
    for level in range(int(parameters["first"]), int(parameters["last"]) + 1):
        stride = 2**level
        shapes = [(s * stride, math.sqrt(ratio)) for ratio in (1.0, 2.0, 0.5) for s in octave]
        sizes = [(s / root / image_wh[1], s * root / image_wh[0]) for s, root in shapes]
        tiled = _tile(sizes, [math.ceil(size / stride) for size in image_wh])
        for axis, size in enumerate(reversed(image_wh)):
            offset = 0.5 if size % stride == 0 else 0.0
            cells = math.ceil(size / stride)
            tiled[:, axis] = (tiled[:, axis] * cells - 0.5 + offset) * stride / size
        rows.append(tiled)
    return np.concatenate(rows)


def _tile(sizes_hw: Sequence[tuple[float, float]], columns_rows: Sequence[int]) -> NDArray[np.float64]:
    """Boxes of these sizes in every cell, row by row: y, x, h, w."""
    columns, rows = columns_rows
    row, column = np.divmod(np.arange(rows * columns), columns)
    centers = np.stack([(row + 0.5) / rows, (column + 0.5) / columns], axis=-1)
    sizes = np.tile(np.array(sizes_hw), (len(centers), 1))
    return np.concatenate([np.repeat(centers, len(sizes_hw), axis=0), sizes], axis=-1)


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator of priors by name: its parameters, whether given ones are sound, and what messages expect of them."""

    defaults: Mapping[str, float]
    are_sound: Callable[[Mapping[str, float]], bool]
    expected: str
    make: Callable[[tuple[int, int], Mapping[str, float]], NDArray[np.float64]]


GENERATORS = {
    "coco-ssd": Generator(
        {"layers": 6, "min": 0.2, "max": 0.95},
        lambda p: 2 <= p["layers"] <= 16 and 0 < p["min"] < p["max"] <= 1,
        "2 to 16 layers, and 0 < min < max <= 1",
        coco_ssd_priors,
    ),
    "coco-ssd-fpn": Generator(
        {"first": 3, "last": 7, "scale": 4.0, "octaves": 2},
        lambda p: 1 <= p["first"] <= p["last"] <= 10 and 0 < p["scale"] <= 64 and 1 <= p["octaves"] <= 8,
        "1 <= first <= last <= 10, a scale above 0 and up to 64, 1 to 8 octaves",
        coco_ssd_fpn_priors,
    ),
}
