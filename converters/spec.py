"""What a detector is, apart from its weights: input encoding, anchors with their unit, classes, thresholds.

``DetectorSpec`` travels inside the ONNX file as one JSON document under the metadata key ``xdet`` (``ModelDocument``), so a
finished model needs nothing beside it. This module imports only the standard library: whoever runs a model reads it too.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

CONTRACT_VERSION = 1
METADATA_KEY = "xdet"
MAX_CANDIDATES = 4096
DETECTION_OUTPUTS = (
    "num_detections",
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "detection_anchors",
)
CONTRACT_NAMES = frozenset({"image", "score_threshold", "iou_threshold", "head", *DETECTION_OUTPUTS})

HeadKind = Literal["yolo_v2", "none"]
AnchorUnit = Literal["cell", "image"]
ResizeRule = Literal["nearest", "bilinear", "bilinear-antialias"]


@dataclass(frozen=True, slots=True)
class Rescaling:
    """What the network sees of a pixel p in 0..255: ``p * scale + offset``."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset) and self.scale > 0):
            msg = (
                f"rescaling needs a finite scale above 0 and a finite offset, got {self.scale}, {self.offset}"
            )
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The picture a network takes: uint8 RGB pixels, NHWC, at exactly this size.

    Attributes:
        height: rows in pixels.
        width: columns in pixels.
        rescaling: pixel to real number, done inside the graph.
        resize: how a photograph is stretched to this size.
    """

    height: int
    width: int
    rescaling: Rescaling
    resize: ResizeRule = "nearest"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            msg = f"input size must be positive, got {self.height} x {self.width}"
            raise ValueError(msg)
        if self.resize not in get_args(ResizeRule):
            msg = f"resize must be one of {', '.join(get_args(ResizeRule))}, got {self.resize!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Prior boxes as (width, height) pairs in grid cells or as fractions of the image; the unit is never guessed."""

    sizes_wh: tuple[tuple[float, float], ...]
    unit: AnchorUnit

    def __post_init__(self) -> None:
        if self.unit not in get_args(AnchorUnit):
            msg = f"anchor unit must be 'cell' or 'image', got {self.unit!r}"
            raise ValueError(msg)
        if not self.sizes_wh:
            msg = "at least one anchor is needed"
            raise ValueError(msg)
        for w, h in self.sizes_wh:
            if not (math.isfinite(w) and math.isfinite(h) and w > 0 and h > 0):
                msg = f"anchors must be finite and above 0, got ({w}, {h})"
                raise ValueError(msg)
        if self.unit == "image" and any(max(wh) > 1 for wh in self.sizes_wh):
            msg = "an anchor above 1 cannot be a fraction of the image: the unit must be 'cell'"
            raise ValueError(msg)

    def in_image_fractions(self, grid_h: int, grid_w: int) -> tuple[tuple[float, float], ...]:
        """The anchors as (width, height) fractions of the image."""
        if self.unit == "image":
            return self.sizes_wh
        return tuple((w / grid_w, h / grid_h) for w, h in self.sizes_wh)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a candidate counts, when a neighbour suppresses it, and how many are kept.

    A candidate needs score > ``score``; it falls when its IoU with a better one of its class is > ``iou``; at most
    ``max_detections`` remain per image.
    """

    score: float = 0.5
    iou: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        for name in ("score", "iou"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                msg = f"{name} threshold must lie in 0..1, got {value}"
                raise ValueError(msg)
        if not 1 <= self.max_detections <= MAX_CANDIDATES:
            msg = f"max_detections must lie in 1..{MAX_CANDIDATES}, got {self.max_detections}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Everything that turns pixels into a head tensor's boxes, except the network.

    Attributes:
        image: the input picture.
        head: ``"yolo_v2"``, or ``"none"`` for a graph that ends at the raw head.
        grid_h: rows of the head's grid.
        grid_w: columns of the head's grid.
        head_channels: channels of the raw head, ``A * (5 + NC)`` for ``yolo_v2``.
        class_names: one name per class; may be empty when ``head`` is ``"none"``.
        anchors: the prior boxes; may be None when ``head`` is ``"none"``.
        thresholds: the defaults written into the graph.
    """

    image: ImageInput
    head: HeadKind
    grid_h: int
    grid_w: int
    head_channels: int
    class_names: tuple[str, ...] = ()
    anchors: Anchors | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        if self.head not in get_args(HeadKind):
            msg = f"head must be one of {', '.join(get_args(HeadKind))}, got {self.head!r}"
            raise ValueError(msg)
        if min(self.grid_h, self.grid_w, self.head_channels) < 1:
            msg = f"grid and channels must be positive, got {self.grid_h} x {self.grid_w} x {self.head_channels}"
            raise ValueError(msg)
        if self.head == "none":
            return
        if self.anchors is None or not self.class_names:
            msg = "a yolo_v2 head needs anchors and class names"
            raise ValueError(msg)
        expected = len(self.anchors.sizes_wh) * (5 + len(self.class_names))
        if expected != self.head_channels:
            msg = (
                f"{len(self.anchors.sizes_wh)} anchors x (5 + {len(self.class_names)} classes) make {expected} channels, "
                f"the head has {self.head_channels}"
            )
            raise ValueError(msg)

    @property
    def num_boxes(self) -> int:
        """Boxes the head proposes per image: rows x columns x anchors."""
        return self.grid_h * self.grid_w * (len(self.anchors.sizes_wh) if self.anchors else 0)

    @property
    def num_candidates(self) -> int:
        """(box, class) pairs that enter suppression: ``min(boxes * classes, 4096)``, best scores first."""
        return min(self.num_boxes * len(self.class_names), MAX_CANDIDATES)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DetectorSpec:
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: a key is missing, unknown, or its value is out of range.
        """
        try:
            image = dict(data["image"])
            anchors = data["anchors"]
            return cls(
                image=ImageInput(**{**image, "rescaling": Rescaling(**image["rescaling"])}),
                head=data["head"],
                grid_h=data["grid_h"],
                grid_w=data["grid_w"],
                head_channels=data["head_channels"],
                class_names=tuple(data["class_names"]),
                anchors=None
                if anchors is None
                else Anchors(tuple((float(w), float(h)) for w, h in anchors["sizes_wh"]), anchors["unit"]),
                thresholds=Thresholds(**data["thresholds"]),
            )
        except (KeyError, TypeError) as error:
            msg = f"detector description is incomplete or malformed: {error}"
            raise ValueError(msg) from error


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Where a finished model came from.

    Attributes:
        name: file name without its folder.
        sha256: hex digest of the file's bytes.
        format: ``"tflite"``, ``"h5"`` or ``"keras"``.
    """

    name: str
    sha256: str
    format: str


