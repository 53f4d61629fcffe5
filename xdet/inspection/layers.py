"""What inspection finds, as frozen records: a file at a glance, its layers, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.spec import DetectorSpec, ModelDocument
    from xdet.inspection.coverage import Coverage, TwoScales


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """An input or output of a model or of a layer.

    Attributes:
        name: its name in the file.
        dtype: numpy's name of its element type.
        shape: sizes; a text is a dimension that the caller chooses.
        scale: quantisation scale, None where the tensor is not quantised.
        zero_point: quantisation zero-point, None where the tensor is not quantised.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator in the file's order. In ONNX files Q and DQ nodes around an operator belong to it.

    Attributes:
        op: the operator as the format calls it.
        inputs: shapes of what it reads, constants left out.
        output: its (first) output.
        macs: multiply-accumulates for one image: of convolutions and matrix products; 0 for all others.
        parameters: numbers the file holds for it: weights and biases.
        weight_bytes: their bytes as stored, without scales and zero-points.
        weight_scales: how many scales its weights have: 0 for float, 1 per tensor, else one per channel.
        activation_bytes: bytes of all its outputs for one image.
        integer: whether it computes on integer codes, as the file states it.
    """

    op: str
    inputs: tuple[tuple[int, ...], ...]
    output: TensorSummary
    macs: int
    parameters: int
    weight_bytes: int
    weight_scales: int
    activation_bytes: int
    integer: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """What a network costs for one image; docs/inspect.md defines each number.

    Attributes:
        macs: multiply-accumulates of its convolutions and matrix products.
        macs_integer: those of them on integer codes, as the file states it.
        parameters: weights and biases.
        weight_bytes: their bytes, as flash would hold them.
        peak_plain_bytes: peak of live activations, a buffer per tensor, the file's order.
        peak_best_bytes: the least peak with in-place operators and convolutions fused with pools.
        best_is_exact: whether that least peak is over all orders; else over the file's order only.
    """

    macs: int
    macs_integer: int
    parameters: int
    weight_bytes: int
    peak_plain_bytes: int
    peak_best_bytes: int
    best_is_exact: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model file at a glance.

    Attributes:
        file: its name.
        format: ``"tflite"``, ``"h5"``, ``"keras"`` or ``"onnx"``.
        size_bytes: size of the file.
        sha256: hex digest of its bytes.
        producer: the program that wrote it, in its own words.
        inputs: what the caller feeds.
        outputs: what the caller reads.
        operators: operator -> how many.
        quantization: summary, such as ``"int8 per-channel"``; None where the file does not say.
        spec: the detector, None where the file and its sidecar do not describe one.
        problem: why there is no spec.
        stated_by: of a source: fact of ``spec`` -> who states it, ``"assumed"`` where nobody does.
        notes: of a source: what its metadata state, and where they contradict somebody else.
        refused: why other commands refuse the file: operators or a graph that they do not take; None where they take
            it.
        document: the metadata of a finished model of ours.
        two_scales: quantised tensors that are read with another scale than they were written with.
        totals: what the network costs; None where ``totals_problem`` says why it is not known.
        totals_problem: see ``totals``.
        coverage: for ONNX files: the share that really runs in integers on ONNX Runtime's CPU provider; else None.
        coverage_problem: why an ONNX file's coverage is not known.
        layers: the operators one by one, where they were asked for.
    """

    file: str
    format: str
    size_bytes: int
    sha256: str
    producer: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: dict[str, int]
    quantization: str | None
    spec: DetectorSpec | None
    problem: str | None
    stated_by: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: str | None = None
    document: ModelDocument | None = None
    two_scales: tuple[TwoScales, ...] = ()
    totals: Totals | None = None
    totals_problem: str | None = None
    coverage: Coverage | None = None
    coverage_problem: str | None = None
    layers: tuple[Layer, ...] = ()
