"""Which form of a stage does ONNX Runtime's CPU run fastest? One table per stage; all its forms give the same codes.

    python kernel_variants.py [--sizes 224 416] [--blocks 7] [--stages first second deep leaky]

The forms are those that `--target cpu` chooses from for Tiny YOLO v2: the first convolution (three channels) with its
pool, the second with its pool, the largest (of 1/32 of the picture's size), and the LeakyReLU behind the first pool;
random weights. Times are microseconds for the stage alone, medians of blocks that alternate between the forms, with one
live session each. The form that xdet writes is bold. A form whose codes differ ends the program.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUP = 4  # pixels that the wide forms read as one position of 12 channels
IN, CONV, OUT = ((0.02, 128), (0.5, 128), (0.018, 20))  # scale and zero-point of inputs, convolutions, LeakyReLU
Weights = np.ndarray[Any, np.dtype[np.int8]]


@dataclass(frozen=True)
class Form:
    """One way of writing a stage."""

    name: str
    model: bytes
    chosen: bool = False


class Stage:
    """Writes the graph of one form: uint8 NHWC in and out, NCHW between ``nchw`` and ``end``; a value is its name."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.nodes, self.constants = shape, list[Any](), list[Any]()

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """Add a constant; returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def read(self, codes: str, scale: float, zero_point: int) -> str:
        """DequantizeLinear."""
        return self.op("DequantizeLinear", codes, self.constant(scale, np.float32), self.constant(zero_point, np.uint8))

    def write(self, value: str, scale: float, zero_point: int) -> str:
        """QuantizeLinear."""
        return self.op("QuantizeLinear", value, self.constant(scale, np.float32), self.constant(zero_point, np.uint8))

    def conv(self, codes: str, weights: Weights, strides: Sequence[int], pads: Sequence[int], group: int = 1) -> str:
        """A quantised convolution with weights OIHW, and the same bias for every group of its channels."""
        options = {"kernel_shape": weights.shape[2:], "strides": strides, "pads": pads, "group": group}
        return self.write(self.op("Conv", self.read(codes, *IN), *self.operands(weights), **options), *CONV)

    def product(self, codes: str, weights: Weights) -> str:
        """A quantised product of a matrix with weights ``(columns, inputs)``."""
        value = self.op("Gemm", self.read(codes, *IN), *self.operands(weights, axis=1))
        return self.write(value, *CONV)

    def operands(self, weights: Weights, axis: int = 0) -> list[str]:
        """Weights with a scale per output, along ``axis`` as stored, and their bias."""
        outputs = len(weights)
        scales = np.full(outputs, 0.01, np.float32)
        stored = np.ascontiguousarray(weights if axis == 0 else weights.T)
        parts = ((stored, scales, axis), (np.full(outputs, 50, np.int32), scales * np.float32(IN[0]), 0))
        return [
            self.op(
                "DequantizeLinear",
                self.constant(values, values.dtype),
                self.constant(scale, np.float32),
                self.constant(np.zeros(outputs), values.dtype),
                axis=along,
            )
            for values, scale, along in parts
        ]

    def pool(self, codes: str, kernel: Sequence[int]) -> str:
        """A maximum over windows that do not overlap."""
        pooled = self.op("MaxPool", self.read(codes, *CONV), kernel_shape=kernel, strides=kernel)
        return self.write(pooled, *CONV)

    def nchw(self, codes: str) -> str:
        """From NHWC to NCHW."""
        return self.op("Transpose", codes, perm=[0, 3, 1, 2])

    def view(self, codes: str, *shape_hwc: int) -> str:
        """The same bytes as another NHWC shape."""
        flat = self.op("Transpose", codes, perm=[0, 2, 3, 1])
        return self.nchw(self.op("Reshape", flat, self.constant([1, *shape_hwc], np.int64)))

    def end(self, codes: str) -> bytes:
        """The model, with these codes as its output."""
        last = self.op("Transpose", codes, perm=[0, 2, 3, 1])
        graph = helper.make_graph(
            self.nodes,
            "stage",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, self.shape)],
            [helper.make_tensor_value_info(last, TensorProto.UINT8, None)],
            self.constants,
        )
        model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        return bytes(model.SerializeToString())


def first_forms(size: int) -> list[Form]:
    """3x3 convolution from 3 to 16 channels, 2x2 pool; the picture has ``size`` rows and columns."""
    outputs, half = 16, size // 2
    weights = random_weights(outputs, 3)

    def grouped() -> tuple[Stage, str]:
        stage = Stage(1, size, size, 3)
        pads, zero = stage.constant([0, 0, 1, 0, 0, 0, GROUP - 1, 0], np.int64), stage.constant(128, np.uint8)
        padded = stage.nchw(stage.op("Pad", "x", pads, zero))
        return stage, stage.view(padded, size, size // GROUP + 1, 3 * GROUP)

    def wide(rows: Sequence[int], columns: Sequence[int]) -> tuple[Weights, list[int]]:
        """Weights and pads of one convolution for these rows and columns of two neighbouring pool windows."""
        height = 2 + len(rows)
        kernels = np.zeros((len(rows) * len(columns), outputs, 3, height, 2 * GROUP), np.int8)
        places = [(row - rows[0], column) for row in rows for column in columns]
        for kernel, (top, left) in zip(kernels, places, strict=True):
            kernel[:, :, top : top + 3, left : left + 3] = weights
        apart = kernels.reshape(-1, 3, height, 2, GROUP).transpose(0, 4, 1, 2, 3)
        pads = [1 - rows[0], 0, rows[-1], 0]
        return np.ascontiguousarray(apart).reshape(-1, 3 * GROUP, height, 2), pads

    def maximum_of(parts: Sequence[tuple[Sequence[int], Sequence[int]]], left: int) -> bytes:
        """One convolution per part, their maximum, and a pool over the ``left`` members of each window inside it."""
        stage, picture = grouped()
        codes = [stage.conv(picture, kernel, (2, 1), pads) for kernel, pads in (wide(*part) for part in parts)]
        joined = stage.op("Max", *codes) if len(codes) > 1 else codes[0]
        if left > 1:
            members = stage.view(joined, half * size // GROUP, left, GROUP // 2 * outputs)
            joined = stage.pool(members, (1, left))
        return stage.end(stage.view(joined, half, half, outputs))

    plain = Stage(1, size, size, 3)
    source = plain.end(plain.pool(plain.conv(plain.nchw("x"), weights, (1, 1), (1, 1, 1, 1)), (2, 2)))
    both, columns = (0, 1), (0, 2, 1, 3)  # member by member of the windows, for both windows
    return [
        Form("as in the source, 3 channels", source),
        Form("groups of four pixels, one convolution", maximum_of([(both, columns)], 4), chosen=True),
        Form("one convolution per row, Max of two", maximum_of([((row,), columns) for row in both], 2)),
        Form(
            "one convolution per column, Max of two", maximum_of([(both, (column, column + 2)) for column in (0, 1)], 2)
        ),
        Form(
            "four convolutions, Max of four",
            maximum_of([((row,), (column, column + 2)) for row in both for column in (0, 1)], 1),
        ),
    ]


def second_forms(size: int) -> list[Form]:
    """3x3 convolution from 16 to 32 channels, 2x2 pool; its input has half of the picture's rows and columns."""
    shape, weights = (1, size // 2, size // 2, 16), random_weights(32, 16)
    plain, apart = Stage(*shape), Stage(*shape)
    codes, picture = plain.conv(plain.nchw("x"), weights, (1, 1), (1, 1, 1, 1)), apart.nchw("x")
    members = [
        apart.conv(picture, weights, (2, 2), (1 - row, 1 - column, row, column)) for row in (0, 1) for column in (0, 1)
    ]
    return [
        Form("one convolution, pool", plain.end(plain.pool(codes, (2, 2))), chosen=True),
        Form("four convolutions of stride 2, Max of four", apart.end(apart.op("Max", *members))),
    ]


def deep_forms(size: int) -> list[Form]:
    """3x3 convolution from 512 to 1024 channels: in parts that two threads might share more evenly than 49 pixels.

    ONNX Runtime deals out rounds of six pixels. The kernel's upper row meets only padding in the first row of the
    result.
    """
    side, weights = size // 32, random_weights(1024, 512)
    whole, apart, last, halves, groups = (Stage(1, side, side, 512) for _ in range(5))
    picture = apart.nchw("x")
    ends = [apart.constant([row], np.int64) for row in (0, 2, 2)]
    first = apart.conv(apart.op("Slice", picture, *ends), weights[:, :, 1:], (1, 1), (0, 1, 0, 1))
    others = apart.conv(picture, weights, (1, 1), (0, 1, 1, 1))
    map_of_last, pads = last.nchw("x"), (1, 1, 1, 1)
    upper = last.conv(map_of_last, weights, (1, 1), (1, 1, 0, 1))
    ends_of_last = [last.constant([row], np.int64) for row in (side - 2, side, 2)]
    lowest = last.conv(last.op("Slice", map_of_last, *ends_of_last), weights, (1, 1), (0, 1, 1, 1))
    map_of_halves, map_of_groups = halves.nchw("x"), groups.nchw("x")
    both = [halves.conv(map_of_halves, part, (1, 1), pads) for part in (weights[:512], weights[512:])]
    twice = groups.op("Concat", map_of_groups, map_of_groups, axis=1)
    gathered = gathered_product(side, weights)
    return [
        Form("whole", whole.end(whole.conv(whole.nchw("x"), weights, (1, 1), (1, 1, 1, 1))), chosen=True),
        Form("first row apart, without its padding", apart.end(apart.op("Concat", first, others, axis=2))),
        Form("last row apart", last.end(last.op("Concat", upper, lowest, axis=2))),
        Form("half of the channels each", halves.end(halves.op("Concat", *both, axis=1))),
        Form("two groups on two copies", groups.end(groups.conv(twice, weights, (1, 1), pads, group=2))),
        Form("one product over gathered pixels", gathered),
    ]


def gathered_product(side: int, weights: Weights) -> bytes:
    """The convolution as a Gemm, which ONNX Runtime deals out by columns: nine copies of each pixel, or of padding."""
    outputs, inputs = weights.shape[:2]
    stage, padding = Stage(1, side, side, inputs), side * side
    numbers = np.pad(np.arange(padding).reshape(side, side), 1, constant_values=padding)
    places = np.lib.stride_tricks.sliding_window_view(numbers, (3, 3))
    rows = stage.op("Reshape", "x", stage.constant([padding, inputs], np.int64))
    rows = stage.op("Concat", rows, stage.constant(np.full((1, inputs), IN[1]), np.uint8), axis=0)
    rows = stage.op("Gather", rows, stage.constant(places.ravel(), np.int64), axis=0)
    rows = stage.op("Reshape", rows, stage.constant([padding, 9 * inputs], np.int64))
    product = stage.product(rows, weights.transpose(0, 2, 3, 1).reshape(outputs, -1))
    return stage.end(stage.nchw(stage.op("Reshape", product, stage.constant([1, side, side, outputs], np.int64))))


def leaky_forms(size: int) -> list[Form]:
    """LeakyReLU of slope 0.1 on 16 channels, behind the first pool."""
    shape, (scale, zero_point) = (1, size // 2, size // 2, 16), IN
    positive, negative = scale, 0.1 * scale

    def two_branches(kind: str, neutral: int) -> bytes:
        """The larger of both branches, each requantised by ``kind`` with a constant that changes nothing."""
        stage = Stage(*shape)
        branches = [
            stage.write(
                stage.op(
                    kind, stage.read("x", factor, zero_point), stage.read(stage.constant(neutral, np.uint8), 1.0, 0)
                ),
                *OUT,
            )
            for factor in (positive, negative)
        ]
        return stage.end(stage.nchw(stage.op("Max", *branches)))

    table, total = Stage(*shape), Stage(*shape)
    looked_up = table.write(table.op("LeakyRelu", table.read("x", *IN), alpha=0.1), *OUT)
    above = total.op("Max", "x", total.constant(zero_point, np.uint8))
    parts = total.read("x", negative, zero_point), total.read(above, positive - negative, zero_point)
    return [
        Form("QLinearLeakyRelu, a table", table.end(table.nchw(looked_up))),
        Form("Max, QLinearAdd", total.end(total.nchw(total.write(total.op("Add", *parts), *OUT))), chosen=True),
        Form("two QLinearAdd, Max", two_branches("Add", 0)),
        Form("two QLinearMul, Max", two_branches("Mul", 1)),
    ]


STAGES: dict[str, tuple[str, Callable[[int], list[Form]]]] = {
    "first": ("first convolution and pool", first_forms),
    "second": ("second convolution and pool", second_forms),
    "deep": ("convolution of 4.7 million weights", deep_forms),
    "leaky": ("LeakyReLU", leaky_forms),
}


def codes_for(form: Form) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Random codes of the shape that a form reads."""
    shape = open_session(form.model, 1).get_inputs()[0].shape
    return np.asarray(np.random.default_rng(1).integers(0, 256, shape), np.uint8)


def random_weights(outputs: int, inputs: int) -> Weights:
    """Codes OIHW of a 3x3 convolution, the same in every call."""
    return np.random.default_rng(0).integers(-127, 128, (outputs, inputs, 3, 3)).astype(np.int8)


def open_session(model: bytes, threads: int) -> ort.InferenceSession:
    """A quiet session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def require_equal(forms: Sequence[Form], x: np.ndarray[Any, Any]) -> None:
    """End the program unless all forms give the codes of the first one, and these differ among themselves."""
    expected, *others = (open_session(form.model, 1).run(None, {"x": x})[0] for form in forms)
    if len(np.unique(expected)) < 32:
        sys.exit(f"'{forms[0].name}' gives {len(np.unique(expected))} different codes: the comparison would be void")
    for form, found in zip(forms[1:], others, strict=True):
        if not np.array_equal(found, expected):
            sys.exit(f"'{form.name}' gives other codes than '{forms[0].name}'")


def microseconds(forms: Sequence[Form], x: np.ndarray[Any, Any], threads: int, blocks: int) -> list[float]:
    """Median microseconds per call of each form, in alternating blocks with one live session."""
    times: list[list[float]] = [[] for _ in forms]
    for _ in range(blocks):
        for form, collected in zip(forms, times, strict=True):
            session, block = open_session(form.model, threads), list[float]()
            for _ in range(5):
                session.run(None, {"x": x})
            until = time.perf_counter() + 0.15
            while time.perf_counter() < until:
                started = time.perf_counter()
                session.run(None, {"x": x})
                block.append(time.perf_counter() - started)
            collected.append(statistics.median(block))
            del session
            gc.collect()
    return [1e6 * statistics.median(collected) for collected in times]


def print_stage(title: str, write_forms: Callable[[int], list[Form]], sizes: Sequence[int], blocks: int) -> None:
    """Measure one stage and print its table."""
    columns: list[list[float]] = []
    headings: list[str] = []
    for size in sizes:
        forms = write_forms(size)
        x = codes_for(forms[0])
        require_equal(forms, x)
        for threads in (1, 2):
            columns.append(microseconds(forms, x, threads, blocks))
            headings.append(f"{size}, {threads} thread{'s'[: threads - 1]}")
    print(f"| {title}, us | {' | '.join(headings)} |")
    print("|---" * (1 + len(headings)) + "|")
    for row, form in enumerate(forms):
        mark = "**" if form.chosen else ""
        values = [f"{mark}{column[row]:.0f}{mark}" for column in columns]
        print(f"| {mark}{form.name}{mark} | {' | '.join(values)} |", flush=True)
    print()


def main() -> None:
    """Measure the stages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 416], help="of the picture, multiples of 4")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    arguments = parser.parse_args()
    if any(size < 8 or size % 4 for size in arguments.sizes) or arguments.blocks < 1:
        parser.error("sizes must be multiples of 4, 8 or more (64 for the largest convolution); blocks 1 or more")
    print(f"onnxruntime {ort.__version__}; codes of all forms of a stage are equal\n")
    for stage in arguments.stages:
        print_stage(*STAGES[stage], arguments.sizes, arguments.blocks)


if __name__ == "__main__":
    main()