@dataclass(frozen=True, slots=True)
class TensorTwin:
    """The ONNX value that carries a source tensor.

    Attributes:
        onnx: name of the value (integer codes where the tensor is quantised).
        layout: ``"same"``, or the permutation that was applied, such as ``"NHWC->NCHW"``.
        zero_point_shift: what was added to codes and zero-point: 128 where int8 became uint8, else 0.
    """

    onnx: str
    layout: str
    zero_point_shift: int


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """The JSON document in a finished model's metadata; the same model gives the same bytes.

    Attributes:
        spec: the detector.
        source: the file it was converted from.
        quantization: summary for people, such as ``"int8 per-channel"`` or ``"float32"``.
        activations: dtype of the activation codes in the graph: ``"uint8"``, ``"int8"`` or ``"float32"``.
        leaky_relu: ``"litert"`` (XNNPACK's integer table) or ``"float"``.
        target: ``"portable"`` or ``"cpu"``.
        freeze_thresholds: whether the thresholds are constants instead of optional inputs.
        passes: names of the passes that changed the graph, in order.
        notes: deviations worth knowing, one sentence each.
        tensors: source tensor name -> its ONNX twin.
        contract: version of the contract.
    """

    spec: DetectorSpec
    source: SourceInfo
    quantization: str
    activations: str
    leaky_relu: str
    target: str
    freeze_thresholds: bool
    passes: tuple[str, ...]
    notes: tuple[str, ...]
    tensors: dict[str, TensorTwin]
    contract: int = CONTRACT_VERSION

    def to_json(self) -> str:
        """The document as JSON text with sorted keys and no spaces."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelDocument:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: no JSON, another contract version, or a malformed document.
        """
        try:
            data = json.loads(text)
            _require_version(data["contract"])
            return cls(
                **{
                    **data,
                    "spec": DetectorSpec.from_dict(data["spec"]),
                    "source": SourceInfo(**data["source"]),
                    "passes": tuple(data["passes"]),
                    "notes": tuple(data["notes"]),
                    "tensors": {name: TensorTwin(**twin) for name, twin in data["tensors"].items()},
                }
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"the xdet document is malformed: {error}"
            raise ValueError(msg) from error


def _require_version(version: object) -> None:
    if version != CONTRACT_VERSION:
        msg = f"contract version {version!r} is not {CONTRACT_VERSION}, the one this xdet reads"
        raise ValueError(msg)
