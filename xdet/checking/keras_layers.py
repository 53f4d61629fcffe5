"""Layer by layer for Keras sources: every layer that still is a value of the graph, beside what Keras gives there.

* *accumulated*: what ONNX Runtime holds, against what Keras gives. Drift from earlier layers is inside;
* *local*, by teacher forcing: what ONNX Runtime makes of Keras' own values in front of the layer, on the part of the graph
  between them (``layer_forcing.cut_layer``), against what Keras gives;
* *kernel*, for models that were quantised at conversion: what ONNX Runtime holds, against exact integer arithmetic on its own
  integers.

A float model's distances are fractions of the tensor's largest magnitude, and *local* has a bound. A quantised model's are
counted in LSB of that tensor; its *local* distance (codes of Keras' values in front, and the distance of the result from
Keras' real numbers) is what quantising that layer costs. It depends on weights and photographs, is no fault, and has no
bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import is_raw_output, join_outputs
from converters.sources import SOURCES
from converters.spec import IMAGE
from xdet.checking.layer_records import Distance, LayerComparison, RealDistance, RealLayer
from xdet.errors import ModelError
from xdet.model.graph import load_onnx
from xdet.model.metadata import read_document
from xdet.model.surgery import cut_layer, exact_codes
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import OrtSession, SessionChoices
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.spec import ModelDocument, TensorTwin
    from xdet.model.file import ModelFile

FORMATS = tuple(name for name, row in SOURCES.items() if row.extra == "keras")
LOCAL_BOUND = 2e-5  # of the tensor's largest magnitude: sums in another order, in float32; measured 3.4e-6
SMALLEST = 1e-30  # the magnitude of a tensor of zeros


def compare_keras_layers(
    model: bytes, source: ModelFile, images: NDArray[np.uint8], choices: RuntimeChoices
) -> LayerComparison:
    """Compare a finished model with its Keras source, layer by layer.

    Args:
        model: the ONNX file's bytes.
        source: the Keras file it was converted from.
        images: uint8 RGB ``(N, height, width, 3)`` at network size.
        choices: provider and threads of ONNX Runtime.

    Raises:
        ModelError: no finished model, or a source that shares no layer with it.
        RuntimeUnavailableError: Keras gave no result.
    """
    from converters.integer.evaluate import read_graph

    with open_onnxruntime(model, file=f"model of {source.file}", choices=choices) as ours:
        pairs, absent = _pairs(source, ours.document, load_onnx(model, source.file))
        theirs = _keras_values(source, ours.document, pairs, images, choices.threads)
        names = [pair.twin for pair in pairs]
        raw = [output.value_name for output in ours.spec.network_outputs]
        quantised = ours.document.activations != "float32"
        comparing = _Comparing(load_onnx(model, source.file), pairs, read_graph(model) if quantised else None)
        fused_differs = 0
        for number in range(len(images)):
            batch = images[number : number + 1]
            shown = ours.tensors(batch, [*names, *raw])
            fused_differs += int((join_outputs([shown[name] for name in raw]) != ours.head(batch)).sum())
            comparing.add(batch, shown, {pair.twin: theirs[pair.layer][number][None] for pair in pairs})
        slack = int(ours.document.activations == "int8")
    layers = tuple(comparing.layers(slack))
    return LayerComparison(layers, absent, fused_differs, "LSB" if quantised else "of the largest value")


def keras_codes(model: bytes, source: ModelFile, images: NDArray[np.uint8]) -> list[dict[str, NDArray[Any]]]:
    """Keras' values in every layer that has a twin, as the graph stores them, by the twins' names, per image.

    Args:
        model: the ONNX file's bytes.
        source: the Keras file it was converted from.
        images: uint8 RGB ``(N, height, width, 3)`` at network size.

    Raises:
        ModelError: no finished model, or a source that shares no layer with it.
        RuntimeUnavailableError: Keras gave no result.
    """
    document = read_document(model, file=f"model of {source.file}")
    pairs, _ = _pairs(source, document, load_onnx(model, source.file))
    theirs = _keras_values(source, document, pairs, images, None)
    return [
        {pair.twin: pair.to_graph(theirs[pair.layer][number][None]) for pair in pairs}
        for number in range(len(images))
    ]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A layer, its twin, and how the twin holds its values; scale None where they are float32."""

    layer: str
    kind: str
    twin: str
    perm: tuple[int, ...] | None
    scale: np.float32 | None
    zero_point: int
    dtype: type[Any]

    def to_graph(self, real: NDArray[np.float32]) -> NDArray[Any]:
        """Keras' values as the graph stores them: moved, and the nearest codes where it stores codes."""
        moved = self._moved(real)
        if self.scale is None:
            return moved
        info = np.iinfo(self.dtype)
        codes = np.rint(moved / self.scale).astype(np.float64) + self.zero_point
        nearest: NDArray[Any] = np.clip(codes, info.min, info.max).astype(self.dtype)
        return nearest

    def distance(self, found: NDArray[Any], real: NDArray[np.float32]) -> RealDistance:
        """How far a value of the graph is from Keras' real numbers."""
        wanted = self._moved(real)
        if self.scale is None:
            unit = max(float(np.abs(wanted).max(initial=0.0)), SMALLEST)
            return RealDistance.between(found, wanted, unit=unit, differing=int((found != wanted).sum()))
        held = (found.astype(np.float64) - self.zero_point) * float(self.scale)
        differing = int((found != self.to_graph(real)).sum())
        return RealDistance.between(held, wanted, unit=float(self.scale), differing=differing)

    def _moved(self, real: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(real if self.perm is None else real.transpose(self.perm))


class _Comparing:
    """Distances of every layer, added up over the images."""

    def __init__(self, proto: onnx.ModelProto, pairs: tuple[_Pair, ...], graph: ir.Graph | None) -> None:
        self._proto, self._pairs, self._graph = proto, pairs, graph
        self._real = {pair.layer: (RealDistance(), RealDistance()) for pair in pairs}
        self._kernel = {pair.layer: Distance() for pair in pairs}
        self._inexact: set[str] = set()

    def add(
        self, image: NDArray[np.uint8], ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[np.float32]]
    ) -> None:
        """One image; values by their names in the graph, ours as it stores them, theirs as Keras gives them."""
        given = {pair.twin: pair.to_graph(theirs[pair.twin]) for pair in self._pairs} | {IMAGE: image}
        for pair in self._pairs:
            here, real = ours[pair.twin], theirs[pair.twin]
            accumulated, local = self._real[pair.layer]
            self._real[pair.layer] = (
                accumulated.joined(pair.distance(here, real)),
                local.joined(pair.distance(self._forced(pair.twin, given), real)),
            )
            if self._graph is not None:
                codes, inexact = exact_codes(
                    self._graph, pair.twin, image, {p.twin: ours[p.twin] for p in self._pairs}
                )
                self._kernel[pair.layer] = self._kernel[pair.layer].joined(Distance.between(codes, here))
                self._inexact |= {pair.twin} if inexact else set()

    def layers(self, slack: int) -> Iterator[RealLayer]:
        """What was added up; ``slack`` is what the runtime's kernels may be off everywhere."""
        for pair in self._pairs:
            accumulated, local = self._real[pair.layer]
            quantised = self._graph is not None
            yield RealLayer(
                pair.layer,
                pair.kind,
                pair.twin,
                accumulated,
                local,
                kernel=self._kernel[pair.layer] if quantised else None,
                local_bound=None if quantised else LOCAL_BOUND,
                kernel_bound_lsb=max(slack, int(pair.twin in self._inexact)) if quantised else None,
            )

    def _forced(self, twin: str, given: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """What ONNX Runtime makes of given values in front of one."""
        part, values = cut_layer(self._proto, twin, given)
        session = OrtSession(part, file=twin, choices=SessionChoices(threads=1))
        try:
            (result,) = session.run([twin], {name: v for name, v in values.items() if name != twin})
        finally:
            session.close()
        forced: NDArray[Any] = result
        return forced


def _pairs(
    source: ModelFile, document: ModelDocument, proto: onnx.ModelProto
) -> tuple[tuple[_Pair, ...], dict[str, str]]:
    """The layers that exist on both sides, and those that a pass took away, in the source's order."""
    from converters.errors import ConversionError
    from converters.sources.keras.stored import read_keras

    try:
        stored = read_keras(source.data, source.file).layers
    except ConversionError as error:
        raise ModelError(*error.lines) from error
    pairs: list[_Pair] = []
    absent: dict[str, str] = {}
    for layer in stored:
        twin = document.tensors.get(layer.name)
        if twin is None or layer.kind == "InputLayer":
            continue
        if twin.onnx is None or twin.fate != "kept":
            absent[layer.name] = str(twin.by)
        elif not is_raw_output(twin.onnx):
            pairs.append(
                _Pair(layer.name, layer.kind, twin.onnx, _permutation(twin), *_codes_of(proto, twin.onnx))
            )
    if not pairs:
        raise ModelError(f"'{source.file}' shares no layer with the model; is it the model's source?")
    return tuple(pairs), absent


def _permutation(twin: TensorTwin) -> tuple[int, ...] | None:
    if twin.layout == "same":
        return None
    before, after = twin.layout.split("->")
    return tuple(before.index(axis) for axis in after)


def _codes_of(proto: onnx.ModelProto, value: str) -> tuple[np.float32 | None, int, type[Any]]:
    """Scale, zero-point and dtype of a value of codes; None, 0 and float32 of one of reals."""
    from onnx import numpy_helper

    writer = next((node for node in proto.graph.node if value in node.output), None)
    if writer is None or writer.op_type != "QuantizeLinear":
        return None, 0, np.float32
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    scale, zero_point = (numpy_helper.to_array(stored[name]).reshape(-1)[0] for name in writer.input[1:3])
    return np.float32(scale), int(zero_point), type(zero_point)


def _keras_values(
    source: ModelFile,
    document: ModelDocument,
    pairs: tuple[_Pair, ...],
    images: NDArray[np.uint8],
    threads: int | None,
) -> dict[str, NDArray[np.float32]]:
    """What Keras gives in every layer, batch first."""
    with open_model(source, RuntimeChoices("keras", threads=threads, spec=document.spec)) as keras:
        return keras.tensors(images, [pair.layer for pair in pairs])
