"""What a finished model is: its detector, its contract, and the document that travels in its metadata.

``ModelDocument`` is written into the ONNX file as one JSON text under the metadata key ``xdet``, so a finished model
needs nothing beside it. Everything here imports only numpy and the standard library: whoever runs a model reads it,
too.
"""

from __future__ import annotations

from converters.heads.base import HEAD, RawOutput
from converters.heads.nms import MAX_CANDIDATES
from converters.heads.yolo_v2 import Anchors, AnchorUnit
from converters.spec.contract import (
    ANY_SIZE,
    CONTRACT_NAMES,
    DETECTION_OUTPUTS,
    IMAGE,
    METADATA_KEY,
    NETWORK_IMAGE,
    NETWORK_VALUES,
    PHOTOGRAPH_SIZE,
    SIDECAR_SUFFIX,
    THRESHOLD_INPUTS,
    ContractTensor,
    contract_io,
    raw_outputs,
)
from converters.spec.detector import (
    PADDING,
    Color,
    DetectorSpec,
    ImageInput,
    Placement,
    Rescaling,
    ResizeRule,
    Suppression,
    Thresholds,
)
from converters.spec.document import (
    BY_TF2ONNX,
    ActivationCodes,
    Arithmetic,
    Deviation,
    DeviationKind,
    EvaluationSettings,
    GoldenPart,
    GoldenVector,
    LeakyRelu,
    ModelDocument,
    SourceInfo,
    Target,
    TensorTwin,
)

__all__ = [
    "ANY_SIZE", "BY_TF2ONNX", "CONTRACT_NAMES", "DETECTION_OUTPUTS", "HEAD", "IMAGE", "MAX_CANDIDATES", "METADATA_KEY",
    "NETWORK_IMAGE", "NETWORK_VALUES", "PADDING", "PHOTOGRAPH_SIZE", "SIDECAR_SUFFIX", "THRESHOLD_INPUTS",
    "ActivationCodes", "AnchorUnit", "Anchors", "Arithmetic", "Color", "ContractTensor", "DetectorSpec", "Deviation",
    "DeviationKind", "EvaluationSettings", "GoldenPart", "GoldenVector", "ImageInput", "LeakyRelu", "ModelDocument",
    "Placement", "RawOutput", "Rescaling", "ResizeRule", "SourceInfo", "Suppression", "Target", "TensorTwin",
    "Thresholds", "contract_io", "raw_outputs",
]  # fmt: skip
