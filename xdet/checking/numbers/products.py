"""Static part, products and pools: weights, strides, padding, groups, windows, the form that runtimes run in integers.

One comparison for every source: of a layer (``comparison``), in the form that passes gave it (``rewrites``), with its
node. Numbers that the graph holds as the source has them (codes, or float32) must be equal. Those that conversion folds
are folded in float64: float32 numbers may differ by the rounding of the four operations that a converter needs,
``ROUNDING`` relative to the terms of the sum; codes must be the nearest ones, |w / scale - code| <= 1/2 but for that
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.checking.numbers.comparison import NO_PADS, added, same_pads, writer_past
from xdet.checking.numbers.rewrites import as_written, chooses_others, wrong_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.checking.numbers.comparison import ChannelAffine, Pads, Pool, Product, StaticComparison
    from xdet.checking.result import Cause
    from xdet.model.graph import Node


PLAIN = {"strides": (1, 1), "dilations": (1, 1), "group": 1}


def compare_product(
    context: StaticComparison,
    product: Product,
    node: Node,
    *,
    padded: Pads = NO_PADS,
    behind: Iterable[ChannelAffine] = (),
) -> str | None:
    """Compare a Conv or Gemm with a product of the source.

    Args:
        context: the comparison.
        product: the source's.
        node: the graph's.
        padded: by Pad nodes in front of it that belong to it.
        behind: what the graph computes of its result by channels, where the source folds it.

    Returns:
        The pass that repeated the source's channels in it, if one did.
    """
    layer = product.layers[0]
    require_integer_form(context, node, layer)
    weights = stored(context, node, 1)
    written = as_written(product, () if weights is None else weights.values.shape, context.document.passes)
    wrong = wrong_pixels(context.graph, node, product, written)
    if wrong is not None:
        context.fault("padding", layer, f"{layer!r} on groups of pixels reads {wrong}")
    if len(written.product.kernel) > len(product.kernel) and chooses_others(context.graph, node, len(product.kernel)):
        context.fault("attributes", layer, f"the channels that are taken of {layer!r} are not the source's")
    if written.by is not None:
        proof = f"all {written.copies} copies equal the source's, and everything between them is zero ({written.by})"
        names = product.tensors or product.layers[:1]
        for name in names:
            context.prove(name, layer, "weights", proof)
    compare_constants(context, written.product, node, behind)
    if node.op == "Conv":
        _compare_geometry(context, written.product, node, NO_PADS if written.by else padded)
    return written.by


def _compare_geometry(context: StaticComparison, product: Product, node: Node, padded: Pads) -> None:
    layer = product.layers[0]
    expected = {"strides": product.strides, "dilations": product.dilations, "group": product.groups}
    actual = {name: node.attributes.get(name, PLAIN[name]) for name in expected}
    context.compared += len(expected)
    for name, wanted in expected.items():
        if actual[name] != wanted:
            context.fault("attributes", layer, f"{name} of {layer!r}: expected {wanted}, found {actual[name]}")
    if product.pads is None or product.size is None:
        context.uncompared.append(f"padding of {layer!r}")
        return
    window = {"kernel_shape": product.kernel.shape[2:], "strides": actual["strides"], "dilations": actual["dilations"]}
    (height, width), (top, left, bottom, right) = product.size, padded
    size = height + top + bottom, width + left + right
    pads = added([actual_pads(node, size, window), padded])
    compare_pads(context, layer, product.pads, pads)


def compare_pads(context: StaticComparison, layer: str, expected: Pads, actual: Pads) -> None:
    """Compare top, left, bottom and right."""
    context.compared += 4
    if actual != expected:
        context.fault("padding", layer, _pads_text(layer, expected, actual))


def _pads_text(layer: str, expected: Pads, actual: Pads) -> str:
    return f"padding of {layer!r} (top, left, bottom, right): expected {expected}, found {actual}"


def actual_pads(node: Node, size: Sequence[int], window: Mapping[str, tuple[int, ...]]) -> Pads:
    """What a pool or convolution really pads: top, left, bottom, right; ``size`` is its input's height and width."""
    rule = node.attributes.get("auto_pad", "NOTSET")
    if rule not in ("SAME_UPPER", "SAME_LOWER"):
        top, left, bottom, right = node.attributes.get("pads", NO_PADS) if rule == "NOTSET" else NO_PADS
        return (top, left, bottom, right)
    same = same_pads(tuple(size), window["kernel_shape"], window["strides"], window.get("dilations", (1, 1)))
    return same if rule == "SAME_UPPER" else (*same[2:], *same[:2])


