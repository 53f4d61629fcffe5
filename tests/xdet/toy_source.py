"""A source format as a newcomer would write it: the functions to which a row leads (``test_toy_source``).

A file is ``TOY`` and JSON: the picture's size and the weights of one 4 x 4 convolution of stride 4 that is the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.description.statements import SourceOptions, describe_source
from converters.errors import SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.graph import NCHW_TO_NHWC, image_pixels, rescaled_pixels
from converters.sources import ImportedNetwork, as_raw_output
from xdet.checking.numbers import compare_picture
from xdet.checking.numbers.comparison import CheckedSource, Product, StaticComparison
from xdet.checking.numbers.products import compare_product
from xdet.inspection import Inspection, TensorSummary
from xdet.model.file import hash_model
from xdet.runtimes.finished import SourceRuntime, rescaled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec, ModelDocument
    from xdet.model.file import ModelFile
    from xdet.model.graph import FinishedGraph
    from xdet.runtimes.base import RuntimeChoices

STRIDE = 4


@dataclass(frozen=True, eq=False)
class Toy:
    file: str
    size: int
    weights: NDArray[np.float32]


def is_toy(data: bytes) -> bool:
    return data.startswith(b"TOY")


def write(size: int, weights: NDArray[np.float32]) -> bytes:
    return b"TOY" + json.dumps({"size": size, "weights": weights.tolist()}).encode()


def read(data: bytes, file: str) -> Toy:
    try:
        told = json.loads(data[3:])
        return Toy(file, told["size"], np.asarray(told["weights"], np.float32))
    except (ValueError, KeyError, TypeError) as error:
        raise SourceFileError(f"{file}: is damaged: {error}; write it again") from error


def facts(model: Toy) -> SourceFacts:
    grid = model.size // STRIDE
    output = SourceOutput("cells", (grid, grid, len(model.weights)))
    return SourceFacts(model.file, model.size, model.size, (output,), "float32", None)


def build(model: Toy, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions) -> ImportedNetwork:
    real = rescaled_pixels(writer, image_pixels(writer, spec.image, options.batch_size), spec.image.rescaling)
    weights = writer.constant(model.weights, "weights")
    cells = writer.op("Conv", [real, weights], "cells", strides=[STRIDE, STRIDE])
    rows = writer.op("Transpose", [cells], "rows", perm=list(NCHW_TO_NHWC))
    output = as_raw_output(writer, rows, facts(model).outputs[0].shape, spec.network_outputs[0])
    return ImportedNetwork((output,), {}, "float32", "float32", leaky_relu="float")


def inspect(path: Path, data: bytes, _: bool, source_options: SourceOptions | None = None) -> Inspection:  # noqa: FBT001 - called by a table
    model = read(data, path.name)
    picture = TensorSummary("picture", "float32", (1, model.size, model.size, 3))
    spec = describe_source(path, facts(model), source_options or SourceOptions()).spec
    return Inspection(
        path.name, "toy", len(data), hash_model(data), "a test", (picture,), (), {"conv": 1}, None, spec, None
    )


def compare(origin: ModelFile, _: ModelDocument) -> Any:
    model = read(origin.data, origin.file)
    return CheckedSource(facts(model), compare=partial(compare_numbers, model))


def compare_numbers(model: Toy, graph: FinishedGraph, document: ModelDocument) -> StaticComparison:
    found, size = StaticComparison(graph, document), (model.size, model.size)
    product = Product(model.weights, np.zeros(len(model.weights)), (STRIDE, STRIDE), size=size, layers=("wall",))
    compare_picture(found)
    compare_product(found, product, next(node for node in graph.nodes if node.op == "Conv"))
    return found


class ToyRuntime(SourceRuntime):
    """The one convolution in numpy."""

    def __init__(self, model: ModelFile, spec: DetectorSpec) -> None:
        super().__init__(model, name="toy:wood", spec=spec, batch=None, exact=False)

    def _outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        model = read(self.model.data, self.file)
        grid = model.size // STRIDE
        tiles = rescaled(images, self.spec).reshape(len(images), grid, STRIDE, grid, STRIDE, 3)
        return [np.einsum("nyaxbc,ocab->nyxo", tiles, model.weights)]

    @property
    def _value_names(self) -> tuple[str, ...]:
        return ()

    def _values(self, images: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[Any]]:
        raise NotImplementedError

    def _free(self) -> None:
        pass


def open_model(model: ModelFile, choices: RuntimeChoices) -> ToyRuntime:
    described = read(model.data, model.file)
    return ToyRuntime(model, choices.spec or describe_source(model.path, facts(described), SourceOptions()).spec)
