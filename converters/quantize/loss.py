"""What 8 bits cost a network, measured on its calibration photographs: boxes found again, or the noise in its outputs.

Both networks run with every operator in float32 between its integers, so no kernel's rounding counts. The boxes of the
float network that are sure (score above ``SURE``) are looked for among those of the quantised one above half of that,
by class and an overlap of ``OVERLAP``; where a head is not known, or finds too few, the ratio of signal to noise of the
raw outputs counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from converters.heads.base import join_outputs
from converters.heads.boxes import iou_xyxy
from converters.heads.nms import detect_from_head
from converters.spec import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec

MOST_PHOTOGRAPHS = 32
SURE, OVERLAP = 0.3, 0.5
FEWEST_BOXES = 10
LEAST_FOUND = 0.7  # per-channel weights keep some 90 % and more
LEAST_DB = 10.0  # per-channel weights have 20 and more


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """What was measured."""

    photographs: int
    boxes: int  # sure boxes of the float network
    matched: int  # those that the quantised one finds again
    signal_db: float  # signal to noise of the raw outputs, in decibels

    def warning(self, quantize: str) -> str | None:
        """One sentence with the number where the network is ruined, else None."""
        counted = self.boxes >= FEWEST_BOXES
        if counted and self.matched >= LEAST_FOUND * self.boxes:
            return None
        if not counted and self.signal_db >= LEAST_DB:
            return None
        measured = f"its outputs are {self.signal_db:.1f} dB above their noise, expected {LEAST_DB:g} or more"
        if counted:
            share = self.matched / self.boxes
            measured = (
                f"of the {self.boxes} boxes that the float network finds, the int8 one finds {self.matched} again"
            )
            measured += f" ({share:.0%})"
        other = {
            "per-tensor": "--quantize per-channel keeps more, above all in depthwise convolutions",
            "per-channel": "leave it float, or calibrate with photographs of what it will see",
        }[quantize]
        photographs = f"{self.photographs} calibration photographs"
        return f"--quantize {quantize} costs this network much: in {photographs}, {measured}; {other}"


def measure_loss(plain: bytes, quantised: bytes, spec: DetectorSpec, options: ConvertOptions) -> QuantizationLoss:
    """Run a network and its quantised form, ONNX files that end at the raw outputs, on photographs and compare."""
    assert options.calibration is not None, "a network was quantised"  # noqa: S101
    images = islice(options.calibration.pixels(spec.image), MOST_PHOTOGRAPHS)
    count = boxes = matched = 0
    signal = noise = 0.0
    for one, other in _heads(plain, quantised, images, options.fixed_batch):
        count += 1
        signal += float(np.square(one, dtype=np.float64).sum())
        noise += float(np.square(one.astype(np.float64) - other).sum())
        sure, again = _found_again(one, other, spec)
        boxes, matched = boxes + sure, matched + again
    decibels = math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)
    return QuantizationLoss(count, boxes, matched, decibels)


def _heads(
    plain: bytes, quantised: bytes, images: Iterator[NDArray[np.uint8]], batch: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    import onnxruntime as ort

    choices = ort.SessionOptions()
    choices.log_severity_level = 3
    choices.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [
        ort.InferenceSession(model, choices, providers=["CPUExecutionProvider"]) for model in (plain, quantised)
    ]
    for pixels in images:
        feed = {IMAGE: np.repeat(pixels[None], batch, axis=0)}
        one, other = (join_outputs([array[:1] for array in session.run(None, feed)]) for session in sessions)
        yield one, other


def _found_again(one: NDArray[np.float32], other: NDArray[np.float32], spec: DetectorSpec) -> tuple[int, int]:
    """Sure boxes of the first raw outputs, and how many of them the second give, too."""
    if spec.head is None:
        return 0, 0
    sure, loose = (
        detect_from_head(head, spec, replace(spec.thresholds, score=score))
        for head, score in ((one, SURE), (other, SURE / 2))
    )
    count, others = int(sure.num_detections[0]), int(loose.num_detections[0])
    overlaps = iou_xyxy(sure.boxes_xyxy[0, :count, None], loose.boxes_xyxy[0, None, :others])
    same = sure.classes[0, :count, None] == loose.classes[0, None, :others]
    return count, int(((overlaps >= OVERLAP) & same).any(axis=1).sum())
