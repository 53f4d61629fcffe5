"""Builds real TFLite files for tests without TensorFlow: fluent calls over LiteRT's schema bindings.

    b = TfliteBuilder()
    x = b.input("x", (1, 8, 8, 3), "uint8", scale=1 / 255)
    w = b.constant(weights, scale=scales, axis=0)
    y = b.op("CONV_2D", [x, w, None], (1, 8, 8, 4), "int8", 0.1, -3, padding="SAME", stride_h=1, stride_w=1)
    data = b.build(outputs=[y])

Tensors are their indices. Option names and words are the reader's (``converters.sources.tflite.schema.OPTIONS``);
strides default to 1 and everything else to the schema's default. Nothing is checked: a nonsensical file is a
test, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.sources.tflite.schema import OPERATORS, OPTIONS, WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Scale = float | Sequence[float] | NDArray[np.float32] | None
    ZeroPoint = int | Sequence[int] | NDArray[np.int64]

ALIGNMENT = 16  # what the schema asks of constant data

OPTION_CLASSES = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "DIV": "DivOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "PACK": "PackOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNPACK": "UnpackOptions",
}
ATTRIBUTES = {
    "dilation_h": "dilationHFactor",
    "dilation_w": "dilationWFactor",
    "filter_h": "filterHeight",
    "filter_w": "filterWidth",
    "fused_activation": "fusedActivationFunction",
}


class TfliteBuilder:
    """One model of one subgraph under construction.

    Attributes:
        model: the object tree that ``build`` packs; a test may bend it before.
        subgraph: its only subgraph.
    """

    def __init__(self) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema: Any = schema
        self.model: Any = schema.ModelT()
        self.model.version = 3
        self.model.description = "test model"
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]  # buffer 0 is the empty one
        self.subgraph: Any = schema.SubGraphT()
        self.subgraph.name = "main"
        self.subgraph.inputs, self.subgraph.outputs = [], []
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.model.subgraphs = [self.subgraph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        scale: Scale = None,
        zero_point: ZeroPoint = 0,
        *,
        axis: int = 0,
        signature: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor without a value; one zero-point serves all scales."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.shapeSignature = name, list(shape), signature
        tensor.type = WORDS["dtype"].index(dtype)
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            tensor.quantization.quantizedDimension = axis
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def input(self, name: str, shape: Sequence[int], dtype: str, scale: Scale = None, zero_point: ZeroPoint = 0) -> int:
        """Add a model input."""
        index = self.tensor(name, shape, dtype, scale, zero_point)
        self.subgraph.inputs.append(index)
        return index

    def constant(
        self,
        array: NDArray[Any],
        scale: Scale = None,
        zero_point: ZeroPoint = 0,
        *,
        name: str | None = None,
        axis: int = 0,
    ) -> int:
        """Add a constant; several scales make it per channel along ``axis`` (0; depthwise weights 3)."""
        name = f"constant_{len(self.subgraph.tensors)}" if name is None else name
        index = self.tensor(name, array.shape, array.dtype.name, scale, zero_point, axis=axis)
        self.set_data(index, array.tobytes())
        return index

    def set_data(self, index: int, data: bytes) -> None:
        """Give a tensor a buffer of its own with these bytes."""
        self.model.buffers.append(_aligned_buffer(self.schema, data))
        self.subgraph.tensors[index].buffer = len(self.model.buffers) - 1

    def op(  # noqa: PLR0917  a tensor reads as shape, dtype, scale, zero-point
        self,
        op: str,
        inputs: Sequence[int | None],
        shape: Sequence[int],
        dtype: str,
        scale: Scale = None,
        zero_point: ZeroPoint = 0,
        *,
        name: str | None = None,
        version: int = 1,
        **options: Any,
    ) -> int:
        """Add an output tensor and the operator that computes it; None is an absent optional input."""
        name = f"{op.lower()}_{len(self.subgraph.operators)}" if name is None else name
        output = self.tensor(name, shape, dtype, scale, zero_point)
        self.operator(op, inputs, [output], version=version, **options)
        return output

    def operator(
        self, op: str, inputs: Sequence[int | None], outputs: Sequence[int], *, version: int = 1, **options: Any
    ) -> None:
        """Add an operator over tensors that exist; ``CUSTOM:name`` makes a custom one."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(op, version)
        operator.inputs = [-1 if index is None else index for index in inputs]
        operator.outputs = list(outputs)
        if op in OPTION_CLASSES:
            operator.builtinOptionsType = OPTIONS[op].union
            operator.builtinOptions = self._options(op, options)
        elif options:
            msg = f"{op} has no options here, got {', '.join(options)}"
            raise ValueError(msg)
        self.subgraph.operators.append(operator)

    def build(self, outputs: Sequence[int]) -> bytes:
        """The file, with these tensors as its outputs."""
        import flatbuffers

        self.subgraph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, op: str, version: int) -> int:
        """The index of the operator code, added when it is new."""
        kind, _, custom = op.partition(":")
        number = OPERATORS.index(kind)
        wanted = (number, custom.encode() or None, version)
        codes = self.model.operatorCodes
        known = [(code.builtinCode, code.customCode, code.version) for code in codes]
        if wanted not in known:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.customCode, code.version = wanted
            code.deprecatedBuiltinCode = min(number, 127)
            codes.append(code)
            known.append(wanted)
        return known.index(wanted)

    def _options(self, op: str, options: dict[str, Any]) -> Any:
        """The operator's options table with words turned into numbers."""
        table = getattr(self.schema, f"{OPTION_CLASSES[op]}T")()
        fields = OPTIONS[op].fields
        strides = {name: 1 for name in ("stride_h", "stride_w") if name in fields}
        for name, value in {**strides, **options}.items():
            words = WORDS.get(fields[name].kind if name in fields else "dtype")  # others are not read
            head, *tail = name.split("_")
            attribute = ATTRIBUTES.get(name, head + "".join(part.capitalize() for part in tail))
            setattr(table, attribute, words.index(value) if words and isinstance(value, str) else value)
        return table


def build_small_model() -> tuple[TfliteBuilder, int]:
    """A convolution and a LeakyReLU: tensors 0 image, 1 weights, 2 bias, 3 sums, 4 the output."""
    b = TfliteBuilder()
    x = b.input("image", (1, 4, 4, 3), "int8", 0.5, -1)
    w = b.constant(np.arange(24, dtype=np.int8).reshape(2, 2, 2, 3), [0.25, 0.5], name="weights")
    bias = b.constant(np.array([7, -9], np.int32), [0.125, 0.25], name="bias")
    sums = b.op("CONV_2D", [x, w, bias], (1, 4, 4, 2), "int8", 0.5, 3, name="sums", version=3)
    return b, b.op("LEAKY_RELU", [sums], (1, 4, 4, 2), "int8", 0.5, 3, name="out", alpha=0.1)


def _aligned_buffer(schema: Any, data: bytes) -> Any:
    """A buffer whose bytes are aligned as the schema asks; the bindings alone would not do it."""

    class AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the bindings have no types
        def Pack(self, builder: Any) -> Any:  # noqa: N802  the bindings' name
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return AlignedBuffer()
