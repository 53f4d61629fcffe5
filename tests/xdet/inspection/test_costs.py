"""Peaks of live activations on networks small enough to work out by hand, found in time in proportion to a file."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.xdet.finished_models import model_from_text
from xdet.inspection import inspect
from xdet.inspection.costs import Buffer, Network, Peak, Step, best_peak, plain_peak_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

    from xdet.inspection.costs import StepKind


def network(*steps: Step, sizes: dict[str, int], rows: int = 1, outputs: tuple[str, ...] = ("y",)) -> Network:
    """Tensor ``x`` goes in; every tensor is a picture of ``rows`` rows."""
    buffers = {name: Buffer(size, size // rows) for name, size in sizes.items()}
    return Network(steps, buffers, ("x",), outputs)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    # x 10 -> a 40 -> y 20: 10 + 40 = 50 at the first step, 40 + 20 = 60 at the second.
    chain = network(Step("other", ("x",), ("a",)), Step("other", ("a",), ("y",)), sizes={"x": 10, "a": 40, "y": 20})
    assert plain_peak_bytes(chain) == 60
    assert best_peak(chain) == Peak(60, exact=True)


def test_a_tensor_that_is_read_again_stays_alive_in_between() -> None:
    # x is read by the last step, too: 10 + 40, then 10 + 40 + 20, then 10 + 20 + 5.
    steps = (Step("other", ("x",), ("a",)), Step("other", ("a",), ("b",)), Step("other", ("b", "x"), ("y",)))
    assert plain_peak_bytes(network(*steps, sizes={"x": 10, "a": 40, "b": 20, "y": 5})) == 70


def test_an_output_of_the_model_stays_alive_to_the_end() -> None:
    steps = (Step("other", ("x",), ("y",)), Step("other", ("x",), ("a",)), Step("other", ("a",), ("z",)))
    sizes = {"x": 1, "y": 8, "a": 4, "z": 2}
    assert plain_peak_bytes(network(*steps, sizes=sizes, outputs=("y", "z"))) == 14  # y 8 + a 4 + z 2


@pytest.mark.parametrize(
    ("kind", "out", "expected"),
    [("elementwise", 40, 50), ("elementwise", 41, 81), ("elementwise", 8, 50), ("other", 40, 80)],
    ids=["same-size", "larger", "smaller", "not-elementwise"],
)
def test_an_elementwise_operator_writes_over_its_input_unless_its_output_is_larger(
    kind: str, out: int, expected: int
) -> None:
    # x 10 -> a 40 -> y: in place the second step needs nothing more, so the first one (10 + 40) decides.
    second = Step("elementwise" if kind == "elementwise" else "other", ("a",), ("y",))
    chain = network(Step("other", ("x",), ("a",)), second, sizes={"x": 10, "a": 40, "y": out})
    assert plain_peak_bytes(chain) == max(10 + 40, 40 + out)
    assert best_peak(chain).size_bytes == expected


def test_what_is_read_later_or_is_an_output_is_not_written_over() -> None:
    steps = (Step("elementwise", ("x",), ("a",)), Step("other", ("a", "x"), ("y",)))
    assert best_peak(network(*steps, sizes={"x": 10, "a": 10, "y": 1})).size_bytes == 21
    alone = network(Step("elementwise", ("x",), ("y",)), sizes={"x": 10, "y": 10}, outputs=("x", "y"))
    assert best_peak(alone).size_bytes == 20


def test_a_sum_takes_the_place_of_either_input() -> None:
    steps = (Step("other", ("x",), ("a",)), Step("other", ("x",), ("b",)), Step("elementwise", ("a", "b"), ("y",)))
    # 10 + 4, then 10 + 4 + 4, then y in a's place: 4 + 4
    assert best_peak(network(*steps, sizes={"x": 10, "a": 4, "b": 4, "y": 4})).size_bytes == 18


def conv_and_pool(window_rows: int, pooled: int, *, between: bool = True) -> Network:
    """Input 12 -> convolution 64 in 8 rows of 8 -> activation -> pool."""
    steps = [Step("convolution", ("x",), ("c",))]
    steps += [Step("elementwise", ("c",), ("r",))] if between else []
    steps += [Step("pool", ("r" if between else "c",), ("y",), window_rows)]
    return network(*steps, sizes={"x": 12, "c": 64, "r": 64, "y": pooled}, rows=8)


@pytest.mark.parametrize("between", [True, False])
def test_a_convolution_fused_with_its_pool_keeps_the_rows_of_one_window(*, between: bool) -> None:
    fused = conv_and_pool(2, 16, between=between)
    assert best_peak(fused).size_bytes == 12 + 2 * 8 + 16  # input, two rows of eight bytes, the pooled picture
    assert plain_peak_bytes(conv_and_pool(2, 16)) == 128  # the convolution's result and the activation's


def test_fusing_is_chosen_only_where_it_helps() -> None:
    # A pool of stride 1 over the whole height: fused 12 + 64 + 64 = 140; one by one max(12 + 64, 64 + 64) = 128.
    assert best_peak(conv_and_pool(8, 64)).size_bytes == 128


def test_a_convolution_that_somebody_else_reads_is_not_fused() -> None:
    steps = (Step("convolution", ("x",), ("c",)), Step("pool", ("c",), ("p",), 2), Step("other", ("c", "p"), ("y",)))
    assert best_peak(network(*steps, sizes={"x": 12, "c": 64, "p": 16, "y": 1}, rows=8)).size_bytes == 81


def test_the_best_order_runs_the_branch_that_shrinks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two branches from x: wide 100 -> 1, and narrow 10 -> 1. File order keeps both first results: 20 + 100 + 10.
    steps = (
        Step("other", ("x",), ("w",)),
        Step("other", ("x",), ("n",)),
        Step("other", ("w",), ("w1",)),
        Step("other", ("n",), ("n1",)),
        Step("other", ("w1", "n1"), ("y",)),
    )
    sizes = {"x": 20, "w": 100, "n": 10, "w1": 1, "n1": 1, "y": 1}
    assert plain_peak_bytes(network(*steps, sizes=sizes)) == 130
    # Narrow first (20 + 10, 20 + 10 + 1), then wide while x and n1 live: 20 + 1 + 100.
    assert best_peak(network(*steps, sizes=sizes)) == Peak(121, exact=True)
    monkeypatch.setattr("xdet.inspection.costs.MOST_STATES", 2)
    assert best_peak(network(*steps, sizes=sizes)) == Peak(130, exact=False)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Up to six operators that each read one or two earlier tensors; what nobody reads is an output."""
    names, read = ["x"], set[str]()
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 6))):
        inputs = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)))
        kind: StepKind = draw(st.sampled_from(["convolution", "pool", "elementwise", "other"]))
        steps.append(Step(kind, inputs, (f"t{index}",), 2 if kind == "pool" else 0))
        names.append(f"t{index}")
        read.update(inputs)
    sizes = {name: draw(st.integers(1, 9)) * 4 for name in names}
    buffers = {name: Buffer(size, size // 4) for name, size in sizes.items()}
    outputs = tuple(name for name in names[1:] if name not in read)
    return Network(tuple(steps), buffers, ("x",), outputs)


def peak_in_order(network: Network, order: tuple[int, ...]) -> int | None:
    """The least peak of one order of single steps in place, by simulation; None where an input is not there yet."""
    exist, peak = set(network.inputs), 0
    for position, index in enumerate(order):
        step = network.steps[index]
        if not exist.issuperset(step.inputs):
            return None
        wanted = {name for later in order[position:] for name in network.steps[later].inputs}
        live = {name for name in exist if name in wanted or name in network.outputs}
        later_on = {name for later in order[position + 1 :] for name in network.steps[later].inputs}
        size = {name: network.buffers[name].size_bytes for name in network.buffers}
        free = [n for n in step.inputs if n not in later_on and n not in network.outputs]
        in_place = step.kind == "elementwise" and any(size[n] >= size[step.outputs[0]] for n in free)
        peak = max(peak, sum(size[n] for n in live) + (0 if in_place else size[step.outputs[0]]))
        exist.add(step.outputs[0])
    return peak


@given(networks())
def test_the_search_finds_what_trying_every_order_finds_or_less_by_fusing(drawn: Network) -> None:
    orders = itertools.permutations(range(len(drawn.steps)))
    least = min(peak for order in orders if (peak := peak_in_order(drawn, order)) is not None)
    found = best_peak(drawn)
    assert found.exact
    assert found.size_bytes <= least <= plain_peak_bytes(drawn)
    if not any(step.kind == "pool" for step in drawn.steps):
        assert found.size_bytes == least


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
