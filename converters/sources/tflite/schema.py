"""The part of the TFLite schema (version 3) that is read here, as literal tables.

A field is (slot in the table's vtable, kind, default). Kinds: a numpy integer or float name, ``bool``,
``text``, ``table``, ``tables``, ``vector:<numpy name>``, and five enumerations that are read as words:
``padding``, ``activation``, ``mirror``, ``weights`` and ``dtype``. Fields and operators that nobody here reads are left
out. Sources of the numbers: TensorFlow's ``schema.fbs``, whose slots never change meaning, and, of the metadata,
``metadata_schema.fbs`` of tensorflow/tflite-support (version 1).
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


def fields(first: int = 0, **kinds: str | tuple[str, float]) -> Schema:
    """Fields of consecutive slots, by kind, or by kind and default."""
    return {
        name: Field(slot, kind) if isinstance(kind, str) else Field(slot, *kind)
        for slot, (name, kind) in enumerate(kinds.items(), start=first)
    }


MODEL: Schema = {
    **fields(version="uint32", operator_codes="tables", subgraphs="tables", description="text", buffers="tables"),
    **fields(6, metadata="tables"),
}
OPERATOR_CODE: Schema = {
    **fields(deprecated_builtin_code="int8", custom_code="text"),
    **fields(3, builtin_code="int32"),
}
SUBGRAPH = fields(tensors="tables", inputs="vector:int32", outputs="vector:int32", operators="tables")
TENSOR: Schema = {
    **fields(shape="vector:int32", type="dtype", buffer="uint32", name="text", quantization="table"),
    **fields(5, is_variable="bool", sparsity="table", shape_signature="vector:int32"),
    **fields(10, external_buffer="uint32"),
}
QUANTIZATION: Schema = {
    **fields(2, scale="vector:float32", zero_point="vector:int64", details_type="uint8"),
    **fields(6, quantized_dimension="int32"),
}
SPARSITY = fields(traversal_order="vector:int32", block_map="vector:int32", dim_metadata="tables")
DIMENSION: Schema = {
    **fields(format="int8", dense_size="int32", array_segments_type="uint8", array_segments="table"),
    **fields(4, array_indices_type="uint8", array_indices="table"),
}
INDEX_VECTORS: Mapping[int, Schema] = {
    number: fields(values=f"vector:{kind}") for number, kind in enumerate(("int32", "uint16", "uint8"), start=1)
}
BUFFER = fields(data="vector:uint8", offset="uint64", size="uint64")
OPERATOR: Schema = {
    **fields(opcode_index="uint32", inputs="vector:int32", outputs="vector:int32", builtin_options_type="uint8"),
    **fields(4, builtin_options="table", custom_options="vector:uint8"),
}

# of the metadata, which are a FlatBuffer of their own
METADATA_ENTRY = fields(name="text", buffer="uint32")
METADATA_MODEL = fields(3, subgraphs="tables")
METADATA_SUBGRAPH = fields(2, inputs="tables", outputs="tables", files="tables")
METADATA_TENSOR = {**fields(3, content="table", units="tables"), **fields(6, files="tables")}
METADATA_FILE = {**fields(name="text"), **fields(2, type="int8")}
METADATA_UNION = fields(type="uint8", value="table")
METADATA_IMAGE = fields(color_space="int8")
METADATA_NORMALISATION = fields(mean="vector:float32", std="vector:float32")

_WINDOW = fields(padding="padding", stride_w="int32", stride_h="int32")
_DILATED: dict[str, str | tuple[str, float]] = {
    "fused_activation": "activation",
    "dilation_w": ("int32", 1),
    "dilation_h": ("int32", 1),
}
_CONV_2D, _DEPTHWISE_CONV_2D = ({**_WINDOW, **fields(first, **_DILATED)} for first in (3, 4))
_POOL_2D: Schema = {**_WINDOW, **fields(3, filter_w="int32", filter_h="int32", fused_activation="activation")}
_TRANSPOSE_CONV: Schema = {**_WINDOW, **fields(3, fused_activation="activation")}
_FULLY_CONNECTED = fields(fused_activation="activation", weights_format="weights")
_STRIDED_SLICE: Schema = {
    **fields(begin_mask="int32", end_mask="int32", ellipsis_mask="int32", new_axis_mask="int32"),
    **fields(4, shrink_axis_mask="int32", offset="bool"),
}
_FUSED = fields(fused_activation="activation")
_BLOCK = fields(block_size="int32")


class Options(NamedTuple):
    """The options table of an operator: its number in the ``BuiltinOptions`` union, and its fields."""

    union: int
    fields: Schema


OPTIONS: Mapping[str, Options] = {
    "ADD": Options(11, _FUSED),
    "AVERAGE_POOL_2D": Options(5, _POOL_2D),
    "ARG_MAX": Options(40, {}),
    "BATCH_MATMUL": Options(101, fields(adj_x="bool", adj_y="bool")),
    "CAST": Options(37, {}),
    "CONCATENATION": Options(10, fields(axis="int32", fused_activation="activation")),
    "CONV_2D": Options(1, _CONV_2D),
    "DEPTHWISE_CONV_2D": Options(2, _DEPTHWISE_CONV_2D),
    "FULLY_CONNECTED": Options(8, _FULLY_CONNECTED),
    "GATHER": Options(23, fields(axis="int32", batch_dims="int32")),
    "GELU": Options(116, fields(approximate="bool")),
    "DEPTH_TO_SPACE": Options(94, _BLOCK),
    "LEAKY_RELU": Options(75, fields(alpha="float32")),
    "MAX_POOL_2D": Options(5, _POOL_2D),
    "MEAN": Options(27, {}),
    "DIV": Options(29, _FUSED),
    "MIRROR_PAD": Options(77, fields(mode="mirror")),
    "REDUCE_MAX": Options(27, {}),
    "REDUCE_MIN": Options(27, {}),
    "SUM": Options(27, {}),
    "MUL": Options(21, _FUSED),
    "PACK": Options(59, fields(1, axis="int32")),
    "RESHAPE": Options(17, {}),
    "RESIZE_BILINEAR": Options(15, fields(2, align_corners="bool", half_pixel_centers="bool")),
    "RESIZE_NEAREST_NEIGHBOR": Options(74, fields(align_corners="bool", half_pixel_centers="bool")),
    "SHAPE": Options(55, {}),
    "SOFTMAX": Options(9, fields(beta="float32")),
    "SPACE_TO_DEPTH": Options(19, _BLOCK),
    "SPLIT": Options(35, {}),
    "STRIDED_SLICE": Options(32, _STRIDED_SLICE),
    "SQUEEZE": Options(30, {}),
    "SUB": Options(28, _FUSED),
    "TRANSPOSE_CONV": Options(49, _TRANSPOSE_CONV),
    "UNPACK": Options(64, fields(1, axis="int32")),
}

QUANTIZATION_DETAILS = ("none", "custom", "blockwise", "multi-axis")
WORDS: Mapping[str, tuple[str, ...]] = {
    "padding": ("SAME", "VALID"),
    "activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "mirror": ("REFLECT", "SYMMETRIC"),
    "weights": ("DEFAULT", "SHUFFLED4x16INT8"),
    "dtype": (
        *("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64"),
        *("complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4"),
        *("float8_e4m3fn", "float8_e5m2"),
    ),
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
