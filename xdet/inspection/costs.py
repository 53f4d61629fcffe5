"""What a network costs: its layers, and how much memory activations need at once.

**Plain**: the operators run in the file's order and every tensor has a buffer of its own, from the step that writes it
(the model's inputs: from the start) to the last step that reads it (the model's outputs: to the end). A step needs its
inputs and its outputs at the same time. The peak is the largest sum of live buffers over all steps. Constants are not
activations.

**Best**: the least peak over all orders of the operators, where besides

- an elementwise operator may write over an input that nobody reads afterwards and that is no output of the model, if
  its output is not larger;
- a convolution whose result goes (through elementwise operators, if any) to one pool and nowhere else may run together
  with it: instead of the convolution's whole result it keeps as many rows of it as the pool looks at.

Both are chosen only where they help. The search is exact (a bottleneck shortest path over sets of finished operators)
up to ``MOST_STEPS`` operators and ``MOST_STATES`` sets; beyond, it keeps the file's order, fuses what stands side by
side there, and says so. Both take time in proportion to the network: a set knows its live bytes and what may run next,
and both follow from the set before it.
"""

from __future__ import annotations

import heapq
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

StepKind = Literal["convolution", "pool", "elementwise", "other"]
MOST_STATES = 20_000
MOST_STEPS = 2_000
WAYS_PER_STATE = 10  # on average; where more may run next, the sets are too many anyway


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """An input or output of a model or of a layer."""

    name: str
    dtype: str  # numpy's name of its element type
    shape: tuple[int | str, ...]  # a text is a dimension that the caller chooses
    scale: float | None = None  # None where the tensor is not quantised, or has several
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """One operator in the file's order. In ONNX files Q and DQ nodes around an operator belong to it."""

    op: str  # as the format calls it
    inputs: tuple[tuple[int, ...], ...]  # shapes of what it reads, constants left out
    output: TensorSummary  # the first one
    macs: int  # multiply-accumulates for one image: of convolutions and matrix products; 0 for all others
    parameters: int  # numbers the file holds for it: weights and biases
    weight_bytes: int  # their bytes as stored, without scales and zero-points
    weight_scales: int  # how many scales its weights have: 0 for float, 1 per tensor, else one per channel
    activation_bytes: int  # bytes of all its outputs for one image
    integer: bool  # whether it computes on integer codes, as the file states it


@dataclass(frozen=True, slots=True)
class Totals:
    """What a network costs for one image; docs/inspect.md defines each number."""

    macs: int  # of its convolutions and matrix products
    macs_integer: int  # those of them on integer codes, as the file states it
    parameters: int  # weights and biases
    weight_bytes: int  # as flash would hold them
    peak_plain_bytes: int  # peak of live activations, a buffer per tensor, the file's order
    peak_best_bytes: int  # the least peak with in-place operators and convolutions fused with pools
    best_is_exact: bool  # whether that least peak is over all orders; else over the file's order only


@dataclass(frozen=True, slots=True)
class Step:
    """One operator as memory sees it: what may be done with it, and tensors by name, constants left out."""

    kind: StepKind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    window_rows: int = 0  # for a pool, the rows of its input that one row of its output looks at


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor's size: all of it, and one row of the picture (all of it where it is no picture)."""

    size_bytes: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """Operators in the file's order, with every tensor that is no constant."""

    steps: tuple[Step, ...]
    buffers: Mapping[str, Buffer]
    inputs: tuple[str, ...]  # tensors that the caller feeds
    outputs: tuple[str, ...]  # tensors that the caller reads


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak in bytes; ``exact`` where it is the least over all orders."""

    size_bytes: int
    exact: bool


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    """A tensor's bytes; elements below a byte are packed, those without a fixed size (strings) count nothing."""
    digits = re.match(r"(?:u?int|b?float|complex)(\d+)", dtype)
    bits = 8 if dtype == "bool" else int(digits[1]) if digits else 0
    return (math.prod(shape) * bits + 7) // 8


