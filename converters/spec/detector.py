"""What a detector is, apart from its weights: input encoding, anchors with their unit, classes, thresholds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from converters.spec.checks import (
    require_choice,
    require_count,
    require_entries,
    require_fraction,
    require_instance,
    require_number,
    require_texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CANDIDATES = 4096

HeadKind = Literal["yolo_v2", "none"]
AnchorUnit = Literal["cell", "image"]
ResizeRule = Literal["nearest", "bilinear", "bilinear-antialias"]
Assumed = Literal["class_names", "resize"]


@dataclass(frozen=True, slots=True)
class Rescaling:
    """What the network sees of a pixel p in 0..255: ``p * scale + offset``."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        require_number(self.offset, "rescaling offset")
        if require_number(self.scale, "rescaling scale") <= 0:
            raise ValueError(f"rescaling scale must be above 0, got {self.scale!r}")


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
        require_count(self.height, "image height")
        require_count(self.width, "image width")
        require_instance(self.rescaling, Rescaling, "image rescaling")
        require_choice(self.resize, ResizeRule, "resize")


@dataclass(frozen=True, slots=True)
class Anchors:
    """Prior boxes as (width, height) pairs in grid cells or as fractions of the image; the unit is never guessed."""

    sizes_wh: tuple[tuple[float, float], ...]
    unit: AnchorUnit

    def __post_init__(self) -> None:
        require_choice(self.unit, AnchorUnit, "anchor unit")
        if not require_entries(self.sizes_wh, "anchors"):
            raise ValueError("at least one anchor is needed")
        for size_wh in self.sizes_wh:
            if len(require_entries(size_wh, "each anchor")) != 2:
                raise ValueError(f"each anchor must be a (width, height) pair, got {size_wh!r}")
            if min(require_number(size, "each anchor size") for size in size_wh) <= 0:
                raise ValueError(f"anchors must be finite and above 0, got {tuple(size_wh)}")
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
        require_fraction(self.score, "score threshold")
        require_fraction(self.iou, "iou threshold")
        require_count(self.max_detections, "max_detections", high=MAX_CANDIDATES)


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
        assumed: ``"class_names"``, ``"resize"``: nobody states them, so a default stands there. Equality leaves it out.
    """

    image: ImageInput
    head: HeadKind
    grid_h: int
    grid_w: int
    head_channels: int
    class_names: tuple[str, ...] = ()
    anchors: Anchors | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    assumed: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        require_instance(self.image, ImageInput, "image")
        require_choice(self.head, HeadKind, "head")
        for name in ("grid_h", "grid_w", "head_channels"):
            require_count(getattr(self, name), name)
        require_texts(self.class_names, "class_names")
        require_instance(self.anchors, (Anchors, type(None)), "anchors")
        require_instance(self.thresholds, Thresholds, "thresholds")
        for name in require_texts(self.assumed, "assumed"):
            require_choice(name, Assumed, "assumed")
        if self.head == "yolo_v2":
            self._require_fit()

    def _require_fit(self) -> None:
        """Anchors and classes make the head's channels."""
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

    @property
    def assumptions(self) -> tuple[str, ...]:
        """One sentence for each member of ``assumed``: the default, and where to state the fact."""
        names = self.class_names[:1] + ("...",) * (len(self.class_names) > 2) + self.class_names[1:][-1:]
        sentences = {
            "class_names": f"class names {', '.join(names)} are assumed, since nobody states them; name them in the source's "
            f"sidecar (class_names), or convert it with --classes",
            "resize": f"resize {self.image.resize} is assumed, since nobody states how photographs were stretched in training; "
            f"state it in the source's sidecar (resize), or convert it with --config",
        }
        return tuple(sentences[name] for name in self.assumed)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; ``assumed`` stands there if there is anything in it."""
        data = asdict(self)
        if not self.assumed:
            del data["assumed"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectorSpec:
        """Read what ``to_dict`` wrote; keys that this version does not know are left alone.

        Raises:
            ValueError: a key is missing, or its value is of another type or out of range.
        """
        try:
            image, anchors, thresholds = data["image"], data["anchors"], data["thresholds"]
            return cls(
                image=ImageInput(
                    height=image["height"],
                    width=image["width"],
                    rescaling=Rescaling(image["rescaling"]["scale"], image["rescaling"]["offset"]),
                    resize=image["resize"],
                ),
                head=data["head"],
                grid_h=data["grid_h"],
                grid_w=data["grid_w"],
                head_channels=data["head_channels"],
                class_names=require_texts(data["class_names"], "class_names"),
                anchors=None if anchors is None else _anchors(anchors),
                thresholds=Thresholds(thresholds["score"], thresholds["iou"], thresholds["max_detections"]),
                assumed=require_texts(data.get("assumed", ()), "assumed"),
            )
        except (KeyError, TypeError, IndexError) as error:
            msg = f"detector description is incomplete or malformed: {error}"
            raise ValueError(msg) from error


def _anchors(data: Mapping[str, Any]) -> Anchors:
    sizes = require_entries(data["sizes_wh"], "anchors")
    pairs = [
        [require_number(n, "each anchor size") for n in require_entries(s, "each anchor")] for s in sizes
    ]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"each anchor must be a (width, height) pair, got {sizes!r}")
    return Anchors(tuple((float(w), float(h)) for w, h in pairs), data["unit"])
