"""Layer by layer: every source tensor beside its ONNX twin, and whose fault a difference is.

Three distances per layer:

* *accumulated*: what ONNX Runtime holds there, against what the source's runtime holds. Drift from earlier layers is
  inside;
* *local*, by teacher forcing: what the graph makes of the source's own values in front of this layer, against the
  source's result. A wrong weight, scale, slope or padding shows here, and only in its layer;
* *kernel*: what ONNX Runtime holds there, against the graph's exact integer arithmetic (``converters.integer``) on ONNX
  Runtime's own integers in front of this layer. A kernel that saturates or falls back to float shows here, and only in
  its layer. Models of float32 have none.

A source of codes (int8 TFLite) is compared in LSB, codes of that tensor; *local* is computed in exact integers too. A
source of real numbers (Keras, float TFLite) has its *local* computed by ONNX Runtime, on the part of the graph between
two layers (``surgery.cut_layer``). A float model's distances are fractions of the tensor's largest magnitude, and
*local* has a bound. A model that was quantised at conversion is compared in LSB; its *local* distance (codes of the
source's values in front, and the distance of the result from its real numbers) is what quantising that layer costs. It
depends on weights and photographs, is no fault, and has no bound.

Showing inner values can change what a runtime fuses, so the head of the fused run is compared with the head of this
one. With int8 activations ONNX Runtime computes a convolution in float where its codes are shown: *kernel* may then be
one code.

A layer can be written as a model of its own (``--repro``): small enough to read, and to send to whoever has to mend it.
It begins at the source tensors in front of the layer and ends at the layer's codes; ``layer.npz`` beside ``layer.onnx``
holds one photograph's codes by tensor name: LiteRT XNNPACK's for every input, and LiteRT's result to compare the output
with. With a Keras source these are Keras' values: float32, or the nearest codes where the model holds codes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import is_raw_output, join_outputs
from converters.quant import real_numbers
from converters.spec import IMAGE
from xdet.checking.numbers.rewrites import BLOCK, FULL_CHANNELS
from xdet.checking.pair import open_pair
from xdet.checking.result import LayerComparison, LayerDistance, LayerResult
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import ModelError, UsageError
from xdet.model.surgery import cut_layer, exact_codes
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.writing.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.quant import QuantParams
    from converters.spec import TensorTwin
    from xdet.checking.numbers.comparison import SourceLayer
    from xdet.checking.pair import OpenedPair
    from xdet.model.graph import FinishedGraph
    from xdet.model.surgery import Codes
    from xdet.pictures.preparation import Photograph

    Values = dict[str, NDArray[Any]]


HALF_BOUND = 2.0**-9  # likewise, of float16: weights, bias and result rounded to 11 bits; measured 2^-10
HALF_LSB = 0.5  # what that adds in steps of 255 codes
LOCAL_BOUND = 2e-5  # of the tensor's largest magnitude: sums in another order, in float32; measured 3.4e-6
COMPARED_FATES = {("kept", None), ("replicated", FULL_CHANNELS)}
SMALLEST = 1e-30  # the magnitude of a tensor of zeros


def compare_layers(pair: OpenedPair, images: NDArray[np.uint8], runtimes: OpenRuntimes) -> LayerComparison:
    """Compare a finished model with its source tensor by tensor.

    Args:
        pair: the two files.
        images: uint8 RGB ``(N, height, width, 3)`` at network size.
        runtimes: ONNX Runtime, and the source's witness.

    Raises:
        ModelError: a source that shares no tensor with the model, or rounds its float activations at run time.
        XdetError: a runtime is not installed, or failed.
    """
    if pair.origin.rounds_at_run_time:
        raise ModelError(
            f"'{pair.source.file}' rounds its float activations at run time, and the model does not: "
            "the layers of such a TFLite file are not compared, its weights are"
        )
    shared, absent = _shared(pair)
    comparing = _LayerSums(pair, shared)
    raw = [output.value_name for output in pair.document.spec.network_outputs]
    names, fused_differs = [layer.twin for layer in shared if layer.twin != IMAGE], 0
    theirs = source_values(runtimes, shared, images)
    with runtimes.finished() as ours:
        for image, held in zip(images, theirs, strict=True):
            batch = image[None]
            shown = ours.tensors(batch, [*names, *raw])
            fused_differs += int((join_outputs([shown[name] for name in raw]) != ours.head(batch)).sum())
            comparing.add({IMAGE: batch, **shown}, held)
    in_steps = pair.document.activations != "float32" or pair.document.dequantize
    unit = "LSB" if in_steps else "of the largest value"
    return LayerComparison(tuple(comparing.layers()), absent, fused_differs, unit)  # type: ignore[arg-type]  # mypy joins to str


def source_codes(pair: OpenedPair, images: NDArray[np.uint8], runtimes: OpenRuntimes) -> list[Values]:
    """What the source holds in every tensor that has a twin, as the graph stores it, by the twins' names, per image.

    LiteRT's integers; of a source of real numbers float32, or the codes nearest to them. Arguments and errors are those
    of ``compare_layers``.
    """
    shared, _ = _shared(pair)
    held = source_values(runtimes, shared, images)
    return [{layer.twin: layer.to_graph(values[layer.source.name]) for layer in shared} for values in held]


def first_divergence(
    pair: OpenedPair, picture: NDArray[np.uint8], runtimes: OpenRuntimes
) -> tuple[str, LayerDistance] | None:
    """The first tensor of codes on both sides whose codes differ, and how far; None where there is none."""
    shared = tuple(layer for layer in _shared_layers(pair)[0] if layer.in_codes)
    if not shared:
        return None
    (theirs,) = source_values(runtimes, shared, picture)
    with runtimes.finished() as finished:
        ours = finished.tensors(picture, [layer.twin for layer in shared if layer.twin != IMAGE])
    for layer in shared:
        distance = layer.distance({IMAGE: picture, **ours}[layer.twin], theirs[layer.source.name])
        if distance.differing:
            return layer.source.name, distance
    return None


def run_layer(model: ir.Model, twin: str, inputs: Values) -> tuple[bytes, Values, NDArray[Any]]:
    """A layer as a model of its own, the values of its inputs and result, and what ONNX Runtime makes of the inputs."""
    part, values = cut_layer(model, twin, inputs)
    session = OrtSession(part, file=twin, choices=SessionChoices(threads=1))
    try:
        (result,) = session.run([twin], {name: value for name, value in values.items() if name != twin})
    finally:
        session.close()
    return part, values, result


def source_values(runtimes: OpenRuntimes, shared: tuple[_Shared, ...], images: NDArray[np.uint8]) -> list[Values]:
    """What the witness holds in every shared tensor, by the source's names, per image."""
    names = [layer.source.name for layer in shared]
    with runtimes.source() as witness:
        return [witness.tensors(image[None], names) for image in images]


