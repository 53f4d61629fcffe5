"""What a source format is and what its importer hands over: the border between formats and everything behind them.

One row per format; ``converters.sources.SOURCES`` is the table. Functions of ``xdet`` stand in it by name alone:
``xdet`` calls them, and nothing here imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from converters.facts import SourceFacts
    from converters.graph import GraphWriter
    from converters.heads.base import RawOutput
    from converters.options import ConvertOptions, ImporterChoice
    from converters.spec import ActivationCodes, DetectorSpec, Deviation, LeakyRelu, TensorTwin


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network in the writer's graph, from ``image`` to the raw outputs, in canonical form (``converters.graph``)."""

    outputs: tuple[ir.Value, ...]  # the values of ``DetectorSpec.network_outputs``, float32, under their names
    twins: Mapping[str, TensorTwin]  # source tensor name -> its ONNX twin, as the importer wrote it
    quantization: str  # summary for people, such as ``"int8 per-channel"``
    activations: ActivationCodes  # dtype of the activation codes; ``"float32"`` for a network that is not quantised
    notes: tuple[str, ...] = ()  # what people should know, one sentence each
    deviations: tuple[Deviation, ...] = ()  # every number that is not the source's
    canonical: bool = True  # whether it is in that form; a foreign translator's graph is taken as it is
    # which LeakyReLU was written where the caller's choice does not apply; None: as the options say
    leaky_relu: LeakyRelu | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """A function of a module that is imported when it is called: a table of these loads nothing."""

    module: str
    function: str

    def __call__(self, *arguments: Any) -> Any:
        """Import the function and call it."""
        return self.resolve()(*arguments)

    def resolve(self) -> Callable[..., Any]:
        """The function itself."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.function)
        return function


@dataclass(frozen=True, slots=True)
class Importer:
    """The three steps of reading one source format."""

    # bytes, file name (for messages) and, where ``takes_size``, what is stated of the picture's size -> the source
    # model, every part of it checked
    read: Callable[..., Any]
    facts: Callable[[Any], SourceFacts]  # what the source model itself tells about its detector
    # writes the network into the writer's graph
    build: Callable[[Any, GraphWriter, DetectorSpec, ConvertOptions], ImportedNetwork]
    # raises what ``build`` would of operators and types, so that it is told beside what the description lacks
    require: Callable[[Any], None] | None = None
    takes_size: bool = False  # files may leave the picture's size open
    dequantizes: bool = False  # it can write the float network of a quantised file


@dataclass(frozen=True, slots=True)
class Source:
    """A source format: a row of ``converters.sources.SOURCES``."""

    title: str  # what messages call it
    sniff: Callable[[bytes], bool]  # whether a file's first bytes are of it
    importers: Mapping[ImporterChoice, Importer]  # who can translate it, by the name of the choice; ``"native"`` always
    inspect: Later  # what ``xdet inspect`` shows of a file; a function of ``xdet.inspection``
    compare: Later  # what ``xdet check`` compares beside the outputs; a function of ``xdet.checking``
    extra: str | None = None  # the extra without which a file cannot be read; None for none
    loads: bool = False  # its layers are known only when that extra has loaded it, which takes time


def as_raw_output(writer: GraphWriter, value: ir.Value, shape: tuple[int, ...] | None, output: RawOutput) -> ir.Value:
    """A network's output under its contract name, and in the shape in which the head reads it.

    Args:
        writer: the graph to append to.
        value: the output; it may have that name already.
        shape: its shape in the source, without the batch; a reshape to the head's moves no number. None: the value
            keeps its own name, and a reshape gets that of the output.
        output: the name and shape that it gets.

    Raises:
        ContractError: a tensor of the network has that name.
    """
    name = output.value_name
    if shape != output.shape or value.producer() is None:
        if value.name == name:
            value.name = writer.unique(f"{name}/as the source lays it out")
        sizes = writer.constant(np.array([-1, *output.shape], np.int64), f"{name}/shape")
        value = writer.op("Reshape", [value, sizes], f"{name}/reshaped")
    if value.name != name:
        if any(other.name == name for node in writer.graph for other in node.outputs):
            raise ContractError(
                f"a tensor of the network is named {name!r}, which the contract needs: rename it in the source"
            )
        value.name = name
    return value
