"""Constants that are stored without their zeros: read as LiteRT's DENSIFY writes them, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.errors import SourceFileError
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

bindings: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason='needs pip install "xdet[litert]"')
VECTORS = {1: bindings.Int32VectorT, 2: bindings.Uint16VectorT, 3: bindings.Uint8VectorT}


def weights(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    """Mostly zeros, whole rows of them."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-9, 10, shape) * (rng.random(shape) < 0.4)
    values[:: max(2, shape[0] // 3)] = 0
    return values.astype(dtype)


def sparse(
    dense: NDArray[Any], order: Sequence[int], formats: str, blocks: Sequence[tuple[int, int]] = (), vector: int = 1
) -> tuple[Any, NDArray[Any]]:
    """Parameters and stored numbers: ``formats`` is ``d`` or ``s`` per level, ``blocks`` are axis and size."""
    sizes = dict(blocks)
    split = [
        part
        for axis, n in enumerate(dense.shape)
        for part in ((n // sizes[axis], sizes[axis]) if axis in sizes else (n,))
    ]
    places = np.cumsum([0, *(1 + (axis in sizes) for axis in range(dense.ndim))])
    axes = [int(places[axis]) for axis in range(dense.ndim)] + [int(places[axis]) + 1 for axis, _ in blocks]
    nodes = [dense.reshape(split).transpose(axes).transpose(order)]
    parameters = bindings.SparsityParametersT()
    parameters.traversalOrder, parameters.dimMetadata = list(order), []
    parameters.blockMap = [axis for axis, _ in blocks] or None
    for form in formats:
        level = bindings.DimensionMetadataT()
        size = nodes[0].shape[0] if nodes else 0
        if form == "d":
            level.format, level.denseSize = 0, size
            nodes = [child for node in nodes for child in node]
        else:
            kept = [[i for i in range(size) if node[i].any()] for node in nodes]
            level.format, level.arraySegmentsType, level.arrayIndicesType = 1, vector, vector
            level.arraySegments, level.arrayIndices = VECTORS[vector](), VECTORS[vector]()
            level.arraySegments.values = [0, *np.cumsum([len(some) for some in kept]).tolist()]
            level.arrayIndices.values = [i for some in kept for i in some]
            nodes = [node[i] for node, some in zip(nodes, kept, strict=True) for i in some]
        parameters.dimMetadata.append(level)
    return parameters, np.array(nodes, dense.dtype)


def model(dense: NDArray[Any], parameters: Any, stored: NDArray[Any]) -> bytes:
    """A file that adds a sparse constant, DENSIFY'd, to its input."""
    b = TfliteBuilder()
    image = b.input("image", dense.shape, "float32")
    constant = b.constant(dense, name="sparse")
    b.set_data(constant, stored.tobytes())
    b.subgraph.tensors[constant].sparsity = parameters
    whole = b.op("DENSIFY", [constant], dense.shape, dense.dtype.name, name="whole")
    if dense.dtype != np.float32:
        whole = b.op("DEQUANTIZE", [whole], dense.shape, "float32", name="real")
    return b.build([b.op("ADD", [image, whole], dense.shape, "float32", name="sum")])


CASES: dict[str, tuple[NDArray[Any], tuple[Any, ...]]] = {
    "rows": (weights((6, 5)), ((0, 1), "ds")),
    "columns": (weights((6, 5)), ((1, 0), "ds")),
    "both": (weights((6, 5)), ((0, 1), "ss")),
    "1 x 1 weights of bytes": (weights((8, 1, 1, 32), "float16"), ((0, 1, 2, 3), "ddds", (), 3)),
    "two bytes": (weights((3, 4, 5)), ((2, 0, 1), "dss", (), 2)),
    "blocks": (weights((8, 8)), ((0, 1, 2, 3), "dsdd", ((0, 2), (1, 4)))),
    "blocks of channels": (weights((8, 1, 1, 12)), ((0, 1, 2, 3, 4), "dddsd", ((3, 4),))),
    "blocks, columns first": (weights((4, 6)), ((1, 0, 2), "dsd", ((1, 3),))),
}


@pytest.mark.parametrize(("dense", "how"), CASES.values(), ids=CASES)
def test_zeros_are_put_back_as_litert_does(dense: NDArray[Any], how: tuple[Any, ...]) -> None:
    data = model(dense, *sparse(dense, *how))
    read = read_tflite(data, "m.tflite")
    assert [op.op for op in read.operators if op.op == "DENSIFY"] == []
    found = {tensor.name: tensor.data for tensor in read.tensors}
    for name in ("sparse", "whole"):
        np.testing.assert_array_equal(found[name], dense, err_msg=name)
    litert: Any = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
    interpreter = litert.Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros(dense.shape, np.float32))
    interpreter.invoke()
    np.testing.assert_array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), dense)


DAMAGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "order": (
        lambda p: setattr(p, "traversalOrder", [0, 0]),
        r"order \[0, 0\], blocks \[\] describe no tensor of rank 2",
    ),
    "a level less": (lambda p: p.dimMetadata.pop(), "describe no tensor"),
    "blocks of no dimension": (lambda p: setattr(p, "blockMap", [7]), "describe no tensor"),
    "a dense size": (
        lambda p: setattr(p.dimMetadata[0], "denseSize", 2**30),
        "1 times 1073741824 places, expected at most 30",
    ),
    "an index": (
        lambda p: p.dimMetadata[1].arrayIndices.values.__setitem__(-1, 5),
        r"an index lies outside the shape \[6, 5\]",
    ),
    "an index below 0": (lambda p: p.dimMetadata[1].arrayIndices.values.__setitem__(0, -1), "some below 0"),
    "segments": (lambda p: p.dimMetadata[1].arraySegments.values.__setitem__(1, 9999), "expected 7 rising numbers"),
    "a number less": (lambda p: p.dimMetadata[1].arrayIndices.values.pop(), "expected 7 rising numbers"),
    "a format": (lambda p: setattr(p.dimMetadata[0], "format", 2), "expected 0 .dense. or 1 .sparse., found 2"),
    "a vector": (lambda p: setattr(p.dimMetadata[1], "arrayIndicesType", 0), "expected 1, 2, 3, found 0"),
}


@pytest.mark.parametrize(("bend", "told"), DAMAGE.values(), ids=DAMAGE)
def test_parameters_that_cannot_be_are_damage(bend: Callable[[Any], object], told: str) -> None:
    dense = weights((6, 5))
    parameters, stored = sparse(dense, (0, 1), "ds")
    bend(parameters)
    with pytest.raises(SourceFileError, match=told):
        read_tflite(model(dense, parameters, stored), "m.tflite")


def test_another_number_of_stored_numbers_is_damage() -> None:
    dense = weights((6, 5))
    parameters, stored = sparse(dense, (0, 1), "ds")
    with pytest.raises(SourceFileError, match=r"numbers have a place, .* bytes are stored"):
        read_tflite(model(dense, parameters, stored[:-1]), "m.tflite")