@dataclass(frozen=True, slots=True)
class _Shared:
    """A tensor of the source with its twin, and how the twin holds its values."""

    source: SourceLayer
    twin: str
    # the source's axes in the order in which the twin has them; None where that is the source's
    perm: tuple[int, ...] | None
    dtype: type[Any]
    shift: int = 0  # what is added to the source's codes
    # of the twin's codes where the source has real numbers; None where it has codes, or the twin has none
    scale: np.float32 | None = None
    zero_point: int = 0
    bound: int = 0  # what *local* may be, in LSB, of a source of codes
    # the code of the channels of zeros that the twin has beside the source's, up to a multiple of 16 (pass ``full
    # channels``); None without such
    filling: int | None = None

    @property
    def in_codes(self) -> bool:
        """Whether source and twin both hold codes."""
        return self.source.codes is not None and self.source.quant is None

    def to_graph(self, values: NDArray[Any]) -> NDArray[Any]:
        """The source's values as the graph stores them: moved, and the nearest codes where only the graph has codes."""
        stored = self._stored(values)
        if self.filling is None:
            return stored
        more = [(0, 0)] * stored.ndim
        more[self._channels(stored)] = (0, -stored.shape[self._channels(stored)] % BLOCK)
        return np.pad(stored, more, constant_values=self.filling)

    def _channels(self, array: NDArray[Any]) -> int:
        """The axis of the source's channels."""
        last = array.ndim - 1
        return last if self.perm is None else self.perm.index(last)

    def _stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Without the channels beside the source's."""
        moved = self._moved(values)
        if self.source.quant is not None:
            reals = moved if self.source.codes is None else real_numbers(moved, self.source.quant)
            return reals.astype(self.dtype)
        if self.source.codes is not None:
            return (moved.astype(np.int16) + self.shift).astype(self.dtype)
        if self.scale is None:
            return moved.astype(self.dtype)
        info = np.iinfo(self.dtype)
        codes = np.rint(moved / self.scale).astype(np.float64) + self.zero_point
        nearest: NDArray[Any] = np.clip(codes, info.min, info.max).astype(self.dtype)
        return nearest

    def distance(self, ours: NDArray[Any], values: NDArray[Any], reach: float = 0.0) -> LayerDistance:
        """How far a value of the graph is from the source's; of reals in units of their largest, or of ``reach``."""
        wanted = self._stored(values)
        if self.filling is not None:
            axis = self._channels(wanted)
            ours = ours.take(range(wanted.shape[axis]), axis)
        if ours.shape != wanted.shape:  # an edited padding or stride: nothing can be told apart value by value
            return LayerDistance(wanted.size, wanted.size, math.inf, math.inf)
        if self.source.quant is not None:
            return self._in_steps(ours, wanted, self.source.quant)
        if self.source.codes is not None:
            return LayerDistance.of_codes(ours, wanted)
        differing, reals = int((ours != wanted).sum()), self._moved(values)
        if self.scale is None:
            unit = max(float(np.abs(reals).max(initial=0.0)), reach, SMALLEST)
            return LayerDistance.of_reals(ours, reals, unit=unit, differing=differing)
        held = (ours.astype(np.float64) - self.zero_point) * float(self.scale)
        return LayerDistance.of_reals(held, reals, unit=float(self.scale), differing=differing)

    def _in_steps(self, ours: NDArray[Any], wanted: NDArray[Any], quant: QuantParams) -> LayerDistance:
        """How many steps of the source's codes real numbers are away; beyond the codes stands their end."""
        step, codes = float(quant.scalar_scale), np.array(self.source.code_range)
        low, high = (codes - quant.scalar_zero_point) * step
        held = np.clip(ours.astype(np.float64), low, high)
        differing = int((np.rint(held / step) != np.rint(wanted.astype(np.float64) / step)).sum())
        return LayerDistance.of_reals(held, wanted, unit=step, differing=differing)

    def _moved(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values if self.perm is None else values.transpose(self.perm))


