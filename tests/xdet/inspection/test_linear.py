"""Inspection takes time in proportion to the file: six times the operators, far less than the 36 times of a square."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.converters.sources.tflite.builder import TfliteBuilder
from xdet.inspection import inspect
from xdet.inspection.memory import Buffer, Network, Step, best_peak, plain_peak_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL, LARGE = 500, 3_000
TRIES = 2
SHAPE = (1, 4, 4, 3)


def tflite_file(count: int) -> bytes:
    """A chain of float operators, each of which is an output, too, behind a softmax."""
    builder = TfliteBuilder()
    x = builder.input("image", SHAPE, "float32")
    weights = builder.constant(np.ones((3, 1, 1, 3), np.float32))
    values = [builder.op("SOFTMAX", [x], SHAPE, "float32")]
    for index in range(count):
        op = ("CONV_2D", "TRANSPOSE", "ADD")[index % 3]
        second = weights if op == "CONV_2D" else x
        values.append(builder.op(op, [values[-1], second, None][: 3 - (op != "CONV_2D")], SHAPE, "float32"))
    return builder.build(values[1:])


def onnx_file(count: int, *, wide: bool) -> bytes:
    """Convolutions and other operators with one weight, in a chain or all of the input, each of which is an output, too."""
    ops = {"Conv": ["w"], "Relu": [], "Add": ["x"]}
    values, nodes = ["x"], []
    for index in range(count):
        op, more = list(ops.items())[index % 3]
        nodes.append(
            helper.make_node(op, [values[0 if wide else -1], *more], [f"t{index}"], name=f"n{index}")
        )
        values.append(f"t{index}")
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in values]
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "g", types[:1], types[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


def seconds(work: Callable[[], object]) -> float:
    """CPU time of the faster of two runs, without the garbage collector's walks through whatever else is alive."""
    took = []
    for _ in range(TRIES):
        gc.collect()
        gc.disable()
        try:
            start = time.process_time()
            work()
            took.append(time.process_time() - start)
        finally:
            gc.enable()
    return min(took)


@pytest.mark.parametrize(
    "file",
    [tflite_file, lambda count: onnx_file(count, wide=False), lambda count: onnx_file(count, wide=True)],
    ids=["tflite", "onnx-chain", "onnx-wide"],
)
def test_six_times_the_operators_take_far_less_than_36_times_the_time(
    file: Callable[[int], bytes], tmp_path: Path
) -> None:
    took = []
    for count in (SMALL, LARGE):
        (tmp_path / "m.model").write_bytes(file(count))
        took.append(seconds(lambda: inspect(tmp_path / "m.model")))
    assert took[1] < 16 * took[0], took


def chain(count: int, *, wide: bool) -> Network:
    steps = [Step("other", ("t0" if wide else f"t{index}",), (f"t{index + 1}",)) for index in range(count)]
    names = [f"t{index}" for index in range(count + 1)]
    return Network(tuple(steps), {name: Buffer(4, 4) for name in names}, ("t0",), (names[-1],))


@pytest.mark.parametrize("wide", [False, True])
def test_peaks_of_a_large_network_are_found_at_once(*, wide: bool) -> None:
    network = chain(32_000, wide=wide)
    assert (plain_peak_bytes(network), best_peak(network).size_bytes) == (8, 8)
    assert seconds(lambda: (plain_peak_bytes(network), best_peak(network))) < 10


def test_the_search_over_orders_is_given_up_where_it_has_too_many_ways() -> None:
    network = chain(1_500, wide=True)
    assert not best_peak(network).exact
    assert seconds(lambda: best_peak(network)) < 10
