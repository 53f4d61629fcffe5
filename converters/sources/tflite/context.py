"""The state of one import: source tensors and the ONNX values that carry them.

Two invariants hold for every value that is registered here:

* A quantised tensor is carried as integer codes of the chosen dialect. ``float_of`` gives a consumer its own
  DequantizeLinear, ``define_quantized`` closes an operator with exactly one QuantizeLinear.
* A rank-4 activation lives in NCHW; every other rank lives as in the source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import OptionError, SourceFileError, UnsupportedModelError
from converters.graph import NCHW_TO_NHWC, NHWC_TO_NCHW, dequantize_node, quantize_node
from converters.spec import CONTRACT_NAMES, Deviation, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.graph import GraphWriter
    from converters.options import Activations, Rounding
    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor
    from converters.spec import Arithmetic, DeviationKind


@dataclass
class ImportContext:
    """What handlers read from and write to.

    Attributes:
        model: the source.
        writer: the ONNX graph under construction.
        activations: dtype of activation codes in the graph.
        rounding: ``"litert"``: ties and tables of LiteRT's kernels, at the price of a second scale for some tensors;
            ``"real"``: the real functions.
        batch: images per call, or a name where that is left open.
        arithmetic: what is written where no fused operator has LiteRT's codes: integers step by step, or the fused
            operator.
        values: source tensor index -> ONNX value (codes, or float for unquantised tensors).
        constants: source tensor index -> array in the source's layout, for constants and folded shape arithmetic.
        twins: source tensor name -> where it lives in the ONNX graph.
        notes: what is worth telling the user.
        deviations: every number that is written unlike the source's.
        names: a unique name per source tensor: its own, or ``tensor_7`` where it has none, or ``conv#7`` where it is
            taken (the contract's names are).
    """

    model: TfliteModel
    writer: GraphWriter
    activations: Activations
    rounding: Rounding
    batch: int | str = 1
    arithmetic: Arithmetic = "litert"
    values: dict[int, ir.Value] = field(default_factory=dict)
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)
    twins: dict[str, TensorTwin] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        seen = set(CONTRACT_NAMES)
        names = []
        for tensor in self.model.tensors:
            name = tensor.name or f"tensor_{tensor.index}"
            names.append(f"{name}#{tensor.index}" if name in seen else name)
            seen.add(names[-1])
        self.names = tuple(names)

    # -- reading ------------------------------------------------------------------------------------------------

    def tensor(self, index: int) -> TfliteTensor:
        """The source tensor with this index."""
        return self.model.tensors[index]

    def constant_of(self, op: TfliteOperator, position: int) -> NDArray[Any]:
        """The constant value of an operand, in the source's layout.

        Raises:
            UnsupportedModelError: the operand is computed at run time.
        """
        index = op.inputs[position]
        if index not in self.constants:
            msg = (
                f"{self.model.file}: {describe(self, op)} needs a constant as operand {position}, "
                f"but tensor {self.tensor(index).name!r} is computed at run time"
            )
            raise UnsupportedModelError(msg)
        return self.constants[index]

    def is_quantized(self, index: int) -> bool:
        """Whether the tensor holds 8-bit codes."""
        return self.tensor(index).dtype in ("int8", "uint8")

    def params(self, index: int) -> QuantParams:
        """Quantisation of a tensor as the graph's dialect stores it.

        Raises:
            UnsupportedModelError: the tensor has 8-bit codes and no scale, or one per channel.
        """
        tensor = self.tensor(index)
        scales = 0 if tensor.quant is None else tensor.quant.scale.size
        if tensor.quant is None or scales != 1:
            msg = (
                f"{self.model.file}: tensor {tensor.name!r} is {tensor.dtype} with {scales} scales, expected 1; "
                "quantise activations per tensor"
            )
            raise UnsupportedModelError(msg)
        return tensor.quant.shifted(self.shift(index))

    def shift(self, index: int) -> int:
        """What turns the source's codes into the dialect's: +128, -128 or 0."""
        source = self.tensor(index).dtype
        if source == self.activations:
            return 0
        return 128 if self.activations == "uint8" else -128

    @property
    def match_litert(self) -> bool:
        """Whether rounding follows LiteRT's kernels."""
        return self.rounding == "litert"

    @property
    def code_dtype(self) -> type[np.uint8] | type[np.int8]:
        """The numpy dtype of activation codes."""
        return np.uint8 if self.activations == "uint8" else np.int8

    # -- layout -------------------------------------------------------------------------------------------------

    def axis(self, index: int, axis: int) -> int:
        """Where source axis ``axis`` (0 .. rank - 1) of tensor ``index`` is in the graph.

        Raises:
            OptionError: it is the axis of a batch, along which the images would be mixed.
        """
        tensor = self.tensor(index)
        if axis == 0 and self.batch != 1:
            msg = (
                f"{self.model.file}: an operator works along the first axis of tensor {tensor.name!r} {list(tensor.shape)}, "
                f"so the model takes one image per call; convert it with --batch 1, found {self.batch}"
            )
            raise OptionError(msg)
        return NHWC_TO_NCHW.index(axis) if len(tensor.shape) == 4 else axis

    def source_axis(self, op: TfliteOperator, index: int, axis: int) -> int:
        """An operator's axis option for tensor ``index``, counted from the front.

        Raises:
            SourceFileError: the tensor has no such axis.
        """
        rank = len(self.tensor(index).shape)
        if not -rank <= axis < rank:
            msg = f"{self.model.file}: {describe(self, op)} works along axis {axis} of a tensor with {rank} axes"
            raise SourceFileError(msg)
        return axis % rank

    def to_source_layout(self, value: ir.Value, rank: int, name: str) -> ir.Value:
        """NCHW -> NHWC for rank 4, nothing otherwise."""
        return self.writer.op("Transpose", [value], name, perm=list(NCHW_TO_NHWC)) if rank == 4 else value

    def from_source_layout(self, value: ir.Value, rank: int, name: str) -> ir.Value:
        """NHWC -> NCHW for rank 4, nothing otherwise."""
        return self.writer.op("Transpose", [value], name, perm=list(NHWC_TO_NCHW)) if rank == 4 else value

    # -- values -------------------------------------------------------------------------------------------------

    def codes_of(self, index: int) -> ir.Value:
        """The value that carries a tensor: codes in the dialect where it is quantised; constants become initialisers."""
        if index not in self.values:
            self.define(index, self._constant_value(index))
        return self.values[index]

    def _constant_value(self, index: int) -> ir.Value:
        array = self.constants[index]
        if array.ndim == 4:
            array = array.transpose(NHWC_TO_NCHW)
        if self.is_quantized(index):
            array = (array.astype(np.int16) + self.shift(index)).astype(self.code_dtype)
        return self.writer.constant(array, self.names[index])

    def float_of(self, index: int) -> ir.Value:
        """The real value of a tensor for one consumer: a DequantizeLinear of its own; float tensors pass through.

        Raises:
            UnsupportedModelError: the tensor holds neither codes nor float32.
        """
        if self.is_quantized(index):
            return self._dequantized(index, self.params(index))
        self._require_float(index)
        return self.codes_of(index)

    def adjusted_float_of(
        self, index: int, params: QuantParams, target: int, *, codes: ir.Value | None = None
    ) -> ir.Value:
        """The codes of a tensor, dequantised by other numbers than its own for the operator that writes ``target``.

        See ``converters.leaky``, ``converters.integer.pair_search`` and ``ops.pivot`` for why; every number that
        differs is told as a
        deviation.

        Args:
            index: the source tensor.
            params: the numbers to write.
            target: output tensor of the operator that reads the result.
            codes: the tensor's codes in another shape; None: as they are.
        """
        self._tell_adjusted(index, params, target)
        return self._dequantized(index, params, codes)

    def moved_float_of(self, index: int, target: int) -> ir.Value:
        """``float_of`` for an operator that only moves codes to tensor ``target``: LiteRT's kernels never look at its scale."""
        kinds = self.tensor(index).dtype, self.tensor(target).dtype
        if not self.is_quantized(index) or kinds[0] != kinds[1]:
            return self.float_of(index)
        return self.adjusted_float_of(index, self.params(target), target)

    def _dequantized(self, index: int, params: QuantParams, codes: ir.Value | None = None) -> ir.Value:
        codes = self.codes_of(index) if codes is None else codes
        return dequantize_node(self.writer, codes, params, self.code_dtype, f"{self.names[index]}/dequantized")

    def _require_float(self, index: int) -> None:
        tensor = self.tensor(index)
        if tensor.dtype != "float32":
            msg = (
                f"{self.model.file}: tensor {tensor.name!r} holds {tensor.dtype} numbers where an activation is expected; "
                "8-bit codes and float32 are supported"
            )
            raise UnsupportedModelError(msg)

    def define(self, index: int, value: ir.Value) -> None:
        """Register ``value`` (codes in the dialect, graph layout) as the carrier of a source tensor."""
        tensor = self.tensor(index)
        self.values[index] = value
        if value.name is not None and index not in self.constants:
            layout = "NHWC->NCHW" if len(tensor.shape) == 4 else "same"
            shift = self.shift(index) if self.is_quantized(index) else 0
            self.twins[self.names[index]] = TensorTwin(value.name, layout, shift)

    def define_quantized(self, index: int, real: ir.Value, params: QuantParams | None = None) -> None:
        """Close an operator: quantise its real result to the codes of output tensor ``index``, by ``params`` or its own."""
        self.define(index, self.quantized(index, real, params or self.params(index), self.names[index]))

    def quantized(self, index: int, real: ir.Value, params: QuantParams, name: str) -> ir.Value:
        """A QuantizeLinear towards tensor ``index`` by ``params``; every number that is not the tensor's is told."""
        self._tell_adjusted(index, params, index)
        return quantize_node(self.writer, real, params, self.code_dtype, name)

    def tell(self, index: int, target: int, kind: DeviationKind, numbers: tuple[float, float] | None = None) -> None:
        """Record a number that is not the source's.

        Args:
            index: the tensor to which it belongs.
            target: the output tensor of the operator in whose translation it stands.
            kind: what the number is.
            numbers: (the source's, the graph's); None for a table.
        """
        source, written = (None, None) if numbers is None else numbers
        deviation = Deviation(self.names[index], self.names[target], kind, source, written)
        if source != written or numbers is None:
            self.deviations.append(deviation)

    def _tell_adjusted(self, index: int, params: QuantParams, target: int) -> None:
        own = self.params(index)
        self.tell(index, target, "scale", (float(own.scalar_scale), float(params.scalar_scale)))
        self.tell(index, target, "zero_point", (own.scalar_zero_point, params.scalar_zero_point))

    def keeps_fused(self, op: TfliteOperator) -> bool:
        """Whether an operator without an exact fused form stays fused all the same, which is noted."""
        if self.arithmetic == "litert":
            return False
        self.notes.append(
            f"{op.op} {self.names[op.outputs[0]]!r} stays one fused operator (<= 1 LSB); --arithmetic litert computes "
            "LiteRT's codes step by step"
        )
        return True

    def close(self, index: int, real: ir.Value) -> None:
        """Close an operator that also exists on float tensors: codes where the output is quantised, else ``real`` itself.

        Where nothing was done to the dequantised input, its codes are passed on.
        """
        if not self.is_quantized(index):
            self.define(index, real)
        elif (codes := self._untouched_codes(index, real)) is not None:
            self.define(index, codes)
        else:
            self.define_quantized(index, real)

    def _untouched_codes(self, index: int, real: ir.Value) -> ir.Value | None:
        """The codes behind ``real`` if it is their DequantizeLinear by the very parameters of tensor ``index``."""
        for source, codes in self.values.items():
            producer = real.producer()
            if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is codes:
                return codes if self.params(source).same_as(self.params(index)) else None
        return None

    def name(self, op: TfliteOperator, suffix: str = "float") -> str:
        """A name for a value inside the translation of ``op``."""
        return f"{self.names[op.outputs[0]]}/{suffix}"


def describe(context: ImportContext, op: TfliteOperator) -> str:
    """An operator for a message: ``operator 7 CONV_2D -> 'head/conv'``."""
    outputs = ", ".join(repr(context.tensor(i).name) for i in op.outputs)
    return f"operator {op.index} {op.op} -> {outputs}"


def int_option(op: TfliteOperator, name: str) -> int:
    """An operator's integer option."""
    value = op.options[name]
    assert isinstance(value, int), f"{op.op}.{name} is {type(value).__name__}, the schema says int"  # noqa: S101 - the reader's promise
    return value


def float_option(op: TfliteOperator, name: str) -> float:
    """An operator's floating-point option."""
    value = op.options[name]
    assert isinstance(value, float), f"{op.op}.{name} is {type(value).__name__}, the schema says float"  # noqa: S101 - the reader's promise
    return value


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TFLite's SAME padding of one axis as (before, after): the odd pixel goes after.

    Source: tensorflow/lite/kernels/padding.h.
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def transposed(shape: Sequence[int]) -> tuple[int, ...]:
    """A source shape as the graph stores it."""
    return tuple(shape[i] for i in NHWC_TO_NCHW) if len(shape) == 4 else tuple(shape)
