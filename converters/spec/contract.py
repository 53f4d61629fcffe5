"""The model contract as a table: names, dtypes and shapes of a finished graph's inputs and outputs (docs/contract.md).

Whoever writes, verifies or runs a finished model derives its expectations from ``contract_io``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from converters.heads.base import HEAD, keypoints_of

if TYPE_CHECKING:
    from converters.spec.detector import DetectorSpec

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

ContractDtype = Literal["uint8", "int32", "float32"]


@dataclass(frozen=True, slots=True)
class ContractTensor:
    """One input, output or promised inner value of a finished model.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of its element type.
        shape: sizes; a text names a dynamic one: the batch, the sides of a photograph.
        optional: whether it is an input with a default (an initialiser of the same name).
    """

    name: str
    dtype: ContractDtype
    shape: tuple[int | str, ...]
    optional: bool = False


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
