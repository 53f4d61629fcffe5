"""A copy of a finished model whose thresholds are constants, for runtimes that ignore or refuse fed ones.

Before -> after: ``score_threshold`` and ``iou_threshold`` are optional inputs with defaults -> they are initialisers
only, at the values asked for, and the document says so. The bytes are edited in place of loading the model. Numeric
effect: none, at those thresholds.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.spec import DETECTION_OUTPUTS, IMAGE, METADATA_KEY, THRESHOLD_INPUTS, ModelDocument, Thresholds
from xdet.errors import ModelError
from xdet.model import wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdet.runtimes.ort_session import OrtSession


def freeze_thresholds(model: bytes, document: ModelDocument, thresholds: Thresholds) -> bytes:
    """The model's bytes with ``thresholds`` (of which ``max_detections`` must be the model's own) as constants.

    Args:
        model: a finished model's bytes.
        document: what its metadata says.
        thresholds: float32 of their score and IoU stand in the copy.
    """
    values = dict(zip(THRESHOLD_INPUTS, (thresholds.score, thresholds.iou), strict=True))
    spec = replace(document.spec, thresholds=thresholds)
    frozen = replace(document, spec=spec, freeze_thresholds=True).to_json()

    def without_input(value: memoryview) -> bytes | None:
        return None if _name(value, wire.VALUE_NAME) in values else bytes(value)

    def with_value(tensor: memoryview) -> bytes:
        name = _name(tensor, wire.TENSOR_NAME)
        if name not in values:
            return bytes(tensor)
        without = wire.edited(tensor, {wire.TENSOR_FLOATS: lambda _: None, wire.TENSOR_RAW: lambda _: None})
        return without + wire.field(wire.TENSOR_RAW, struct.pack("<f", values[name]))

    def with_document(entry: memoryview) -> bytes:
        if _name(entry, wire.ENTRY_KEY) != METADATA_KEY:
            return bytes(entry)
        return wire.edited(entry, {wire.ENTRY_VALUE: lambda _: frozen.encode("utf-8")})

    return wire.edited(
        memoryview(model),
        {
            wire.GRAPH: lambda graph: wire.edited(graph, {wire.INPUT: without_input, wire.INITIALIZER: with_value}),
            wire.METADATA: with_document,
        },
    )


def obeys_fed_thresholds(session: OrtSession, image: NDArray[np.uint8]) -> bool:
    """Whether boxes follow the thresholds that are fed: the same picture, at extremes of each of the two.

    No score exceeds 1, every one exceeds 0; at IoU 0 no two boxes of a class may touch, at 1 all may lie on each other.
    The model itself is asked, since the answer for one graph says nothing of another: OpenVINO's provider obeys in a
    tiny graph, whose suppression it leaves to the CPU, and ignores thresholds where it takes all nodes. Where the
    picture does not tell, the answer is no, which costs a session and never a result.

    Args:
        session: a finished model that ends in boxes and has threshold inputs.
        image: uint8 ``(N, height, width, 3)`` at network size.
    """
    count, anchors = DETECTION_OUTPUTS[0], DETECTION_OUTPUTS[-1]

    def boxes_at(score: float, iou: float) -> list[NDArray[np.int32]]:
        fed = {n: np.asarray(v, np.float32) for n, v in zip(THRESHOLD_INPUTS, (score, iou), strict=True)}
        return session.run((count, anchors), {IMAGE: image, **fed})

    try:
        every, nothing, disjoint = boxes_at(0.0, 1.0), boxes_at(1.0, 1.0), boxes_at(0.0, 0.0)
    except ModelError:  # it refuses them
        return False
    follows_score = bool((every[0] > 0).all() and (nothing[0] == 0).all())
    return follows_score and not np.array_equal(every[1], disjoint[1])


def _name(message: memoryview, number: int) -> str:
    return "".join(map(wire.text, wire.messages(message, number)))
