"""How much memory activations need at once: the plain schedule, and the best one in place with fused pools.

**Plain**: the operators run in the file's order and every tensor has a buffer of its own, from the step that writes it (the
model's inputs: from the start) to the last step that reads it (the model's outputs: to the end). A step needs its inputs and
its outputs at the same time. The peak is the largest sum of live buffers over all steps. Constants are not activations.

**Best**: the least peak over all orders of the operators, where besides

- an elementwise operator may write over an input that nobody reads afterwards and that is no output of the model, if its
  output is not larger;
- a convolution whose result goes (through elementwise operators, if any) to one pool and nowhere else may run together with
  it: instead of the convolution's whole result it keeps as many rows of it as the pool looks at.

Both are chosen only where they help. The search is exact (a bottleneck shortest path over sets of finished operators) up to
``MOST_STATES`` sets; beyond, it keeps the file's order and says so.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

StepKind = Literal["convolution", "pool", "elementwise", "other"]
MOST_STATES = 20_000


@dataclass(frozen=True, slots=True)
class Step:
    """One operator as memory sees it.

    Attributes:
        kind: what may be done with it.
        inputs: tensors it reads, constants left out.
        outputs: tensors it writes.
        window_rows: for a pool, the rows of its input that one row of its output looks at.
    """

    kind: StepKind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    window_rows: int = 0


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor's size: all of it, and one row of the picture (all of it where it is no picture)."""

    size_bytes: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """Operators in the file's order, with their tensors.

    Attributes:
        steps: the operators.
        buffers: every tensor that is no constant.
        inputs: tensors that the caller feeds.
        outputs: tensors that the caller reads.
    """

    steps: tuple[Step, ...]
    buffers: Mapping[str, Buffer]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak in bytes; ``exact`` where it is the least over all orders."""

    size_bytes: int
    exact: bool


@dataclass(frozen=True, slots=True)
class _Move:
    """Steps that run as one: a single step, or a convolution with its pool; sets of steps are bits."""

    done: int
    needs: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scratch_bytes: int
    elementwise: bool


def plain_peak_bytes(network: Network) -> int:
    """The peak of the plain schedule."""
    readers = _readers(network)
    executed, peak = 0, _live_bytes(network, readers, 0)
    for index, step in enumerate(network.steps):
        live = _live_bytes(network, readers, executed)
        peak = max(peak, live + sum(network.buffers[name].size_bytes for name in step.outputs))
        executed |= 1 << index
    return peak


def best_peak(network: Network, *, most_states: int = MOST_STATES) -> Peak:
    """The least peak; see the module's text."""
    peak = _search(network, most_states, any_order=True)
    if peak is not None:
        return Peak(peak, exact=True)
    peak = _search(network, len(network.steps) ** 2 + 2, any_order=False)
    return Peak(plain_peak_bytes(network) if peak is None else peak, exact=False)


def _search(network: Network, most_states: int, *, any_order: bool) -> int | None:
    """Dijkstra over sets of finished steps, the largest sum on the way as its length; None beyond ``most_states`` sets."""
    readers, moves = _readers(network), _moves(network)
    everything = (1 << len(network.steps)) - 1
    queue = [(_live_bytes(network, readers, 0), 0, 0)]  # peak, -steps done (deep first), steps done
    seen: set[int] = set()
    while queue:
        peak, _, done = heapq.heappop(queue)
        if done == everything:
            return peak
        if done in seen:
            continue
        seen.add(done)
        if len(seen) > most_states:
            return None
        live = _live_bytes(network, readers, done)
        first_open = (done + 1) & ~done
        for move in moves:
            ready = not move.done & done and move.needs & done == move.needs
            if ready and (any_order or move.done & first_open):
                step_peak = live + _additional_bytes(network, readers, done, move)
                after = done | move.done
                heapq.heappush(queue, (max(peak, step_peak), -after.bit_count(), after))
    return None


def _additional_bytes(network: Network, readers: Mapping[str, int], done: int, move: _Move) -> int:
    """What a move needs on top of what is live: its outputs, unless one takes an input's place, and its rows."""
    written = sum(network.buffers[name].size_bytes for name in move.outputs)
    if move.elementwise and any(
        network.buffers[name].size_bytes >= written
        and not readers[name] & ~(done | move.done)
        and name not in network.outputs
        for name in move.inputs
    ):
        return 0
    return written + move.scratch_bytes


def _live_bytes(network: Network, readers: Mapping[str, int], done: int) -> int:
    """Bytes of tensors that exist and are still wanted after the steps ``done``."""
    exist = list(network.inputs)
    for index, step in enumerate(network.steps):
        if done >> index & 1:
            exist += step.outputs
    return sum(
        network.buffers[name].size_bytes
        for name in dict.fromkeys(exist)
        if readers[name] & ~done or name in network.outputs
    )


def _readers(network: Network) -> dict[str, int]:
    """For every tensor the steps that read it, as bits."""
    readers = dict.fromkeys(network.buffers, 0)
    for index, step in enumerate(network.steps):
        for name in step.inputs:
            readers[name] |= 1 << index
    return readers


def _moves(network: Network) -> list[_Move]:
    """Every step alone, and every convolution that can run together with its pool."""
    writers = {name: index for index, step in enumerate(network.steps) for name in step.outputs}
    moves = []
    for index, step in enumerate(network.steps):
        needs = sum({1 << writers[name] for name in step.inputs if name in writers})
        moves.append(_Move(1 << index, needs, step.inputs, step.outputs, 0, step.kind == "elementwise"))
    moves += _fused_moves(network, writers)
    return moves


def _fused_moves(network: Network, writers: Mapping[str, int]) -> Iterator[_Move]:
    readers = _readers(network)
    for index, pool in enumerate(network.steps):
        if pool.kind != "pool" or len(pool.inputs) != 1:
            continue
        done, row_bytes, name = 1 << index, 0, pool.inputs[0]
        while name in writers and readers[name].bit_count() == 1 and name not in network.outputs:
            writer = network.steps[writers[name]]
            done |= 1 << writers[name]
            row_bytes = max(row_bytes, network.buffers[name].row_bytes)
            if writer.kind == "convolution":
                needs = sum({1 << writers[read] for read in writer.inputs if read in writers})
                scratch = row_bytes * pool.window_rows
                yield _Move(done, needs, writer.inputs, pool.outputs, scratch, elementwise=False)
                break
            if writer.kind != "elementwise" or len(writer.inputs) != 1:
                break
            name = writer.inputs[0]
