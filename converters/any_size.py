"""A finished graph of fixed size -> one that takes a photograph of any size.

Before::

    image [1, H, W, C] -> network, head -> detection_boxes, ...

After::

    image [1, height, width, 3] -> resize rule, colours -> network_image [1, H, W, C] -> network, head -> ...

``image`` is RGB, as decoded and turned upright. Boxes and key points are fractions of the photograph: of a stretched
one they are those of the network's picture, of a letterbox they are mapped back in float64 as
``Placement.to_photograph`` does, boxes cut to 0..1, rows of padding kept at 0. All nodes that are added have names that
begin with ``any_size/``, and the values that the mapping reads are ``network_boxes`` and ``network_keypoints``: taken
away, the fixed graph is left. Numeric effect: none on the network's picture and all behind it, in runtimes that compute
float32 and float64 as IEEE 754 says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters._ir import ir
from converters.graph import GraphWriter
from converters.resizing import Arithmetic, network_picture
from converters.spec import IMAGE, NETWORK_IMAGE, NETWORK_VALUES, PHOTOGRAPH_SIZE

if TYPE_CHECKING:
    from converters.resizing import Sides
    from converters.spec import ImageInput, ModelDocument

BOXES, ROWS = "detection_boxes", "detection_anchors"


def take_any_size(graph: ir.Graph, document: ModelDocument) -> ModelDocument:
    """Put the resize rule in front of a finished graph of one picture per call, in place; undo a letterbox behind it.

    Returns:
        The document of the new graph.
    """
    image = document.spec.image
    pixels = next(value for value in graph.inputs if value.name == IMAGE)
    first, readers = graph[0], list(pixels.uses())
    pixels.shape = ir.Shape([1, *PHOTOGRAPH_SIZE, 3])
    writer = GraphWriter.inserting(graph, first)
    picture, sides = network_picture(writer, pixels, image)
    _rename(picture, NETWORK_IMAGE)
    picture.type, picture.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape([1, *image.shape])
    for use in readers:
        use.node.replace_input_with(use.idx, picture)
    if sides is not None:
        _undo_letterbox(graph, sides, image)
    twins = {
        name: replace(twin, onnx=NETWORK_IMAGE) if twin.onnx == IMAGE else twin
        for name, twin in document.tensors.items()
    }
    spec = replace(document.spec, image=replace(image, any_size=True))
    return replace(document, spec=spec, tensors=twins)


def _undo_letterbox(graph: ir.Graph, sides: Sides, image: ImageInput) -> None:
    a = Arithmetic(GraphWriter.appending(graph))
    outputs = {str(value.name): value for value in graph.outputs}
    real = [
        [a.cast(side, ir.DataType.DOUBLE) for side in pair]
        for pair in ((sides.left, sides.top), (sides.width, sides.height))
    ]
    start, size = (a.op("Concat", *pair, axis=0) for pair in real)
    for name, inner in NETWORK_VALUES.items():
        if name not in outputs:
            continue
        value = outputs[name]
        _rename(value, inner)
        points = a.reshape(a.cast(value, ir.DataType.DOUBLE), 1, value.shape[1], -1, 2)  # type: ignore[index,arg-type]  # static
        points = a.op("Mul", points, a.constant([image.width, image.height], np.float64))
        points = a.op("Div", a.op("Sub", points, start), size)
        if name == BOXES:
            points = a.op("Min", a.op("Max", points, a.constant(0, np.float64)), a.constant(1, np.float64))
        is_row = a.op("Less", a.constant(-1, np.int32), a.reshape(outputs[ROWS], 1, -1, 1, 1))
        points = a.op("Where", is_row, a.cast(points, ir.DataType.FLOAT), a.constant(0, np.float32))
        mapped = a.reshape(points, *value.shape)  # type: ignore[misc]  # static
        _rename(mapped, name)
        mapped.type, mapped.shape = value.type, value.shape
        graph.outputs[list(graph.outputs).index(value)] = mapped


def _rename(value: ir.Value, name: str) -> None:
    """A value and the node that computes it, which bears its name."""
    node = value.producer()
    assert node is not None, "computed"  # noqa: S101
    value.name = node.name = name
