"""Layer by layer: every source tensor beside its ONNX twin, and whose fault a difference is. Keras sources: ``keras_layers``.

Three distances per layer, in LSB (codes of that tensor):

* *accumulated*: what ONNX Runtime holds there, against what LiteRT holds there. Drift from earlier layers is inside;
* *local*, by teacher forcing: what the graph's exact integer arithmetic (``converters.integer``) makes of LiteRT's own integers
  in front of this layer, against LiteRT's result. A wrong weight, scale, slope or padding shows here, and only in its layer;
* *kernel*: what ONNX Runtime holds there, against the exact arithmetic on ONNX Runtime's own integers in front of this layer. A
  kernel that saturates or falls back to float shows here, and only in its layer.

Showing inner values can change what a runtime fuses, so the head of the fused run is compared with the head of this one. With
int8 activations ONNX Runtime computes a convolution in float where its codes are shown: *kernel* may then be one code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import join_outputs
from converters.sources.tflite.operators import OPERATORS, case_of
from converters.spec import IMAGE
from xdet.checking.keras_layers import FORMATS, compare_keras_layers, keras_codes
from xdet.checking.layer_records import Distance, Layer, LayerComparison
from xdet.errors import ModelError
from xdet.model.file import read_model_file
from xdet.model.metadata import read_document
from xdet.model.surgery import exact_codes
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.processors import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import onnx_ir as ir
    from numpy.typing import NDArray

    from converters.sources.tflite.reader import TfliteModel, TfliteOperator
    from converters.spec import ModelDocument, TensorTwin
    from xdet.model.file import ModelFile


def compare_layers(
    model: bytes,
    source: Path,
    images: NDArray[np.uint8],
    *,
    kernels: str = "xnnpack",
    choices: RuntimeChoices | None = None,
) -> LayerComparison:
    """Compare a finished model with its source tensor by tensor.

    Args:
        model: the ONNX file's bytes.
        source: the TFLite or Keras file it was converted from.
        images: uint8 RGB ``(N, height, width, 3)`` at network size.
        kernels: LiteRT's kernels, for TFLite sources. The translation follows ``"xnnpack"``; the others round every operator in
            their own way, so *local* may be one code everywhere.
        choices: provider and threads of ONNX Runtime; None is the CPU.

    Raises:
        ModelError: no finished model, no such source, or a TFLite source without quantised tensors.
        MissingExtraError: LiteRT is not installed.
        RuntimeUnavailableError: Keras gave no result.
    """
    from converters.integer.evaluate import read_graph

    file = read_model_file(source)
    if file.format in FORMATS:
        return compare_keras_layers(model, file, images, choices or RuntimeChoices())
    records = _read_source(file)
    with (
        open_onnxruntime(model, file=f"model of {source.name}", choices=choices or RuntimeChoices()) as onnx,
        open_model(file, RuntimeChoices("litert", kernels, spec=onnx.spec)) as litert,
    ):
        if onnx.document.activations == "float32":
            raise ModelError(
                f"'{source}' computes on float32 numbers: the layers of such a TFLite file are not compared, its weights and "
                "its head are"
            )
        pairs, absent = _pairs(records, onnx.document, least_bound=int(litert.name != "litert:xnnpack"))
        if not pairs:
            raise ModelError(
                f"'{source}' shares no quantised tensor with the model; is it the model's source?"
            )
        comparing = _Comparing(read_graph(model), pairs, onnx.document.activations)
        raw = [output.value_name for output in onnx.spec.network_outputs]
        names, fused_differs = [pair.twin for pair in pairs if pair.twin != IMAGE], 0
        for image in images:
            batch = image[None]
            shown = onnx.tensors(batch, [*names, *raw])
            fused_differs += int((join_outputs([shown[name] for name in raw]) != onnx.head(batch)).sum())
            held = litert.tensors(batch, [pair.tensor for pair in pairs])
            theirs = {pair.twin: pair.to_graph(held[pair.tensor]) for pair in pairs}
            comparing.add(batch, {IMAGE: batch, **shown}, theirs)
    return LayerComparison(comparing.layers(), absent, fused_differs)


def source_codes(model: bytes, source: Path, images: NDArray[np.uint8]) -> list[dict[str, NDArray[Any]]]:
    """What the source holds in every tensor that has a twin, as the graph stores it, by the twins' names, per image.

    LiteRT XNNPACK's integers; of a Keras source float32 values, or the codes nearest to them.

    Args:
        model: the ONNX file's bytes.
        source: the TFLite or Keras file it was converted from.
        images: uint8 RGB ``(N, height, width, 3)`` at network size.

    Raises:
        ModelError: no finished model, or no such source.
        MissingExtraError: LiteRT is not installed.
        RuntimeUnavailableError: Keras gave no result.
    """
    file = read_model_file(source)
    if file.format in FORMATS:
        return keras_codes(model, file, images)
    document = read_document(model, file=f"model of {source.name}")
    pairs, _ = _pairs(_read_source(file), document, least_bound=0)
    with open_model(file, RuntimeChoices("litert", "xnnpack", spec=document.spec)) as litert:
        return [
            {pair.twin: pair.to_graph(held[pair.tensor]) for pair in pairs}
            for image in images
            for held in (litert.tensors(image[None], [pair.tensor for pair in pairs]),)
        ]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A source tensor of codes, how its twin holds them, and how far apart they may be when computed from equal inputs.

    ``dtype`` is that of the twin's codes; ``shift`` is what is added to the source's.
    """

    tensor: str
    operator: str
    twin: str
    perm: tuple[int, ...]
    shift: int
    dtype: type[np.int8 | np.uint8]
    bound: int

    def to_graph(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The source's codes as the graph stores them."""
        return (codes.astype(np.int16) + self.shift).transpose(self.perm).astype(self.dtype)


class _Comparing:
    """Distances of every layer, added up over the images."""

    def __init__(self, graph: ir.Graph, pairs: tuple[_Pair, ...], activations: str) -> None:
        self._graph, self._pairs, self._activations = graph, pairs, activations
        self._sums = {pair.tensor: (Distance(), Distance(), Distance()) for pair in pairs}
        self._inexact: set[str] = set()

    def add(
        self, image: NDArray[np.uint8], ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]
    ) -> None:
        """One image; values by their names in the graph, as the graph stores them."""
        same = all(np.array_equal(ours[pair.twin], theirs[pair.twin]) for pair in self._pairs)
        for pair in self._pairs:
            here, there = ours[pair.twin], theirs[pair.twin]
            local = self._forced(pair.twin, image, theirs)
            kernel = local if same else self._forced(pair.twin, image, ours)
            found = (
                Distance.between(here, there),
                Distance.between(local, there),
                Distance.between(kernel, here),
            )
            before = self._sums[pair.tensor]
            self._sums[pair.tensor] = (
                before[0].joined(found[0]),
                before[1].joined(found[1]),
                before[2].joined(found[2]),
            )

    def layers(self) -> tuple[Layer, ...]:
        """What was added up."""
        return tuple(
            Layer(
                pair.tensor,
                pair.operator,
                pair.twin,
                *self._sums[pair.tensor],
                local_bound_lsb=pair.bound,
                kernel_bound_lsb=int(self._activations == "int8" or pair.twin in self._inexact),
            )
            for pair in self._pairs
        )

    def _forced(self, twin: str, image: NDArray[np.uint8], given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The exact arithmetic's codes of ``twin`` when every other twin holds ``given``."""
        codes, inexact = exact_codes(self._graph, twin, image, {p.twin: given[p.twin] for p in self._pairs})
        if inexact:
            self._inexact.add(twin)
        return codes


def _read_source(file: ModelFile) -> TfliteModel:
    """The source's records, every offset and operand of the file checked, which LiteRT does not."""
    from converters.errors import ConversionError
    from converters.sources.tflite.reader import read_tflite
    from converters.sources.tflite.supported import require_sound

    if file.format != "tflite":
        raise ModelError(f"'{file.file}' is no TFLite or Keras file; layers are compared with a source")
    try:
        records = read_tflite(file.data, file.file)
        require_sound(records)
    except ConversionError as error:
        raise ModelError(*error.lines) from error
    return records


def _pairs(
    records: TfliteModel, document: ModelDocument, *, least_bound: int
) -> tuple[tuple[_Pair, ...], dict[str, str]]:
    """The quantised activations that exist on both sides, and those that a pass took away, in the source's order."""
    pairs: list[_Pair] = []
    absent: dict[str, str] = {}
    bounds: dict[int, int] = {}  # of tensors that are absent: they add to those computed from them
    of_twins: dict[str, int] = {}  # a QUANTIZE that changes no code shares the twin, and its rounding
    steps: list[tuple[str, tuple[int, ...], tuple[int, ...], int]] = [("input", (), records.inputs, 0)]
    steps += [
        (op.op, op.inputs, op.outputs, max(least_bound, _local_bound(records, op, document)))
        for op in records.operators
    ]
    for operator, inputs, outputs, own in steps:
        inherited = max((bounds.get(index, 0) for index in inputs), default=0)
        for index in outputs:
            tensor = records.tensors[index]
            twin = document.tensors.get(tensor.name)
            bound = max(inherited, own)
            if twin is None or tensor.dtype not in ("int8", "uint8"):
                bounds[index] = bound
            elif twin.onnx is None or twin.fate != "kept":
                bounds[index], absent[tensor.name] = bound, str(twin.by)
            else:
                bound = of_twins[twin.onnx] = max(bound, of_twins.get(twin.onnx, 0))
                perm = _permutation(twin, len(tensor.shape))
                shift = twin.zero_point_shift
                dtype = np.uint8 if (tensor.dtype == "uint8") == (shift == 0) else np.int8
                pairs.append(_Pair(tensor.name, operator, twin.onnx, perm, shift, dtype, bound))
    return tuple(pairs), absent


def _permutation(twin: TensorTwin, rank: int) -> tuple[int, ...]:
    """The axes of the source in the order in which the twin has them."""
    if twin.layout == "same":
        return tuple(range(rank))
    before, after = twin.layout.split("->")
    return tuple(before.index(axis) for axis in after)


def _local_bound(records: TfliteModel, op: TfliteOperator, document: ModelDocument) -> int:
    """How far an operator's translation may be from LiteRT: its row says it, and the document where none was exact."""
    case = case_of(records, op)
    tensors = [repr(records.tensors[index].name) for index in op.outputs]
    noted = any("<= 1 LSB" in note and any(name in note for name in tensors) for note in document.notes)
    plain = document.leaky_relu != "litert" and op.op in OPERATORS and OPERATORS[op.op].ties
    return max(1 if case is None else case.bound_lsb, int(noted or plain))
