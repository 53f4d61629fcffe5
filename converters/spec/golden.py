"""A golden vector: the head of one picture that can be computed anywhere (see ``converters.integer.golden``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from converters.checks import require_count, require_fields, require_instance, require_number, require_text

SHA256 = re.compile(r"[0-9a-f]{64}")


def _require_quantisation(part: GoldenPart | GoldenVector) -> None:
    if require_number(part.scale, "golden scale") <= 0:
        raise ValueError(f"golden scale must be above 0, got {part.scale!r}")
    require_count(part.zero_point, "golden zero_point", low=0, high=255)


@dataclass(frozen=True, slots=True)
class GoldenPart:
    """Where the next of several raw outputs begins, and how its codes are read.

    Attributes:
        start: its first value in the head, which holds the raw outputs flattened side by side.
        scale: float32 scale; ``real = scale * (code - zero_point)``.
        zero_point: in uint8 form.
    """

    start: int
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        require_count(self.start, "golden start")
        _require_quantisation(self)


@dataclass(frozen=True, slots=True)
class GoldenVector:
    """The head's codes for a picture made from a seed, as exact integer kernels give them.

    Attributes:
        generator: version of the recipe that makes the picture.
        seed: what the recipe starts from.
        codes: base64 of uint8 codes: every ``stride``-th of the head flattened as row, column, channel.
        stride: 1 where every code is stored; more where the whole would take over 2 % of the file.
        sha256: hex digest of all codes, stored or not.
        scale: float32 scale of the head, or of its first raw output; ``real = scale * (code - zero_point)``.
        zero_point: its zero-point in uint8 form.
        bound_lsb: how far, in codes, a runtime with exact integer kernels may be: 0 unless the model has operators
            whose last float32 bit is each runtime's own.
        other_kernels_lsb: how far a runtime may be whose kernels round in another way, as LiteRT's own do among each
            other.
        further: the second and further raw outputs, where there are several.
    """

    generator: int
    seed: int
    codes: str
    stride: int
    sha256: str
    scale: float
    zero_point: int
    bound_lsb: int
    other_kernels_lsb: int
    further: tuple[GoldenPart, ...] = ()

    def __post_init__(self) -> None:
        require_fields(self, require_count, "generator", "stride", of="golden")
        require_fields(self, partial(require_count, low=0), "seed", "bound_lsb", "other_kernels_lsb", of="golden")
        require_text(self.codes, "golden codes")
        if not SHA256.fullmatch(require_text(self.sha256, "golden sha256")):
            raise ValueError(f"golden sha256 must be 64 hex digits, got {self.sha256!r}")
        _require_quantisation(self)
        for part in self.further:
            require_instance(part, GoldenPart, "further golden output")
        starts = [part.start for part in self.further]
        if starts != sorted(set(starts)):
            raise ValueError(f"further golden outputs must begin one behind the other, got {starts}")
