"""What an importer is and what it hands over: the border between source formats and everything behind them.

One importer per source format; ``converters.sources.IMPORTERS`` is the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.spec import ActivationCodes, DetectorSpec, Deviation, LeakyRelu, TensorTwin

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network in the writer's graph, from the input ``image`` to the raw head, in canonical form (``converters.graph``).

    Attributes:
        head_nhwc: the value named ``head``, float32 ``(N, grid_h, grid_w, channels)``.
        twins: source tensor name -> its ONNX twin, as the importer wrote it.
        quantization: summary for people, such as ``"int8 per-channel"``.
        activations: dtype of the activation codes; ``"float32"`` for a network that is not quantised.
        notes: what people should know, one sentence each.
        deviations: every number that is not the source's.
        canonical: whether it is in that form; a foreign translator's graph is taken as it is.
        leaky_relu: which LeakyReLU was written where the caller's choice does not apply; None: as the options say.
    """

    head_nhwc: ir.Value
    twins: Mapping[str, TensorTwin]
    quantization: str
    activations: ActivationCodes
    notes: tuple[str, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    canonical: bool = True
    leaky_relu: LeakyRelu | None = None


@dataclass(frozen=True, slots=True)
class Importer(Generic[M]):
    """The three steps of reading one source format; each imports what it needs when it is called.

    Attributes:
        read: bytes and file name (for messages) -> the source model, every part of it checked.
        facts: what the source model itself tells about its detector.
        build: writes the network into the writer's graph.
    """

    read: Callable[[bytes, str], M]
    facts: Callable[[M], SourceFacts]
    build: Callable[[M, GraphWriter, DetectorSpec, ConvertOptions], ImportedNetwork]