class _LayerSums:
    """Distances of every layer, added up over the images."""

    def __init__(self, pair: OpenedPair, shared: tuple[_Shared, ...]) -> None:
        self._model, self._shared, self._activations = pair.graph.model, shared, pair.document.activations
        self._half = pair.document.float16
        self._graph = None if self._activations == "float32" else self._model.graph
        self._sums: dict[str, list[Any]] = {}  # accumulated, local, kernel
        self._inexact: set[str] = set()

    def add(self, ours: Mapping[str, NDArray[Any]], held: Mapping[str, NDArray[Any]]) -> None:
        """One image; ours by their names in the graph, as it stores them, the source's by its own."""
        theirs = {layer.twin: layer.to_graph(held[layer.source.name]) for layer in self._shared}
        theirs = {IMAGE: ours[IMAGE], **theirs}
        own = {layer.twin: ours[layer.twin] for layer in self._shared} | {IMAGE: ours[IMAGE]}
        same = all(np.array_equal(own[name], theirs[name]) for name in own)
        for layer in self._shared:
            here, there, name = own[layer.twin], held[layer.source.name], layer.source.name
            local = self._exact(layer.twin, theirs) if layer.in_codes else self._computed(layer, theirs, held)
            distances: list[Any] = [layer.distance(here, there), layer.distance(local, there, self._reach(layer, held))]
            if self._graph is not None:
                kernel = local if same and layer.in_codes else self._exact(layer.twin, own)
                distances.append(LayerDistance.of_codes(kernel, here))
            before = self._sums.get(name)
            self._sums[name] = (
                distances if before is None else [a.joined(b) for a, b in zip(before, distances, strict=True)]
            )

    def layers(self) -> Iterator[LayerResult]:
        """What was added up."""
        for layer in self._shared:
            accumulated, local, kernel = (*self._sums[layer.source.name], None)[:3]
            bound: float | None = layer.bound
            if layer.source.quant is not None:
                bound = layer.bound + HALF_LSB * self._half
            elif layer.source.codes is None:
                bound = None if kernel is not None else HALF_BOUND if self._half else LOCAL_BOUND
            slack = None if kernel is None else int(self._activations == "int8" or layer.twin in self._inexact)
            named = layer.source.name, layer.source.operator, layer.twin
            yield LayerResult(*named, accumulated, local, kernel, bound, slack, layer.in_codes)

    def _computed(self, layer: _Shared, theirs: Values, held: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What ONNX Runtime makes of what a layer reads.

        Of tensors that share a twin (a QUANTIZE that is left out) that is the one that it reads. The QUANTIZE itself
        gives what it reads: the operator in front may have saturated in the source.
        """
        reads = [other for other in self._shared if other.source.name in layer.source.reads and other.source.quant]
        read = {other.twin: other.to_graph(held[other.source.name]) for other in reads}
        return read[layer.twin] if layer.twin in read else run_layer(self._model, layer.twin, theirs | read)[2]

    def _reach(self, layer: _Shared, held: Mapping[str, NDArray[Any]]) -> float:
        """The largest number in front of a layer: a difference may be as far off as its operands' float16 lets it."""
        read = [held[name] for name in layer.source.reads if name in held] if self._half else []
        return max((float(np.abs(array).max(initial=0.0)) for array in read), default=0.0)

    def _exact(self, twin: str, values: Values) -> NDArray[Any]:
        """The exact arithmetic's codes of ``twin`` when every other twin holds ``given``."""
        assert self._graph is not None  # noqa: S101 - there are codes
        codes, inexact = exact_codes(self._graph, twin, values)
        if inexact:
            self._inexact.add(twin)
        return codes


def _shared(pair: OpenedPair) -> tuple[tuple[_Shared, ...], dict[str, str]]:
    """``_shared_layers``, of which there must be some."""
    shared, absent = _shared_layers(pair)
    if not pair.origin.layers:
        raise ModelError(
            f"'{pair.source.file}' has no layers that are compared: "
            "a quantised ONNX source's operators are the model's own"
        )
    if not shared:
        raise ModelError(f"'{pair.source.file}' shares no layer with the model; is it the model's source?")
    return shared, absent


def _shared_layers(pair: OpenedPair) -> tuple[tuple[_Shared, ...], dict[str, str]]:
    """The tensors that exist on both sides, and those that a pass took away, in the source's order."""
    shared: list[_Shared] = []
    absent: dict[str, str] = {}
    bounds: dict[str, int] = {}  # of tensors that are absent: they add to those computed from them
    of_twins: dict[str, int] = {}  # a QUANTIZE that changes no code shares the twin, and its rounding
    for layer in pair.origin.layers:
        twin = pair.document.tensors.get(layer.name)
        bound = max([layer.bound, *(bounds.get(name, 0) for name in layer.reads)])
        if twin is None or not layer.is_compared:
            bounds[layer.name] = bound
        elif twin.onnx is None or (twin.fate, twin.by) not in COMPARED_FATES:
            bounds[layer.name], absent[layer.name] = bound, str(twin.by)
        elif (layer.codes is not None and layer.quant is None) or (
            twin.onnx in pair.graph.producers and not is_raw_output(twin.onnx)
        ):
            bound = of_twins[twin.onnx] = max(bound, of_twins.get(twin.onnx, 0))
            shared.append(_held(layer, twin, twin.onnx, bound, pair))
    return tuple(shared), absent


def _held(layer: SourceLayer, twin: TensorTwin, value: str, bound: int, pair: OpenedPair) -> _Shared:
    """A source tensor with its twin ``value``."""
    graph = pair.graph
    before, _, after = twin.layout.partition("->")
    perm = None if twin.layout == "same" else tuple(before.index(axis) for axis in after)
    floats = np.float16 if value in pair.half_values else np.float32
    if layer.quant is not None:
        return _Shared(layer, value, perm, floats, bound=bound)
    filling = _code_of_zero(graph, value) if twin.by == FULL_CHANNELS else None
    if layer.codes is not None:
        unsigned = (layer.codes == "uint8") == (twin.zero_point_shift == 0)
        dtype = np.uint8 if unsigned else np.int8
        return _Shared(layer, value, perm, dtype, shift=twin.zero_point_shift, bound=bound, filling=filling)
    writer = graph.producers.get(value)
    if writer is None or writer.op != "QuantizeLinear":
        return _Shared(layer, value, perm, floats)
    scale, zero_point = (np.asarray(graph.constant(name)).reshape(-1)[0] for name in writer.inputs[1:3])
    return _Shared(
        layer, value, perm, type(zero_point), scale=np.float32(scale), zero_point=int(zero_point), filling=filling
    )


def _code_of_zero(graph: FinishedGraph, value: str) -> int:
    """The zero-point by which codes are written or read."""
    for node in (graph.producers.get(value), *graph.readers(value)):
        zero = graph.constant(node.inputs[2]) if node is not None and len(node.inputs) > 2 else None
        if zero is not None and node is not None and node.op in ("QuantizeLinear", "DequantizeLinear"):
            return int(zero.reshape(-1)[0])
    return 0


@dataclass(frozen=True, slots=True)
class LayerRepro:
    """What was written, and how many values of the layer differ where ONNX Runtime is given the source's codes."""

    model: Path
    values: Path
    differing: int
    compared: int


def values_path(model: Path) -> Path:
    """Where the values of a repro model go.

    Raises:
        UsageError: the model's name does not end in ``.onnx``.
    """
    if model.suffix.lower() != ".onnx":
        raise UsageError(f"`repro` writes an ONNX file, got '{model}'; let its name end in .onnx")
    return model.with_suffix(".npz")


def write_layer_repro(
    target: Path, layer: LayerResult, *, model: Path, source: Path, photographs: Sequence[Photograph]
) -> LayerRepro:
    """Write a layer of ``compare_layers`` as a model, with the values of the photograph on which it differs most.

    Raises:
        OutputError: a file cannot be written.
        ModelError: one of the models cannot be read.
    """
    pair, beside = open_pair(model, source), values_path(target)
    how = Preparation(pair.document.spec.image)
    images = np.stack([prepare(photograph, how).pixels for photograph in photographs])
    with OpenRuntimes(pair) as runtimes:
        codes = source_codes(pair, images, runtimes)
    tried: list[tuple[float, int, bytes, Codes]] = []
    for image, held in zip(images, codes, strict=True):
        cut, values, result = run_layer(pair.graph.model, layer.onnx, {**held, IMAGE: image[None]})
        wanted = values[layer.onnx]
        is_comparable = result.shape == wanted.shape
        differing = int((result != wanted).sum()) if is_comparable else wanted.size
        worst = float(np.abs(result - wanted).max()) if is_comparable and wanted.dtype == np.float32 else differing
        tried.append((worst, differing, cut, values))
    _, differing, cut, values = max(tried, key=lambda entry: entry[0])
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **values)
    write_bytes(target, cut)
    write_bytes(beside, packed.getvalue())
    return LayerRepro(target, beside, differing, values[layer.onnx].size)
