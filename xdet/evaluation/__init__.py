"""Average precision by named protocol: how detections are matched, ranked and averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from xdet.evaluation.coco import COCO
from xdet.evaluation.zoo import ZOO_3, ZOO_4

if TYPE_CHECKING:
    from xdet.evaluation.scoring import Protocol

ProtocolName = Literal["coco", "zoo-3", "zoo-4"]
PROTOCOLS: dict[ProtocolName, Protocol] = {"coco": COCO, "zoo-3": ZOO_3, "zoo-4": ZOO_4}