def pool_fault(pool: Pool, layer: str, node: Node, size: Sequence[int]) -> tuple[Cause, str] | None:
    """How a pool differs from the source's, whose input has this size; None where it does not, as far as is known."""
    expected = {"kernel_shape": pool.window, "strides": pool.strides}
    actual = {name: node.attributes.get(name, (1, 1)) for name in expected}
    if node.op != pool.op or actual != expected:
        return "attributes", f"the pool {layer!r}: expected {pool.op} {expected}, found {node.op} {actual}"
    pads = actual_pads(node, size, expected)
    if pool.pads is None or pads == pool.pads:
        return None
    return "padding", _pads_text(layer, pool.pads, pads)


def compare_limits(
    context: StaticComparison, layer: str, limits: tuple[float | None, float | None], node: Node
) -> None:
    """Compare the lower and the upper limit of a ReLU with those of a Relu or Clip."""
    actual: tuple[float | None, ...] = (0.0, None)
    if node.op == "Clip":
        stored = (context.graph.constant(name) for name in (*node.inputs[1:], "", "")[:2])
        actual = tuple(float(a.item()) if a is not None and a.size == 1 else None for a in stored)
    context.compared += 2
    if actual != limits:
        message = f"expected {limits[0]} to {limits[1]}, found {actual[0]} to {actual[1]}"
        context.fault("attributes", layer, f"limits of {layer!r}: {message}")


def require_integer_form(context: StaticComparison, node: Node, layer: str) -> None:
    """DequantizeLinear on every operand, one QuantizeLinear behind: the only form that runtimes run in integers."""
    if context.document.activations == "float32":
        return
    operands = node.inputs[:2] if context.document.symmetric else node.inputs  # a symmetric one's bias is float32
    for position, name in enumerate(operands):
        moves = ("Reshape", "Transpose") if node.op == "Gemm" else ()  # rows of a Gemm: runtimes move the codes
        producer = writer_past(context.graph, name, moves)
        if name and (producer is None or producer.op != "DequantizeLinear"):
            what = "a float constant" if producer is None else f"{producer.op} {producer.name!r}"
            message = f"{node.op} of {layer!r} reads {what} as operand {position}, expected DequantizeLinear"
            context.fault("float-convolution", layer, f"{message}: it runs in float instead of integers")
    readers = context.graph.readers(node.outputs[0])
    if [reader.op for reader in readers] not in (["QuantizeLinear"], ["Reshape"]):
        actual = ", ".join(f"{reader.op} {reader.name!r}" for reader in readers) or "nothing"
        message = f"the result of {layer!r} is read by {actual}, expected one QuantizeLinear"
        context.fault("float-convolution", layer, f"{message}: it runs in float instead of integers")


ROUNDING = 8 * 2.0**-24  # eight times half a unit in the last place of float32
HALF_ROUNDING = 2.0**-10  # a weight and what is folded into it, each rounded to float16
SMALLEST_HALF, SMALLEST = 2.0**-24, 1e-30
LARGEST_CODE, LARGEST_BIAS_CODE = 127, 2**30
ROLES = {"weight": "weights", "bias": "bias"}


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A constant operand: numbers, or codes with scales and zero-points."""

    values: NDArray[Any]
    scales: NDArray[Any] | None = None
    zero_points: NDArray[Any] | None = None


def stored(context: StaticComparison, node: Node, position: int) -> Stored | None:
    """The constant that an operator reads, by a DequantizeLinear or as it is; None where it reads none."""
    name = context.uncast(node.inputs[position]) if len(node.inputs) > position else ""
    producer, constant = context.graph.producers.get(name), context.graph.constant
    if producer is None:
        values = constant(name)
        return None if values is None else Stored(values)
    if producer.op != "DequantizeLinear":
        return None
    codes, scales = (constant(value) for value in producer.inputs[:2])
    zeros = constant(producer.inputs[2]) if len(producer.inputs) > 2 else np.zeros(1, np.int8)
    if codes is None or scales is None or zeros is None:
        return None
    return Stored(codes, np.atleast_1d(scales), np.atleast_1d(zeros))


def compare_constants(
    context: StaticComparison, product: Product, node: Node, behind: Iterable[ChannelAffine] = ()
) -> None:
    """Compare the weights and bias that a node reads with a product in the node's form.

    ``behind`` is what the graph computes of its result by channels, where the source folds it.
    """
    layer, comparing = product.layers[0], _ComparedProduct(context, product)
    kernel, bias = stored(context, node, 1), stored(context, node, 2)
    is_quantised = product.scales is not None and context.document.activations != "float32"
    if is_quantised and kernel is not None and kernel.scales is None:
        return  # told as a float convolution
    if kernel is None and product.kernel.size:
        what = f"the {comparing.title('weight')} are no constant of the graph"
        context.fault("missing-tensor", layer, f"{what}; convert the source again")
        return
    used = None if product.scales is None else np.asarray(product.scales, np.float32)
    if kernel is not None and product.kernel.size:
        if product.scales is None:
            kernel, bias = _folded(kernel, bias, behind)
        used = comparing.kernel(kernel)
    comparing.bias(bias, used)


def _folded(kernel: Stored, bias: Stored | None, behind: Iterable[ChannelAffine]) -> tuple[Stored, Stored | None]:
    """Float weights and bias with the channels' factors and offsets that stand behind them as nodes of their own."""
    for affine in behind:
        zeros = np.zeros(len(kernel.values))
        kernel = Stored(kernel.values.astype(np.float64) * affine.factor.reshape(-1, 1, 1, 1))
        bias = Stored((zeros if bias is None else bias.values) * affine.factor + affine.offset)
    return kernel, bias


@dataclass(frozen=True, eq=False, slots=True)
class _ComparedProduct:
    """One product with what the graph holds of it."""

    context: StaticComparison
    product: Product

    def title(self, role: Cause) -> str:
        """What messages call a constant."""
        names, place = self.product.tensors, list(ROLES).index(role)
        own = f"{names[place]!r} " if place < len(names) else ""
        return f"{ROLES[role]} {own}of {self.product.title}"

    def kernel(self, held: Stored) -> NDArray[np.float32] | None:
        """Compare the weights; the scales to go on with, None where there are none."""
        product = self.product
        used = None if product.scales is None else np.asarray(product.scales, np.float32)
        dtype = product.kernel.dtype if product.terms is None else np.dtype(np.float32 if used is None else np.int8)
        has_form = self._has_form("weight", held.values, product.kernel, dtype)
        if product.scales is not None and held.scales is not None:
            used = self._scales("weight", (product.scales,), held, product.zero_point)
        if has_form:
            magnitudes = None if product.terms is None else np.abs(product.kernel)
            rest = [1] * (product.kernel.ndim - 1)
            steps = None if used is None else used.astype(np.float64).reshape(-1, *rest)
            self._numbers("weight", (product.kernel, magnitudes), held.values, steps)
        return used

    def bias(self, held: Stored | None, used: NDArray[np.float32] | None) -> None:
        """Compare the bias, whose scale is exactly that of the input times that of the weights."""
        product = self.product
        if held is None:
            if product.terms is not None or product.bias.any():
                self._numbers("bias", (product.bias, product.terms), np.zeros(len(product.bias)), None)
            return
        if used is None or not product.input_scales:
            if self._has_form("bias", held.values, product.bias, np.dtype(np.float32)):
                self._numbers("bias", (product.bias, product.terms), held.values, None)
            return
        products = tuple(np.asarray(scale * used, np.float32) for scale in product.input_scales)
        if held.scales is None and self.context.document.symmetric:
            codes = np.rint(held.values / products[0].astype(np.float64)).astype(np.int32)
            held = Stored(codes, products[0], np.zeros(1))
        if not self._has_form("bias", held.values, product.bias, np.dtype(np.int32)):
            return
        steps = self._scales("bias", products, held, 0).astype(np.float64)
        self._numbers("bias", (product.bias, product.terms), held.values, steps)

    def _has_form(self, role: Cause, actual: NDArray[Any], expected: NDArray[Any], dtype: np.dtype[Any]) -> bool:
        """Whether a constant has its shape and dtype: float16 for float32 in a float16 model, float64 if folded."""
        halved = self.context.document.float16 and actual.dtype == np.float16
        same = actual.dtype == dtype or (dtype == np.float32 and (halved or actual.dtype == np.float64))
        if same and actual.shape == expected.shape:
            return True
        message = f"expected {dtype} {list(expected.shape)}, found {actual.dtype} {list(actual.shape)}"
        self.context.fault(role, self.product.layers[0], f"{self.title(role)}: {message}; convert the source again")
        return False

    def _scales(
        self, role: Cause, choices: tuple[NDArray[Any], ...], held: Stored, zero_point: int
    ) -> NDArray[np.float32]:
        """Compare scales with any of some, and zero-points; the expected scales where those found are wrong."""
        context, layer = self.context, self.product.layers[0]
        assert held.scales is not None  # noqa: S101 - codes have scales
        assert held.zero_points is not None  # noqa: S101 - likewise
        context.compared += held.scales.size + held.zero_points.size
        if np.any(held.zero_points != np.int64(zero_point)):
            message = f"expected {zero_point}, found {np.unique(held.zero_points).tolist()[:4]}"
            context.fault("zero-point", layer, f"zero-point of the {self.title(role)}: {message}")
        room = 0.0 if self.product.terms is None else (2 if role == "weight" else 4) * ROUNDING
        for expected in choices:
            same_shape = held.scales.shape == expected.shape
            if same_shape and (np.abs(held.scales.astype(np.float64) - expected) <= room * expected).all():
                return np.asarray(held.scales if room else expected, np.float32)
        rule = np.asarray(choices[0], np.float32)
        if held.scales.shape == rule.shape:
            wrong = np.abs(held.scales - choices[0]) > room * choices[0]
            rule = np.asarray(np.where(wrong, rule, held.scales), np.float32)
        context.fault("scale", layer, f"scale of the {self.title(role)}: {_scales_text(rule, held.scales)}")
        return rule

    def _numbers(
        self,
        role: Cause,
        expected: tuple[NDArray[Any], NDArray[Any] | None],
        actual: NDArray[Any],
        steps: NDArray[np.float64] | None,
    ) -> None:
        """Compare numbers, expected with the magnitudes of their terms (None: exactly); ``steps`` makes them codes."""
        context, layer, (wanted, terms) = self.context, self.product.layers[0], expected
        context.compared += wanted.size
        room: NDArray[Any] | None = None
        if terms is None:
            wanted = wanted.astype(np.float16) if actual.dtype == np.float16 else wanted
        elif steps is not None:
            highest, lowest = (LARGEST_CODE, -LARGEST_CODE) if role == "weight" else (2**31 - 1, -(2**31))
            wanted = np.clip(wanted / steps, lowest, highest)
            room = 0.5 + ROUNDING * (terms / steps + np.abs(wanted))
        else:
            half = context.document.float16
            least = SMALLEST_HALF if half else SMALLEST
            room = (HALF_ROUNDING if half else ROUNDING) * terms + least
        is_wrong = _differ(actual, wanted, room)
        if not is_wrong.any():
            return
        if role == "weight" and wanted.ndim == 4 and wanted.shape[1] == 3:
            mirrored = None if room is None else np.broadcast_to(room, actual.shape)[:, ::-1]
            if not _differ(actual, wanted[:, ::-1], mirrored).any():
                message = f"the {self.title(role)} are the source's with red and blue exchanged"
                context.fault("colour-order", layer, f"{message}: the graph takes BGR where the contract says RGB")
                return
        wrong = np.argwhere(is_wrong)
        first = tuple(int(i) for i in wrong[0])
        what = "differ" if terms is None else "differ by more than rounding"
        codes = " codes" if np.issubdtype(actual.dtype, np.integer) else ""
        message = (
            f"{self.title(role)}: {len(wrong):,} of {wanted.size:,}{codes} {what}, first at {list(first)}: expected"
        )
        context.fault(role, layer, f"{message} {float(wanted[first]):.9g}, found {float(actual[first]):.9g}")


def _differ(actual: NDArray[Any], wanted: NDArray[Any], room: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Where numbers differ by more than ``room``; None is at all, of millions of weights without a copy in float64."""
    differing: NDArray[np.bool_] = actual != wanted
    if room is None:
        return differing
    return differing & ~(np.abs(actual.astype(np.float64) - wanted.astype(np.float64)) <= room)


def _scales_text(expected: NDArray[np.float32], actual: NDArray[Any]) -> str:
    """Two lists of scales that differ, in words."""
    if expected.shape != actual.shape:
        return f"expected {expected.size} numbers, found {actual.size}"
    wrong = np.flatnonzero(expected != actual)
    first, where = int(wrong[0]), f" of channel {wrong[0]}" if expected.size > 1 else ""
    ratio = float(actual[first]) / float(expected[first]) - 1
    message = f"{len(wrong)} of {expected.size} differ; expected {expected[first]:.9g}{where}"
    return f"{message}, found {actual[first]:.9g} ({ratio:+.2%})"