def picture_buffer(shape: Sequence[int], size_bytes: int, *, rows_axis: int) -> Buffer:
    """A tensor as memory sees it; one of four axes is a picture, whose rows are one of them."""
    rows = shape[rows_axis] if len(shape) == 4 else 1
    return Buffer(size_bytes, size_bytes // (rows or 1))


def plain_peak_bytes(network: Network) -> int:
    """The peak of the plain schedule."""
    alone = [_Move((index,), step.inputs, step.outputs) for index, step in enumerate(network.steps)]
    return _least_in_order(_Lives(network), alone)


def best_peak(network: Network) -> Peak:
    """The least peak; see the module's text."""
    lives = _Lives(network)
    moves = _moves(network, lives)
    peak = _least_over_orders(lives, moves) if len(network.steps) <= MOST_STEPS else None
    return Peak(_least_in_order(lives, moves), exact=False) if peak is None else Peak(peak, exact=True)


@dataclass(frozen=True, slots=True)
class _Move:
    """Steps that run as one: a single step, or a convolution with its pool; in the file's order."""

    steps: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scratch_bytes: int = 0
    elementwise: bool = False


class _Lives:
    """How long every tensor lives: who writes it, which steps read it in their order, and what the caller holds.

    ``is_free`` tells of a tensor, in all methods, that nobody reads it behind the steps in question.
    """

    def __init__(self, network: Network) -> None:
        self.steps, self.buffers = network.steps, network.buffers
        self.inputs, self.outputs = frozenset(network.inputs), frozenset(network.outputs)
        self.writers = {name: index for index, step in enumerate(network.steps) for name in step.outputs}
        self.readers: dict[str, list[int]] = {name: [] for name in network.buffers}
        for index, step in enumerate(network.steps):
            for name in dict.fromkeys(step.inputs):
                self.readers[name].append(index)

    def at_first(self) -> int:
        """What the caller's inputs take before the first step."""
        return self._size(name for name in self.inputs if self.readers[name] or name in self.outputs)

    def change(self, steps: tuple[int, ...], is_free: Callable[[str], bool]) -> int:
        """By how much the live bytes grow over some steps."""
        written = {n for index in steps for n in self.steps[index].outputs if self.writers[n] == index} - self.inputs
        read = {name for index in steps for name in self.steps[index].inputs} - written
        live = (n for n in read if n in self.inputs or self.writers.get(n, steps[0]) < steps[0])
        born = self._size(n for n in written if n in self.outputs or not is_free(n))
        return born - self._size(n for n in live if n not in self.outputs and is_free(n))

    def additional(self, move: _Move, is_free: Callable[[str], bool]) -> int:
        """What a move needs on top of what is live: its outputs, unless one takes an input's place, and its rows."""
        written = self._size(move.outputs)
        if move.elementwise and any(
            self.buffers[name].size_bytes >= written and name not in self.outputs and is_free(name)
            for name in move.inputs
        ):
            return 0
        return written + move.scratch_bytes

    def _size(self, names: Iterable[str]) -> int:
        return sum(self.buffers[name].size_bytes for name in names)


def _moves(network: Network, lives: _Lives) -> list[_Move]:
    """Every step alone, and every convolution that can run together with its pool."""
    alone = [
        _Move((index,), step.inputs, step.outputs, elementwise=step.kind == "elementwise")
        for index, step in enumerate(network.steps)
    ]
    return [*alone, *_fused(network, lives)]


def _fused(network: Network, lives: _Lives) -> Iterator[_Move]:
    for index, pool in enumerate(network.steps):
        if pool.kind != "pool" or len(pool.inputs) != 1:
            continue
        done, rows, name = [index], 0, pool.inputs[0]
        while name in lives.writers and len(lives.readers[name]) == 1 and name not in lives.outputs:
            done.append(lives.writers[name])
            rows, writer = max(rows, network.buffers[name].row_bytes), network.steps[done[-1]]
            if writer.kind == "convolution":
                yield _Move(tuple(reversed(done)), writer.inputs, pool.outputs, rows * pool.window_rows)
                break
            if writer.kind != "elementwise" or len(writer.inputs) != 1:
                break
            name = writer.inputs[0]


def _least_in_order(lives: _Lives, moves: Sequence[_Move]) -> int:
    """The least peak in the file's order: up to every step the cheapest way there, whose last move ends with it."""
    ending: dict[int, list[_Move]] = {}
    for move in moves:
        if move.steps == tuple(range(move.steps[0], move.steps[0] + len(move.steps))):
            ending.setdefault(move.steps[-1], []).append(move)
    live, peaks = [lives.at_first()], [lives.at_first()]
    for index in range(len(lives.steps)):
        is_free = _read_until(lives, index)
        ways = ((move.steps[0], lives.additional(move, is_free)) for move in ending[index])
        peaks.append(min(max(peaks[start], live[start] + more) for start, more in ways))
        live.append(live[-1] + lives.change((index,), is_free))
    return peaks[-1]


def _read_until(lives: _Lives, index: int) -> Callable[[str], bool]:
    """Whether nobody reads a tensor behind a step of the file's order."""
    return lambda name: not lives.readers[name] or lives.readers[name][-1] <= index


@dataclass(frozen=True, eq=False, slots=True)
class _State:
    """A set of finished steps, as bits, its live bytes, and the moves that may run next."""

    done: int
    live: int
    ready: tuple[int, ...]


class _Orders:
    """The sets of finished steps and the ways between them."""

    def __init__(self, lives: _Lives, moves: Sequence[_Move]) -> None:
        self.lives, self.moves = lives, moves
        self.masks = [_bits(move.steps) for move in moves]
        writers = [{lives.writers[name] for name in move.inputs if name in lives.writers} for move in moves]
        self.needs = [_bits(steps) for steps in writers]
        self.readers = {name: _bits(steps) for name, steps in lives.readers.items()}
        self.waiting: list[list[int]] = [[] for _ in lives.steps]  # by a step: the moves that need it
        for number, steps in enumerate(writers):
            for step in steps:
                self.waiting[step].append(number)

    def first(self) -> _State:
        """Nothing is done."""
        ready = tuple(number for number, needs in enumerate(self.needs) if not needs)
        return _State(0, self.lives.at_first(), ready)

    def peak_of(self, state: _State, number: int) -> int:
        """Live bytes while a move runs."""
        return state.live + self.lives.additional(self.moves[number], self._unread(state.done | self.masks[number]))

    def after(self, state: _State, number: int) -> _State:
        """The set behind a move."""
        done = state.done | self.masks[number]
        woken = (other for step in self.moves[number].steps for other in self.waiting[step])
        ready = [other for other in state.ready if not self.masks[other] & done]
        ready += [n for n in dict.fromkeys(woken) if self.needs[n] & done == self.needs[n] and not self.masks[n] & done]
        return _State(done, state.live + self.lives.change(self.moves[number].steps, self._unread(done)), tuple(ready))

    def _unread(self, done: int) -> Callable[[str], bool]:
        return lambda name: not self.readers[name] & ~done


def _least_over_orders(lives: _Lives, moves: Sequence[_Move]) -> int | None:
    """Dijkstra over sets of finished steps, the largest sum on the way as its length.

    None beyond ``MOST_STATES`` sets, and where operators wait for each other.
    """
    orders, everything = _Orders(lives, moves), (1 << len(lives.steps)) - 1
    state = orders.first()
    peak, ways, visited = state.live, 0, {0}
    queue: list[tuple[int, int, int, _State, int]] = []  # peak, -steps done (deep first), way, from where, which move
    while state.done != everything:
        if len(visited) > MOST_STATES or ways > WAYS_PER_STATE * MOST_STATES:
            return None
        for number in state.ready:
            ways += 1
            steps = (state.done | orders.masks[number]).bit_count()
            heapq.heappush(queue, (max(peak, orders.peak_of(state, number)), -steps, ways, state, number))
        while queue:
            peak, _, _, before, number = heapq.heappop(queue)
            if before.done | orders.masks[number] not in visited:
                break
        else:
            return None
        state = orders.after(before, number)
        visited.add(state.done)
    return peak


def _bits(numbers: Iterable[int]) -> int:
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits
