"""What a comparison layer by layer needs of a source, and what it finds: distances in codes, or in real numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray


Unit = Literal["LSB", "of the largest value"]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two tensors are apart: in codes, or, of real numbers, in the unit of the comparison."""

    # values that are not equal; of real numbers those that are not the same float32, or nearest code
    differing: int = 0
    values: int = 0  # all of them
    worst: float = 0  # the largest difference; whole where both tensors hold codes
    total: float = 0  # the sum of all differences, likewise

    @classmethod
    def of_codes(cls, a: NDArray[Any], b: NDArray[Any]) -> Distance:
        """The distance of two integer arrays of one shape."""
        steps = np.abs(a.astype(np.int64) - b)
        return cls(int(np.count_nonzero(steps)), steps.size, int(steps.max(initial=0)), int(steps.sum()))

    @classmethod
    def of_reals(cls, a: NDArray[Any], b: NDArray[Any], *, unit: float, differing: int) -> Distance:
        """The distance of two arrays of one shape, in ``unit``; a value that is no number is infinitely far."""
        steps = np.abs(a.astype(np.float64) - b) / unit
        steps = np.where(np.isnan(steps), np.inf, steps)
        return cls(differing, steps.size, float(steps.max(initial=0.0)), float(steps.sum()))

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.total / max(self.values, 1)

    def joined(self, other: Distance) -> Distance:
        """Over the values of both."""
        counts = self.differing + other.differing, self.values + other.values
        return Distance(*counts, max(self.worst, other.worst), self.total + other.total)


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One tensor of a source and its twin; distances as ``xdet.checking.layers`` defines them."""

    tensor: str  # name in the source
    operator: str  # what computes it, such as ``"CONV_2D"`` or ``"Conv2D"``; ``"input"`` for the picture
    onnx: str  # name of its twin
    accumulated: Distance  # of ONNX Runtime from the source
    local: Distance  # of the graph from the source, given the source's values in front of the layer
    # of ONNX Runtime from exact integers, given its own in front of the layer; None for float models
    kernel: Distance | None
    # what ``local`` may be: of codes 0 where the translation is exact, else 1 (docs/operators.md); None where it is a
    # measured cost and no fault
    local_bound: float | None
    kernel_bound: int | None  # what ``kernel`` may be: 0, or 1 behind float32 arithmetic and with int8 activations
    in_codes: bool  # whether ``accumulated`` and ``local`` are those of codes on both sides

    @property
    def is_mistranslated(self) -> bool:
        """Whether the graph computes something else than the source here."""
        return self.local_bound is not None and self.local.worst > self.local_bound

    @property
    def is_misrun(self) -> bool:
        """Whether the runtime computes something else than the graph here."""
        return self.kernel is not None and self.kernel_bound is not None and self.kernel.worst > self.kernel_bound

    @property
    def is_at_fault(self) -> bool:
        """Whether one of the two distances exceeds its bound."""
        return self.is_mistranslated or self.is_misrun


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """All layers, in the source's order."""

    layers: tuple[LayerResult, ...]  # those that exist on both sides
    # source tensors that no value carries any more -> the pass that removed or rearranged them
    absent: Mapping[str, str] = field(default_factory=dict)
    fused_differs: int = 0  # values of the head in which the fused run and the one that shows inner values differ
    unit: Unit = "LSB"  # of ``accumulated`` and ``local``: codes of each tensor, or fractions of its largest magnitude

    @property
    def first_fault(self) -> LayerResult | None:
        """The first layer whose local or kernel distance exceeds its bound."""
        return next((layer for layer in self.layers if layer.is_at_fault), None)
