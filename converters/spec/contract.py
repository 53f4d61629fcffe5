"""The model contract as tables: inputs and outputs of a finished graph, opsets, and who loads it (docs/contract.md).

Whoever writes, verifies or runs a finished model derives its expectations from ``contract_io``.

The releases are measured. ONNX Runtime: one model, stamped with each opset, on every minor release from 1.15 to 1.24;
for Node and the web, the same. Others: nine detectors on every release that has a wheel for Python 3.11, downwards
until one failed. What failed: OpenVINO 2023.0 does not import in that way, OpenCV 4 has no such engine, IREE 3.12 and
TVM 0.25 do not compile the suppression, tract 0.23.5 and 0.23.7 load files and compute wrong heads (167 steps), older
ones do not load them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from converters.heads.base import HEAD, keypoints_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.spec.detector import DetectorSpec, ResizeRule

CONTRACT_VERSION = 2
METADATA_KEY = "xdet"
SIDECAR_SUFFIX = ".xdet.json"  # behind the stem of a source's name: the file beside it that says what it cannot

IMAGE = "image"
NETWORK_IMAGE = "network_image"  # inside graphs whose ``image`` is a photograph of any size: what the network takes
PHOTOGRAPH_SIZE = ("height", "width")  # names of the dynamic dimensions there
THRESHOLD_INPUTS = ("score_threshold", "iou_threshold")
DETECTION_OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes", "detection_anchors")
KEYPOINTS = "detection_keypoints"  # a further output, of heads that have keypoints
ANY_SIZE = "any_size"  # and a slash: in front of the names of what makes ``NETWORK_IMAGE``, and of what maps back
# What outputs are mapped from where a letterbox is undone inside a graph whose ``image`` has any size.
NETWORK_VALUES = {"detection_boxes": "network_boxes", KEYPOINTS: "network_keypoints"}
CONTRACT_NAMES = frozenset(
    {IMAGE, NETWORK_IMAGE, HEAD, *THRESHOLD_INPUTS, *DETECTION_OUTPUTS, KEYPOINTS, *NETWORK_VALUES.values()}
)

# Opsets that a finished file may have, and the oldest releases of every runtime that run it.
IR_VERSIONS: Mapping[int, int] = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
OPSET_RANGE = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
ONNXRUNTIME: Mapping[int, str] = {
    **dict.fromkeys(range(13, 19), "1.15"),
    19: "1.16",
    20: "1.17",
    21: "1.18",
    22: "1.21",
}
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-node", "onnxruntime-web")  # one core, the same numbers
OTHER_RUNTIMES: Mapping[str, str] = {
    "iree": "3.13",
    "opencv": "5.0",
    "openvino": "2023.1",
    "tract": "0.23.8",
    "tvm": "0.26",
}
ANY_SIZE_RUNTIMES: Mapping[str, str] = {"openvino": "2025.4"}  # older ones do not load the resize rules
# The resize rules that a runtime takes inside files for photographs of any size; runtimes without an entry take all.
ANY_SIZE_RULES: Mapping[str, tuple[ResizeRule, ...]] = {
    "iree": (),
    "opencv": ("nearest", "bilinear", "letterbox"),  # no MatMulInteger of this form
    "tract": ("nearest", "bilinear"),  # shapes that are computed from two others it does not follow
    "tvm": (),
}
# What of a file a runtime does not run; runtimes without an entry run all.
Trait = Literal["float16", "competing classes", "int8 activations"]
REFUSED_TRAITS: Mapping[str, frozenset[Trait]] = {
    "iree": frozenset({"float16", "competing classes"}),
    "tract": frozenset({"int8 activations"}),
}
UINT8_MAX_ONNXRUNTIME = "1.24"  # the first whose kernel for Max takes uint8, which ONNX has since opset 12

ContractDtype = Literal["uint8", "int32", "float32"]


@dataclass(frozen=True, slots=True)
class ContractTensor:
    """One input, output or promised inner value of a finished model."""

    name: str  # its name in the graph
    dtype: ContractDtype  # numpy's name of its element type
    shape: tuple[int | str, ...]  # sizes; a text names a dynamic one: the batch, the sides of a photograph
    optional: bool = False  # whether it is an input with a default (an initialiser of the same name)


def contract_io(
    spec: DetectorSpec, batch: int | str, *, freeze_thresholds: bool
) -> tuple[tuple[ContractTensor, ...], tuple[ContractTensor, ...]]:
    """Inputs and outputs of a finished model, in the graph's order.

    Args:
        spec: the detector.
        batch: images per call, or the name of the dynamic dimension (``"N"``).
        freeze_thresholds: whether the thresholds are constants instead of optional inputs.

    Returns:
        (inputs, outputs).
    """
    size = (*PHOTOGRAPH_SIZE, 3) if spec.image.any_size else spec.image.shape
    image = ContractTensor(IMAGE, "uint8", (batch, *size))
    if not spec.gives_boxes:
        return (image,), raw_outputs(spec, batch)
    thresholds = [ContractTensor(name, "float32", (), optional=True) for name in THRESHOLD_INPUTS]
    rows = spec.thresholds.max_detections
    keypoints = keypoints_of(spec.head)
    outputs = (
        ContractTensor("num_detections", "int32", (batch,)),
        ContractTensor("detection_boxes", "float32", (batch, rows, 4)),
        ContractTensor("detection_scores", "float32", (batch, rows)),
        ContractTensor("detection_classes", "int32", (batch, rows)),
        ContractTensor("detection_anchors", "int32", (batch, rows)),
        *((ContractTensor(KEYPOINTS, "float32", (batch, rows, keypoints, 2)),) if keypoints else ()),
    )
    return (image, *([] if freeze_thresholds else thresholds)), outputs


def raw_outputs(spec: DetectorSpec, batch: int | str) -> tuple[ContractTensor, ...]:
    """The values that every finished graph holds: the raw outputs, float32, as the source lays them out.

    ``head`` where there is one, ``head_<name>`` each where there are several: outputs of ``--head none`` models, inner
    values of all others.
    """
    return tuple(
        ContractTensor(output.value_name, "float32", (batch, *output.shape)) for output in spec.network_outputs
    )


def is_older(release: str, other: str) -> bool:
    """Whether a ``release`` (``"1.20.1"``, ``"1.24.0.dev3"``) comes before an ``other`` (``"1.24"``).

    Example:
        >>> is_older("1.9.0", "1.24"), is_older("1.24.1", "1.24"), is_older("2.0", "1.24")
        (True, False, False)
    """
    return _numbers(release) < _numbers(other)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]
