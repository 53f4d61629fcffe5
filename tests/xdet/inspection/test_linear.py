"""Inspection is work in proportion to the file: six times the operators, not 36 times the lines that run."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.xdet.finished_models import model_from_text
from xdet.inspection import inspect
from xdet.inspection.memory import Buffer, Network, Step, best_peak, plain_peak_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

SMALL, LARGE = 60, 360
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
    """Convolutions and other operators with one weight, in a chain or all of the input; each is an output, too."""
    values, nodes = ["x"], []
    for index in range(count):
        read = values[0 if wide else -1]
        op = (f"Conv({read}, w)", f"Relu({read})", f"Add({read}, x)")[index % 3]
        nodes.append(f"[n{index}] t{index} = {op}")
        values.append(f"t{index}")
    outputs = ", ".join(f"float[1,3,4,4] {name}" for name in values[1:])
    text = f"g (float[1,3,4,4] x) => ({outputs}) <float[3,3,1,1] w = {{{', '.join('1' * 9)}}}> {{ {' '.join(nodes)} }}"
    return bytes(model_from_text(text).SerializeToString())


def lines(work: Callable[[], object]) -> int:
    """How many lines of Python run; a clock would tell how busy the machine is."""
    count = 0

    def trace(_frame: FrameType, _event: str, _argument: object) -> TraceFunction:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "file",
    [tflite_file, lambda count: onnx_file(count, wide=False), lambda count: onnx_file(count, wide=True)],
    ids=["tflite", "onnx-chain", "onnx-wide"],
)
def test_six_times_the_operators_are_at_most_six_times_the_work(file: Callable[[int], bytes], tmp_path: Path) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(file(1))
    inspect(path)  # loads what it needs
    took = []
    for count in (SMALL, LARGE):
        path.write_bytes(file(count))
        took.append(lines(lambda: inspect(path)))
    assert took[1] < 6.5 * took[0], took


def chain(count: int, *, wide: bool) -> Network:
    steps = [Step("other", ("t0" if wide else f"t{index}",), (f"t{index + 1}",)) for index in range(count)]
    names = [f"t{index}" for index in range(count + 1)]
    return Network(tuple(steps), {name: Buffer(4, 4) for name in names}, ("t0",), (names[-1],))


@pytest.mark.parametrize("wide", [False, True])
def test_peaks_of_a_large_network_are_found_at_once(*, wide: bool) -> None:
    small, large = (chain(count, wide=wide) for count in (3_000, 18_000))
    assert (plain_peak_bytes(large), best_peak(large).size_bytes) == (8, 8)
    for find in (plain_peak_bytes, best_peak):
        assert lines(partial(find, large)) < 6.5 * lines(partial(find, small))


def test_the_search_over_orders_is_given_up_where_it_has_too_many_ways() -> None:
    network = chain(1_500, wide=True)
    assert not best_peak(network).exact
    assert lines(lambda: best_peak(network)) < 10_000_000
