"""What inspection finds, as frozen records: a file at a glance, its layers, and what they cost."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdet.inspection.memory import Buffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.spec import DetectorSpec, ModelDocument
    from xdet.inspection.coverage import Coverage, TwoScales


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """An input or output of a model or of a layer."""

    name: str
    dtype: str  # numpy's name of its element type
    shape: tuple[int | str, ...]  # a text is a dimension that the caller chooses
    scale: float | None = None  # None where the tensor is not quantised, or has several
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator in the file's order. In ONNX files Q and DQ nodes around an operator belong to it."""

    op: str  # as the format calls it
    inputs: tuple[tuple[int, ...], ...]  # shapes of what it reads, constants left out
    output: TensorSummary  # the first one
    macs: int  # multiply-accumulates for one image: of convolutions and matrix products; 0 for all others
    parameters: int  # numbers the file holds for it: weights and biases
    weight_bytes: int  # their bytes as stored, without scales and zero-points
    weight_scales: int  # how many scales its weights have: 0 for float, 1 per tensor, else one per channel
    activation_bytes: int  # bytes of all its outputs for one image
    integer: bool  # whether it computes on integer codes, as the file states it


@dataclass(frozen=True, slots=True)
class Totals:
    """What a network costs for one image; docs/inspect.md defines each number."""

    macs: int  # of its convolutions and matrix products
    macs_integer: int  # those of them on integer codes, as the file states it
    parameters: int  # weights and biases
    weight_bytes: int  # as flash would hold them
    peak_plain_bytes: int  # peak of live activations, a buffer per tensor, the file's order
    peak_best_bytes: int  # the least peak with in-place operators and convolutions fused with pools
    best_is_exact: bool  # whether that least peak is over all orders; else over the file's order only


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model file at a glance."""

    file: str
    format: str  # "tflite", "h5", "keras", "onnx" (finished), "onnx-source"
    size_bytes: int
    sha256: str  # of its bytes, hex digits
    producer: str  # the program that wrote it, in its own words
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: dict[str, int]  # operator -> how many
    quantization: str | None  # such as "int8 per-channel"; None where the file does not say
    spec: DetectorSpec | None  # None where the file and its sidecar do not describe a detector
    problem: str | None  # why there is no spec
    stated_by: Mapping[str, str] = field(
        default_factory=dict
    )  # of a source: fact of spec -> who states it, or "assumed"
    notes: tuple[str, ...] = ()  # of a source: what its metadata state, and where they contradict somebody else
    refused: str | None = None  # why other commands do not take the file: its operators, or its graph
    document: ModelDocument | None = None  # the metadata of a finished model of ours
    two_scales: tuple[TwoScales, ...] = ()  # tensors that are read with another scale than they were written with
    totals: Totals | None = None  # None where totals_problem says why they are not known
    totals_problem: str | None = None
    coverage: Coverage | None = None  # of ONNX files: the share that runs in integers on ONNX Runtime's CPU provider
    coverage_problem: str | None = None  # why an ONNX file's coverage is not known
    layers: tuple[Layer, ...] = ()  # where they were asked for


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    """A tensor's bytes; elements below a byte are packed, those without a fixed size (strings) count nothing."""
    digits = re.match(r"(?:u?int|b?float|complex)(\d+)", dtype)
    bits = 8 if dtype == "bool" else int(digits[1]) if digits else 0
    return (math.prod(shape) * bits + 7) // 8


def picture_buffer(shape: Sequence[int], size_bytes: int, *, rows_axis: int) -> Buffer:
    """A tensor as memory sees it; one of four axes is a picture, whose rows are one of them."""
    rows = shape[rows_axis] if len(shape) == 4 else 1
    return Buffer(size_bytes, size_bytes // (rows or 1))
