"""The part of the TFLite schema (version 3) that is read here, as literal tables.

A field is (slot in the table's vtable, kind, default). Kinds: a numpy integer or float name, ``bool``,
``text``, ``table``, ``tables``, ``vector:<numpy name>``, and five enumerations that are read as words:
``padding``, ``activation``, ``mirror``, ``weights`` and ``dtype``. Fields and operators that nobody here reads are left
out. Source of the numbers: TensorFlow's ``schema.fbs``, whose slots never change meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class Field(NamedTuple):
    """Where a table keeps a value, what it is, and what stands for it when it is absent."""

    slot: int
    kind: str
    default: float = 0


Schema: TypeAlias = "Mapping[str, Field]"

MODEL: Schema = {
    "version": Field(0, "uint32"),
    "operator_codes": Field(1, "tables"),
    "subgraphs": Field(2, "tables"),
    "description": Field(3, "text"),
    "buffers": Field(4, "tables"),
    "metadata": Field(6, "tables"),
}
OPERATOR_CODE: Schema = {
    "deprecated_builtin_code": Field(0, "int8"),
    "custom_code": Field(1, "text"),
    "version": Field(2, "int32", 1),
    "builtin_code": Field(3, "int32"),
}
SUBGRAPH: Schema = {
    "tensors": Field(0, "tables"),
    "inputs": Field(1, "vector:int32"),
    "outputs": Field(2, "vector:int32"),
    "operators": Field(3, "tables"),
}
TENSOR: Schema = {
    "shape": Field(0, "vector:int32"),
    "type": Field(1, "dtype"),
    "buffer": Field(2, "uint32"),
    "name": Field(3, "text"),
    "quantization": Field(4, "table"),
    "is_variable": Field(5, "bool"),
    "sparsity": Field(6, "table"),
    "shape_signature": Field(7, "vector:int32"),
    "external_buffer": Field(10, "uint32"),
}
QUANTIZATION: Schema = {
    "scale": Field(2, "vector:float32"),
    "zero_point": Field(3, "vector:int64"),
    "details_type": Field(4, "uint8"),
    "quantized_dimension": Field(6, "int32"),
}
SPARSITY: Schema = {
    "traversal_order": Field(0, "vector:int32"),
    "block_map": Field(1, "vector:int32"),
    "dim_metadata": Field(2, "tables"),
}
DIMENSION: Schema = {
    "format": Field(0, "int8"),
    "dense_size": Field(1, "int32"),
    "array_segments_type": Field(2, "uint8"),
    "array_segments": Field(3, "table"),
    "array_indices_type": Field(4, "uint8"),
    "array_indices": Field(5, "table"),
}
INDEX_VECTORS: Mapping[int, Schema] = {
    1: {"values": Field(0, "vector:int32")},
    2: {"values": Field(0, "vector:uint16")},
    3: {"values": Field(0, "vector:uint8")},
}
BUFFER: Schema = {"data": Field(0, "vector:uint8"), "offset": Field(1, "uint64"), "size": Field(2, "uint64")}
OPERATOR: Schema = {
    "opcode_index": Field(0, "uint32"),
    "inputs": Field(1, "vector:int32"),
    "outputs": Field(2, "vector:int32"),
    "builtin_options_type": Field(3, "uint8"),
    "builtin_options": Field(4, "table"),
    "custom_options": Field(5, "vector:uint8"),
}

_CONV_2D: Schema = {
    "padding": Field(0, "padding"),
    "stride_w": Field(1, "int32"),
    "stride_h": Field(2, "int32"),
    "fused_activation": Field(3, "activation"),
    "dilation_w": Field(4, "int32", 1),
    "dilation_h": Field(5, "int32", 1),
}
_DEPTHWISE_CONV_2D: Schema = {
    "padding": Field(0, "padding"),
    "stride_w": Field(1, "int32"),
    "stride_h": Field(2, "int32"),
    "depth_multiplier": Field(3, "int32"),
    "fused_activation": Field(4, "activation"),
    "dilation_w": Field(5, "int32", 1),
    "dilation_h": Field(6, "int32", 1),
}
_POOL_2D: Schema = {
    "padding": Field(0, "padding"),
    "stride_w": Field(1, "int32"),
    "stride_h": Field(2, "int32"),
    "filter_w": Field(3, "int32"),
    "filter_h": Field(4, "int32"),
    "fused_activation": Field(5, "activation"),
}
_FULLY_CONNECTED: Schema = {
    "fused_activation": Field(0, "activation"),
    "weights_format": Field(1, "weights"),
    "keep_num_dims": Field(2, "bool"),
    "asymmetric_quantize_inputs": Field(3, "bool"),
}
_STRIDED_SLICE: Schema = {
    "begin_mask": Field(0, "int32"),
    "end_mask": Field(1, "int32"),
    "ellipsis_mask": Field(2, "int32"),
    "new_axis_mask": Field(3, "int32"),
    "shrink_axis_mask": Field(4, "int32"),
    "offset": Field(5, "bool"),
}
_FUSED: Schema = {"fused_activation": Field(0, "activation")}


class Options(NamedTuple):
    """The options table of an operator: its number in the ``BuiltinOptions`` union, and its fields."""

    union: int
    fields: Schema


OPTIONS: Mapping[str, Options] = {
    "ADD": Options(11, _FUSED),
    "AVERAGE_POOL_2D": Options(5, _POOL_2D),
    "ARG_MAX": Options(40, {"output_type": Field(0, "dtype")}),
    "BATCH_MATMUL": Options(101, {"adj_x": Field(0, "bool"), "adj_y": Field(1, "bool")}),
    "CAST": Options(37, {"in_data_type": Field(0, "dtype"), "out_data_type": Field(1, "dtype")}),
    "CONCATENATION": Options(10, {"axis": Field(0, "int32"), "fused_activation": Field(1, "activation")}),
    "CONV_2D": Options(1, _CONV_2D),
    "DEPTHWISE_CONV_2D": Options(2, _DEPTHWISE_CONV_2D),
    "FULLY_CONNECTED": Options(8, _FULLY_CONNECTED),
    "GATHER": Options(23, {"axis": Field(0, "int32"), "batch_dims": Field(1, "int32")}),
    "GELU": Options(116, {"approximate": Field(0, "bool")}),
    "DEPTH_TO_SPACE": Options(94, {"block_size": Field(0, "int32")}),
    "LEAKY_RELU": Options(75, {"alpha": Field(0, "float32")}),
    "MAX_POOL_2D": Options(5, _POOL_2D),
    "MEAN": Options(27, {"keep_dims": Field(0, "bool")}),
    "DIV": Options(29, _FUSED),
    "MIRROR_PAD": Options(77, {"mode": Field(0, "mirror")}),
    "REDUCE_MAX": Options(27, {"keep_dims": Field(0, "bool")}),
    "REDUCE_MIN": Options(27, {"keep_dims": Field(0, "bool")}),
    "SUM": Options(27, {"keep_dims": Field(0, "bool")}),
    "MUL": Options(21, _FUSED),
    "PACK": Options(59, {"values_count": Field(0, "int32"), "axis": Field(1, "int32")}),
    "RESHAPE": Options(17, {"new_shape": Field(0, "vector:int32")}),
    "RESIZE_BILINEAR": Options(15, {"align_corners": Field(2, "bool"), "half_pixel_centers": Field(3, "bool")}),
    "RESIZE_NEAREST_NEIGHBOR": Options(74, {"align_corners": Field(0, "bool"), "half_pixel_centers": Field(1, "bool")}),
    "SHAPE": Options(55, {"out_type": Field(0, "dtype")}),
    "SOFTMAX": Options(9, {"beta": Field(0, "float32")}),
    "SPACE_TO_DEPTH": Options(19, {"block_size": Field(0, "int32")}),
    "SPLIT": Options(35, {"num_splits": Field(0, "int32")}),
    "STRIDED_SLICE": Options(32, _STRIDED_SLICE),
    "SQUEEZE": Options(30, {"squeeze_dims": Field(0, "vector:int32")}),
    "SUB": Options(28, _FUSED),
    "TRANSPOSE_CONV": Options(
        49,
        {
            "padding": Field(0, "padding"),
            "stride_w": Field(1, "int32"),
            "stride_h": Field(2, "int32"),
            "fused_activation": Field(3, "activation"),
        },
    ),
    "UNPACK": Options(64, {"num": Field(0, "int32"), "axis": Field(1, "int32")}),
}

PADDINGS = ("SAME", "VALID")
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
MIRRORS = ("REFLECT", "SYMMETRIC")
WEIGHTS_FORMATS = ("DEFAULT", "SHUFFLED4x16INT8")
QUANTIZATION_DETAILS = ("none", "custom", "blockwise", "multi-axis")

DTYPES = (
    *("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64"),
    *("complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4"),
    *("float8_e4m3fn", "float8_e5m2"),
)

WORDS: Mapping[str, tuple[str, ...]] = {
    "padding": PADDINGS,
    "activation": ACTIVATIONS,
    "mirror": MIRRORS,
    "weights": WEIGHTS_FORMATS,
    "dtype": DTYPES,
}

_OPERATOR_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP
FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX
DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER
GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL
LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND
LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N
GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF
WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM
ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP
STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER
STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER
STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD
STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE
STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""
OPERATORS = tuple(_OPERATOR_NAMES.split())
