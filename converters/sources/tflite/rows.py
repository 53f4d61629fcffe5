"""What a row of the table of TFLite operators holds (``operators``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.reader import TfliteModel, TfliteOperator

Shape = tuple[int, ...]
Handler = Callable[[ImportContext, TfliteOperator], None]
Kernel = Literal["XNNPACK", "built-in", "either", "-"]
StepKind = Literal["convolution", "pool", "elementwise", "other"]


@dataclass(frozen=True, slots=True)
class Signature:
    """The frame of an operator.

    Attributes:
        inputs: smallest and largest number of operands.
        outputs: smallest and largest number of results.
        optional: positions of operands that may be absent.
        ranks: rank by operand position, where it matters.
        positive: options that must be above 0.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int] = (1, 1)
    optional: tuple[int, ...] = ()
    ranks: tuple[tuple[int, int], ...] = ()
    positive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which an operator is translated: a line of docs/operators.md.

    Attributes:
        onnx: what is written.
        kernel: which of LiteRT's kernels runs.
        bound_lsb: the largest distance of a code from LiteRT's; 0 is exact.
        remark: why it is not exact, or what else is worth knowing.
        when: the case in words; empty for the usual one.
        applies: whether an operator is a case of this kind.
    """

    onnx: str
    kernel: Kernel
    bound_lsb: int = 0
    remark: str = ""
    when: str = ""
    applies: Callable[[TfliteModel, TfliteOperator], bool] = lambda _model, _op: False


ON_FLOATS = Case("the same operator, without pairs", "either", 1, "float32 sums have an order", "on float32")
"""The case of every operator that only computes on float32 numbers."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a product.

    Attributes:
        scale_axis: the axis of the output channels, along which there may be a scale each.
        fit: input and weight shapes -> whether they fit, and the number of output channels.
    """

    scale_axis: int
    fit: Callable[[Shape, Shape], tuple[bool, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """All about one operator.

    Attributes:
        handler: translates it.
        signature: what its records must look like before a handler reads them.
        cases: the usual translation first, then the special ones; the first special one that applies holds.
        step: what kind of step it is for memory.
        constants: operands that are held as weights where they are constant; others are parameters.
        weights: of a product; None for other operators.
        moves: it moves codes unchanged, whatever the scale of its output: LiteRT's kernel does not look at it.
        moves_floats: it only moves float32 numbers.
        codes_as_numbers: operands whose codes are taken as numbers, or not at all, so that they need no scale.
        keeps_scale: its output must have the scale and zero-point of its input: LiteRT refuses any other.
        floats_only: it is translated on float32 alone.
        ties: ``--leaky-relu float`` leaves out what makes ties fall as LiteRT's, and gives 1 LSB away.
    """

    handler: Handler
    signature: Signature
    cases: tuple[Case, ...]
    step: StepKind = "other"
    constants: tuple[int, ...] = ()
    weights: Weights | None = None
    moves: bool = False
    moves_floats: bool = False
    codes_as_numbers: tuple[int, ...] = ()
    keeps_scale: bool = False
    floats_only: bool = False
    ties: bool = False

    def case_of(self, model: TfliteModel, op: TfliteOperator) -> Case:
        """The case that holds for an operator of a model whose operators are sound."""
        first = next((i for i in op.inputs if model.tensors[i].dtype not in ("int32", "int64")), op.inputs[0])
        ends = {model.tensors[index].dtype for index in (first, *op.outputs)}
        if ends == {"float32"} and not (self.moves or self.moves_floats or self.floats_only):
            return ON_FLOATS
        return next((case for case in self.cases[1:] if case.applies(model, op)), self.cases[0])
