"""The state of one import: source tensors, the ONNX values that carry them, and the operator in translation.

Two invariants hold for every value that is registered here:

* A quantised tensor is carried as integer codes of the chosen dialect. ``float_of`` gives a consumer its own
  DequantizeLinear, ``define_quantized`` closes an operator with exactly one QuantizeLinear.
* A rank-4 activation lives in NCHW; every other rank lives as in the source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converters._ir import ir
from converters.errors import OptionError, SourceFileError, UnsupportedModelError
from converters.graph import NCHW_TO_NHWC, NHWC_TO_NCHW, dequantize_node, quantize_node
from converters.spec import CONTRACT_NAMES, Deviation, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.graph import GraphWriter
    from converters.options import Activations, Rounding
    from converters.quant import QuantParams
    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.sources.tflite.tensors import TfliteTensor
    from converters.spec import Arithmetic, DeviationKind

CODE_DTYPES = frozenset({"int8", "uint8"})


@dataclass
class ImportContext:
    """What handlers read from and write to."""

    model: TfliteModel  # the source
    writer: GraphWriter  # the ONNX graph under construction
    activations: Activations  # dtype of activation codes in the graph
    # ``"litert"``: ties and tables of LiteRT's kernels, at the price of a second scale for some tensors; ``"real"``:
    # the real functions
    rounding: Rounding
    batch: int | str = 1  # images per call, or a name where that is left open
    # what is written where no fused operator has LiteRT's codes: integers step by step, or the fused operator
    arithmetic: Arithmetic = "litert"
    # source tensor index -> ONNX value (codes, or float for unquantised tensors)
    values: dict[int, ir.Value] = field(default_factory=dict)
    # source tensor index -> array in the source's layout, for constants and folded shape arithmetic
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)
    twins: dict[str, TensorTwin] = field(default_factory=dict)  # source tensor name -> where it lives in the ONNX graph
    notes: list[str] = field(default_factory=list)  # what is worth telling the user
    deviations: list[Deviation] = field(default_factory=list)  # every number that is written unlike the source's
    # a unique name per source tensor: its own, or ``tensor_7`` where it has none, or ``conv#7`` where it is taken (the
    # contract's names are)
    names: tuple[str, ...] = field(init=False)
    # the operator in translation; ``converters.sources.tflite.importer.translate`` moves it on
    op: TfliteOperator = field(init=False)

    def __post_init__(self) -> None:
        taken = set(CONTRACT_NAMES)
        names = []
        for tensor in self.model.tensors:
            name = tensor.name or f"tensor_{tensor.index}"
            names.append(f"{name}#{tensor.index}" if name in taken else name)
            taken.add(names[-1])
        self.names = tuple(names)

    # -- the operator -------------------------------------------------------------------------------------------

    @property
    def source(self) -> int:
        """The operator's first operand."""
        return self.op.inputs[0]

    @property
    def target(self) -> int:
        """The operator's first result."""
        return self.op.outputs[0]

    @property
    def where(self) -> str:
        """The operator for a message: ``net.tflite: operator 7 CONV_2D -> 'head/conv'``."""
        outputs = ", ".join(repr(self.tensor(i).name) for i in self.op.outputs)
        return f"{self.model.file}: operator {self.op.index} {self.op.op} -> {outputs}"

    def has_operand(self, position: int) -> bool:
        """Whether the operator has this optional operand."""
        return len(self.op.inputs) > position and self.op.inputs[position] >= 0

    def constant_of(self, position: int) -> NDArray[Any]:
        """The constant value of an operand, in the source's layout; refuses one that is computed at run time."""
        index = self.op.inputs[position]
        if index not in self.constants:
            raise UnsupportedModelError(
                f"{self.where} needs a constant as operand {position}, but tensor {self.tensor(index).name!r} is "
                "computed at run time"
            )
        return self.constants[index]

    def integers_of(self, position: int) -> list[int]:
        """The numbers of a constant operand that holds axes, sizes or positions."""
        return [int(number) for number in self.constant_of(position).reshape(-1)]

    def int_option(self, name: str) -> int:
        """The operator's integer option, which the reader promises to be one."""
        return int(cast("int", self.op.options[name]))

    def float_option(self, name: str) -> float:
        """The operator's floating-point option, which the reader promises to be one."""
        return float(cast("float", self.op.options[name]))

    def keeps_fused(self) -> bool:
        """Whether an operator without an exact fused form stays fused all the same, which is noted."""
        if self.arithmetic == "litert":
            return False
        self.notes.append(
            f"{self.op.op} {self.names[self.target]!r} stays one fused operator (<= 1 LSB); --arithmetic litert "
            "computes LiteRT's codes step by step"
        )
        return True

    # -- writing ------------------------------------------------------------------------------------------------

    def name(self, suffix: str = "float") -> str:
        """A name for a value inside the operator's translation."""
        return f"{self.names[self.target]}/{suffix}"

    def node(self, op: str, operands: Sequence[ir.Value | None], suffix: str = "float", **attributes: Any) -> ir.Value:
        """Append a node of the operator's translation."""
        return self.writer.op(op, operands, self.name(suffix), **attributes)

    def initializer(self, array: NDArray[Any] | np.generic, suffix: str) -> ir.Value:
        """Add a constant of the operator's translation."""
        return self.writer.constant(array, self.name(suffix))

    def step(self, kind: str, value: ir.Value, number: NDArray[Any] | np.generic, suffix: str) -> ir.Value:
        """Append a node whose second operand is a constant."""
        constant = self.initializer(number, f"{suffix}/number")
        return self.node(kind, [value, constant], suffix)

    def wide(self, codes: ir.Value, suffix: str) -> ir.Value:
        """Codes as int32."""
        return self.node("Cast", [codes], suffix, to=int(ir.DataType.INT32))

    def define_computed(self, codes: ir.Value) -> None:
        """Close an operator that computed the numbers of its codes step by step, which is told as a deviation."""
        self.define(self.target, self.as_codes(codes, self.names[self.target]))
        self.tell(self.target, "table")

    def as_codes(self, numbers: ir.Value, name: str) -> ir.Value:
        """Whole numbers in the range of the dialect's codes as such."""
        return self.writer.op("Cast", [numbers], name, to=int(ir.DataType.from_numpy(np.dtype(self.code_dtype))))

    # -- tensors ------------------------------------------------------------------------------------------------

    def tensor(self, index: int) -> TfliteTensor:
        """The source tensor with this index."""
        return self.model.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """A tensor's shape in the source."""
        return self.model.tensors[index].shape

    def is_quantized(self, index: int) -> bool:
        """Whether the tensor holds 8-bit codes."""
        return self.tensor(index).dtype in CODE_DTYPES

    def params(self, index: int) -> QuantParams:
        """Quantisation of a tensor as the graph's dialect stores it; refuses one that has not exactly one scale."""
        tensor = self.tensor(index)
        scales = 0 if tensor.quant is None else tensor.quant.scale.size
        if tensor.quant is None or scales != 1:
            raise UnsupportedModelError(
                f"{self.model.file}: tensor {tensor.name!r} is {tensor.dtype} with {scales} scales, expected 1; "
                "quantise activations per tensor"
            )
        return tensor.quant.shifted(self.shift(index))

    def own_quant(self, index: int) -> QuantParams:
        """Quantisation of a tensor as the source stores it; ``require_supported`` refused codes without."""
        quant = self.tensor(index).quant
        assert quant is not None, "require_supported refuses codes without a scale"  # noqa: S101 - checked before
        return quant

    def shift(self, index: int) -> int:
        """What turns the source's codes into the dialect's: +128, -128 or 0."""
        source = self.tensor(index).dtype
        if source == self.activations:
            return 0
        return 128 if self.activations == "uint8" else -128

    @property
    def to_int8(self) -> int:
        """What turns the dialect's codes into int8 codes: 0 or -128."""
        return 0 if self.activations == "int8" else -128

    @property
    def match_litert(self) -> bool:
        """Whether rounding follows LiteRT's kernels."""
        return self.rounding == "litert"

    @property
    def code_dtype(self) -> type[np.uint8] | type[np.int8]:
        """The numpy dtype of activation codes."""
        return np.uint8 if self.activations == "uint8" else np.int8

    @property
    def lowest_code(self) -> int:
        """The lowest of the dialect's 256 codes."""
        return int(np.iinfo(self.code_dtype).min)

    # -- layout -------------------------------------------------------------------------------------------------

    def axis(self, index: int, axis: int) -> int:
        """Where source axis ``axis`` (0 .. rank - 1) of a tensor is in the graph; refuses to mix a batch's images."""
        tensor = self.tensor(index)
        if axis == 0 and self.batch != 1:
            raise OptionError(
                f"{self.model.file}: an operator works along the first axis of tensor {tensor.name!r} "
                f"{list(tensor.shape)}, so the model takes one image per call; convert it with --batch 1, found "
                f"{self.batch}"
            )
        return NHWC_TO_NCHW.index(axis) if len(tensor.shape) == 4 else axis

    def source_axis(self, index: int, axis: int) -> int:
        """An axis of tensor ``index`` counted from the front; refuses one that it has not."""
        rank = len(self.shape(index))
        if not -rank <= axis < rank:
            raise SourceFileError(f"{self.where} works along axis {axis} of a tensor with {rank} axes")
        return axis % rank

    def to_source_layout(self, value: ir.Value, rank: int, name: str) -> ir.Value:
        """NCHW -> NHWC for rank 4, nothing otherwise."""
        return self.writer.op("Transpose", [value], name, perm=list(NCHW_TO_NHWC)) if rank == 4 else value

    def from_source_layout(self, value: ir.Value, rank: int, name: str) -> ir.Value:
        """NHWC -> NCHW for rank 4, nothing otherwise."""
        return self.writer.op("Transpose", [value], name, perm=list(NHWC_TO_NCHW)) if rank == 4 else value

    def reshape(self, value: ir.Value, before: Sequence[int], after: Sequence[int], name: str) -> ir.Value:
        """Reshape a value between two source shapes of as many values, from and to the graph's layout.

        The leading size is left to the runtime, so that a batch survives: 0 (keep) where both shapes lead with 1,
        else -1.
        """
        if math.prod(before) != math.prod(after):
            raise SourceFileError(
                f"{self.model.file}: {name!r} turns shape {list(before)} into {list(after)}: another number of values"
            )
        if tuple(before) == tuple(after):
            return value
        value = self.to_source_layout(value, len(before), f"{name}/nhwc")
        lead = 0 if before and after and before[0] == after[0] == 1 else -1
        sizes = np.array([lead, *after[1:]] if after else [], np.int64)
        value = self.writer.op("Reshape", [value, self.writer.constant(sizes, f"{name}/shape")], name)
        return self.from_source_layout(value, len(after), f"{name}/nchw")

    # -- values -------------------------------------------------------------------------------------------------

    def codes_of(self, index: int) -> ir.Value:
        """The value that carries a tensor, as codes where it is quantised; a constant becomes an initialiser."""
        if index not in self.values:
            array = self.stored_codes(index, self.shape(index))
            self.define(index, self.writer.constant(array, self.names[index]))
        return self.values[index]

    def stored_codes(self, index: int, shape: Sequence[int]) -> NDArray[Any]:
        """A constant in another source shape, as the graph stores it: its layout, and the dialect's codes."""
        array = laid_out(self.constants[index].reshape(shape))
        if self.is_quantized(index):
            array = (array.astype(np.int16) + self.shift(index)).astype(self.code_dtype)
        return array

    def float_of(self, index: int) -> ir.Value:
        """The real value of a tensor for one consumer: a DequantizeLinear of its own; float tensors pass through."""
        if self.is_quantized(index):
            return self._dequantized(index, self.params(index))
        tensor = self.tensor(index)
        if tensor.dtype != "float32":
            raise UnsupportedModelError(
                f"{self.model.file}: tensor {tensor.name!r} holds {tensor.dtype} numbers where an activation is "
                "expected; 8-bit codes and float32 are supported"
            )
        return self.codes_of(index)

    def adjusted_float_of(self, index: int, params: QuantParams, codes: ir.Value | None = None) -> ir.Value:
        """The codes of a tensor, dequantised by other numbers than its own for the operator in translation.

        See ``converters.leaky``, ``converters.integer.pair_search`` and ``ops.averages`` for why; every number that
        differs is told as a deviation. ``codes`` are the tensor's in another shape; None: as they are.
        """
        self._tell_adjusted(index, params)
        return self._dequantized(index, params, codes)

    def moved_float_of(self, index: int) -> ir.Value:
        """``float_of`` for an operator that only moves codes: LiteRT's kernels never look at the output's scale."""
        if not self.is_quantized(index) or self.tensor(index).dtype != self.tensor(self.target).dtype:
            return self.float_of(index)
        return self.adjusted_float_of(index, self.params(self.target))

    def _dequantized(self, index: int, params: QuantParams, codes: ir.Value | None = None) -> ir.Value:
        codes = self.codes_of(index) if codes is None else codes
        return dequantize_node(self.writer, codes, params, self.code_dtype, f"{self.names[index]}/dequantized")

    def define(self, index: int, value: ir.Value) -> None:
        """Register ``value`` (codes in the dialect, graph layout) as the carrier of a source tensor."""
        self.values[index] = value
        if value.name is not None and index not in self.constants:
            layout = "NHWC->NCHW" if len(self.shape(index)) == 4 else "same"
            shift = self.shift(index) if self.is_quantized(index) else 0
            self.twins[self.names[index]] = TensorTwin(value.name, layout, shift)

    def define_quantized(self, real: ir.Value, params: QuantParams | None = None, index: int | None = None) -> None:
        """Close an operator: quantise its real result to the codes of its output, by ``params`` or the output's own."""
        index = self.target if index is None else index
        self.define(index, self.quantized(index, real, params or self.params(index), self.names[index]))

    def quantized(self, index: int, real: ir.Value, params: QuantParams, name: str) -> ir.Value:
        """A QuantizeLinear towards tensor ``index`` by ``params``; every number that is not the tensor's is told."""
        self._tell_adjusted(index, params)
        return quantize_node(self.writer, real, params, self.code_dtype, name)

    def rounded(self, real: ir.Value, params: QuantParams, suffixes: tuple[str, str]) -> ir.Value:
        """The operator's real result rounded to codes by ``params``, read by the output's own numbers."""
        codes = self.quantized(self.target, real, params, self.name(suffixes[0]))
        return dequantize_node(self.writer, codes, self.params(self.target), self.code_dtype, self.name(suffixes[1]))

    def close(self, real: ir.Value, index: int | None = None) -> None:
        """Close an operator that also exists on floats: with codes where the output is quantised, else ``real`` itself.

        Where nothing was done to the dequantised input, its codes are passed on.
        """
        index = self.target if index is None else index
        if not self.is_quantized(index):
            self.define(index, real)
            return
        producer = real.producer()
        codes = None if producer is None or producer.op_type != "DequantizeLinear" else producer.inputs[0]
        source = next((source for source, value in self.values.items() if value is codes), None)
        if codes is not None and source is not None and self.params(source).same_as(self.params(index)):
            self.define(index, codes)
        else:
            self.define_quantized(real, index=index)

    def tell(self, index: int, kind: DeviationKind, numbers: tuple[float, float] | None = None) -> None:
        """Record a number of tensor ``index`` that is not the source's, in the operator's translation.

        ``numbers`` are the source's and the graph's; None for a table.
        """
        source, written = (None, None) if numbers is None else numbers
        if source != written or numbers is None:
            deviation = Deviation(self.names[index], self.names[self.target], kind, source, written)
            self.deviations.append(deviation)

    def _tell_adjusted(self, index: int, params: QuantParams) -> None:
        own = self.params(index)
        self.tell(index, "scale", (float(own.scalar_scale), float(params.scalar_scale)))
        self.tell(index, "zero_point", (own.scalar_zero_point, params.scalar_zero_point))


def laid_out(array: NDArray[Any]) -> NDArray[Any]:
    """An array of the source in the graph's layout."""
    return array.transpose(NHWC_TO_NCHW) if array.ndim == 4 else array


def per_tensor(model: TfliteModel, *indices: int) -> list[QuantParams] | None:
    """The tensors' quantisation; None where one has no scale, or several."""
    quants = [model.tensors[index].quant for index in indices]
    single = [quant for quant in quants if quant is not None and quant.scale.size == 1]
    return single if len(single) == len(quants) else None


def other_scale(model: TfliteModel, op: TfliteOperator) -> bool:
    """Whether input and output have different scales."""
    quants = per_tensor(model, op.inputs[0], op.outputs[0])
    return quants is not None and quants[0].scalar_scale != quants[1].scalar_scale
