"""Static part, how tensors are connected: every value is computed of those that carry its operator's operands.

What stands between two values that carry tensors of the source is the business of other comparisons. Here only which of
these values come first on the way back from a value counts, in the order of the operands where that matters. A tensor
that a pass removed stands for what it was computed from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.spec import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdet.checking.numbers.comparison import SourceLayer, StaticComparison

VIEWS = frozenset({"Reshape", "Transpose"})
COMMUTATIVE = frozenset({"ADD", "MUL", "MAXIMUM", "MINIMUM"})
PADS = frozenset({"PAD", "PADV2"})  # may stand within a convolution, whose pads are compared


def compare_wiring(context: StaticComparison, layers: Sequence[SourceLayer]) -> None:
    """Compare what every value is computed of with what its tensor is; a value and its views are one."""
    values = {layer.name: _viewed(context, context.value_of(layer.name)) for layer in layers}
    judged = {_viewed(context, context.picture), *(values[layer.name] for layer in layers if not layer.reads)}
    carriers, by_name = {*values.values(), *judged} - {""}, {layer.name: layer for layer in layers}
    for layer in layers:
        value = values[layer.name]
        if value in judged or value not in context.graph.producers:
            continue
        judged.add(value)  # with the first of the tensors that share it
        actual = _values_before(context, value, carriers)
        expected, unpadded = (_tensors_before(layer, values, by_name, through) for through in (frozenset(), PADS))
        if layer.operator in COMMUTATIVE:
            actual, expected, unpadded = sorted(actual), sorted(expected), sorted(unpadded)
        if actual not in (expected, unpadded):
            message = f"{layer.operator} {layer.name!r} is computed of {actual} in the graph, expected {expected}"
            context.fault("wiring", layer.name, f"{message}; convert the source again")


def _viewed(context: StaticComparison, value: str) -> str:
    """The value of which one is a view: behind it stand transpositions and reshapes alone."""
    visited = set()
    while (node := context.graph.producers.get(value)) is not None and node.op in VIEWS and value not in visited:
        visited.add(value)
        value = node.inputs[0]
    return value


def _values_before(context: StaticComparison, value: str, carriers: set[str]) -> list[str]:
    """The first values among ``carriers`` on every way back from a value, in the order of operands."""
    met: dict[str, None] = {}
    visited, waiting = {value}, list(reversed(context.graph.producers[value].inputs))
    while waiting:
        name = _viewed(context, waiting.pop())
        if name in visited:
            continue
        visited.add(name)
        node = context.graph.producers.get(name)
        if name in carriers:
            met[name] = None
        elif node is not None:
            waiting += reversed(node.inputs)
    return list(met)


def _tensors_before(
    layer: SourceLayer, values: Mapping[str, str], layers: Mapping[str, SourceLayer], through: frozenset[str]
) -> list[str]:
    """What carries the tensors of which a layer is computed; behind those that nothing carries, what these are."""
    met: dict[str, None] = {}
    visited, waiting = {layer.name}, list(reversed(layer.reads))
    while waiting:
        name = waiting.pop()
        if name in visited or name not in layers:  # constants are none of the layers
            continue
        visited.add(name)
        if layers[name].reads and (values[name] in ("", values[layer.name]) or layers[name].operator in through):
            waiting += reversed(layers[name].reads)
        else:
            met[values[name] or IMAGE] = None
    return list(met)
