"""What a detector is, apart from its weights: input picture, head, classes, thresholds.

Where a photograph stands in the picture: ``"letterbox"`` is Ultralytics' rule. The photograph is scaled by ``min(H / h,
W / w)``, both sides rounded, and stands in the middle of bars of grey ``PADDING``; of an odd number of bar pixels the
right and the lower bar get one more. Every other rule stretches it over the whole picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from converters import require
from converters.errors import counted
from converters.heads import head_from_dict
from converters.heads.base import Head, RawOutput
from converters.heads.nms import MAX_CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ResizeRule = Literal["nearest", "bilinear", "bilinear-antialias", "letterbox"]
Color = Literal["rgb", "bgr", "grey"]
PADDING = 114  # every channel of a letterbox's bars
Assumed = Literal["class_names", "resize"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rescaling:
    """What the network sees of a pixel p in 0..255: ``p * scale + offset``."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        require.number(self.offset, "rescaling offset")
        if require.number(self.scale, "rescaling scale") <= 0:
            raise ValueError(f"rescaling scale must be above 0, got {self.scale!r}")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The picture a network takes: uint8 pixels, NHWC, at exactly this size."""

    height: int  # rows in pixels
    width: int  # columns in pixels
    rescaling: Rescaling  # pixel to real number, done inside the graph
    # how a photograph gets this size: stretched, or with bars beside it (``"letterbox"``)
    resize: ResizeRule = "nearest"
    color: Color = "rgb"  # what the channels are: ``"rgb"``, ``"bgr"``, or one alone, ``"grey"``
    # the finished graph takes RGB photographs of any size and makes this picture itself; its boxes are fractions of the
    # photograph
    any_size: bool = False

    def __post_init__(self) -> None:
        require.count(self.height, "image height")
        require.count(self.width, "image width")
        require.instance(self.rescaling, Rescaling, "image rescaling")
        require.choice(self.resize, ResizeRule, "resize")
        require.choice(self.color, Color, "color")
        require.flag(self.any_size, "any_size")

    @property
    def channels(self) -> int:
        """Numbers of a pixel: 1 for grey, else 3."""
        return 1 if self.color == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of the network's picture."""
        return self.height, self.width, self.channels

    def as_fed(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pictures of the network as the finished graph takes them, with the same result.

        Args:
            pictures: uint8 ``(..., height, width, channels)``.

        Returns:
            The pictures themselves; for ``any_size`` RGB photographs of the network's size, of which every resize rule
            makes the picture.
        """
        if not self.any_size or self.color == "rgb":
            return pictures
        return pictures[..., ::-1] if self.color == "bgr" else pictures.repeat(3, axis=-1)

    def placement(self, size_wh: tuple[int, int]) -> Placement:
        """Where a photograph of this size stands in the picture whose fractions the finished graph's boxes are."""
        if self.resize != "letterbox" or self.any_size:
            return Placement(0, 0, self.width, self.height, (self.width, self.height))
        scale = min(self.height / size_wh[1], self.width / size_wh[0])
        width, height = (max(1, round(side * scale)) for side in size_wh)
        left, top = round((self.width - width) / 2 - 0.1), round((self.height - height) / 2 - 0.1)
        return Placement(left, top, width, height, (self.width, self.height))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a photograph stands in the network's picture, in its pixels."""

    left: int  # columns before the photograph
    top: int  # rows above it
    width: int  # columns of the photograph there
    height: int  # rows
    network_wh: tuple[int, int]  # width and height of the whole picture

    def to_photograph(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fractions of the network's picture as fractions of the photograph, the inverse of how pixels got there.

        Args:
            points: float32 ``(..., 2 n)``, x and y in turn: boxes, or key points.

        Returns:
            float32 of the same shape, cut to 0..1; ``points`` themselves where the photograph fills the picture.
        """
        if (self.width, self.height) == self.network_wh:
            return points
        turns = points.shape[-1] // 2
        whole, start, size = (
            np.tile(np.array(pair, np.float64), turns)
            for pair in (self.network_wh, (self.left, self.top), (self.width, self.height))
        )
        return np.clip((points * whole - start) / size, 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a candidate counts, when a neighbour suppresses it, and how many are kept.

    A candidate needs score > ``score``; it falls when its IoU with a better one that suppresses it is > ``iou``; at
    most ``max_detections`` remain per image.
    """

    score: float = 0.5
    iou: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        require.fraction(self.score, "score threshold")
        require.fraction(self.iou, "iou threshold")
        require.count(self.max_detections, "max_detections", high=MAX_CANDIDATES)


@dataclass(frozen=True, slots=True)
class Suppression:
    """Which boxes suppress which; the defaults are those of detectors without a post-processing of their maker's."""

    # a box counts with its best class alone (the lowest of equal ones), and falls to better boxes of any
    across_classes: bool = False
    # boxes overlap as the head decodes them, beyond the picture too, and are clipped behind suppression
    unclipped: bool = False
    class_first: bool = False  # rows of equal score are in the order of (class, box), not of (box, class)
    per_class: int | None = None  # at most so many boxes of each class stay; None for no limit but ``max_detections``
    # rows of a box that stays, one for each of its best classes whose score counts; above 1 across classes alone. So
    # many boxes stay as fill ``max_detections`` rows.
    classes_per_box: int = 1

    def __post_init__(self) -> None:
        require.fields(self, require.flag, "across_classes", "unclipped", "class_first")
        require.fields(self, require.count, "per_class", optional=True)
        if self.across_classes and (self.per_class is not None or self.class_first):
            raise ValueError("per_class and class_first are about classes that are suppressed one by one")
        if require.count(self.classes_per_box, "classes_per_box") > 1 and not self.across_classes:
            raise ValueError("classes_per_box is about boxes that suppress each other across classes")

    def max_boxes(self, rows: int) -> int:
        """How many boxes stay at most, to fill so many rows."""
        return -(-rows // self.classes_per_box)


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Everything that turns pixels into boxes, except the network."""

    image: ImageInput  # the input picture
    # what turns the network's raw outputs into boxes; None where nobody knows, which ``--head none`` allows
    head: Head | None
    class_names: tuple[str, ...] = ()  # one name per class; may be empty where the graph ends at the raw outputs
    thresholds: Thresholds = field(default_factory=Thresholds)  # the defaults written into the graph
    # what a graph that ends at its raw outputs (``--head none``) gives; empty where it ends in boxes
    raw_outputs: tuple[RawOutput, ...] = ()
    # ``"class_names"``, ``"resize"``: nobody states them, so a default stands there. Equality leaves it out.
    assumed: tuple[str, ...] = field(default=(), compare=False)
    suppression: Suppression = field(default_factory=Suppression)  # which boxes suppress which

    def __post_init__(self) -> None:
        require.instance(self.image, ImageInput, "image")
        require.instance(self.head, (Head, type(None)), "head")
        require.texts(self.class_names, "class_names")
        require.instance(self.thresholds, Thresholds, "thresholds")
        require.instance(self.suppression, Suppression, "suppression")
        for name in require.texts(self.assumed, "assumed"):
            require.choice(name, Assumed, "assumed")
        for output in require.entries(self.raw_outputs, "raw_outputs"):
            require.instance(output, RawOutput, "each raw output")
        names = [output.name for output in self.raw_outputs]
        if len(set(names)) < len(names) or ("" in names and len(names) > 1):
            raise ValueError(f"raw outputs need names that differ, got {names}")
        if self.head is None:
            if not self.raw_outputs:
                raise ValueError("a detector without a head needs raw_outputs")
            return
        if self.raw_outputs and self.raw_outputs != self.head.raw_outputs():
            raise ValueError(f"raw_outputs are {self.raw_outputs}, the head needs {self.head.raw_outputs()}")
        classes = counted(self.head.num_classes, "class", "classes")
        if len(self.class_names) != self.head.num_classes and (self.class_names or self.gives_boxes):
            raise ValueError(f"the head has {classes}, got class names {self.class_names}")
        if self.suppression.classes_per_box > self.head.num_classes:
            raise ValueError(f"classes_per_box is {self.suppression.classes_per_box}, the head has {classes}")

    @property
    def gives_boxes(self) -> bool:
        """Whether the finished graph ends in boxes; with ``--head none`` it ends at the raw outputs."""
        return not self.raw_outputs

    @property
    def network_outputs(self) -> tuple[RawOutput, ...]:
        """The raw outputs, whether or not the graph ends there."""
        return self.raw_outputs or (() if self.head is None else self.head.raw_outputs())

    @property
    def num_boxes(self) -> int:
        """Boxes that the head proposes per image; 0 where it is not known."""
        return 0 if self.head is None else self.head.num_boxes

    @property
    def num_classes(self) -> int:
        """Classes that the head scores; 0 where it is not known."""
        return 0 if self.head is None else self.head.num_classes

    @property
    def competing_classes(self) -> int:
        """Classes that are suppressed one by one: 1 where boxes suppress each other across classes."""
        return 1 if self.suppression.across_classes else self.num_classes

    @property
    def num_candidates(self) -> int:
        """(box, class) pairs that enter suppression: ``min(boxes * competing classes, 4096)``, best scores first."""
        return min(self.num_boxes * self.competing_classes, MAX_CANDIDATES)

    def ending_raw(self) -> DetectorSpec:
        """The same detector in a graph that ends at its raw outputs."""
        return replace(self, raw_outputs=self.network_outputs)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """One sentence for each member of ``assumed``: the default, and where to state the fact."""
        names = self.class_names[:1] + ("...",) * (len(self.class_names) > 2) + self.class_names[1:][-1:]
        sentences = {
            "class_names": f"class names {', '.join(names)} are assumed, since nobody states them; open or convert the "
            "source with --class-names, or write them into its sidecar with xdet describe",
            "resize": f"resize {self.image.resize} is assumed, since nobody states how photographs were stretched in "
            "training; open or convert the source with --resize or --config, or write it into its sidecar with xdet "
            "describe",
        }
        return tuple(sentences[name] for name in self.assumed)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; ``assumed`` and ``suppression`` stand there if they say anything."""
        data = {**asdict(self), "head": None if self.head is None else self.head.to_dict()}
        if not self.assumed:
            del data["assumed"]
        if self.image.color == "rgb":
            del data["image"]["color"]
        if not self.image.any_size:
            del data["image"]["any_size"]
        if self.suppression.classes_per_box == 1:
            del data["suppression"]["classes_per_box"]
        if self.suppression == Suppression():
            del data["suppression"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectorSpec:
        """Read what ``to_dict`` wrote; keys that this version does not know are left alone.

        Raises:
            ValueError: a key is missing, or its value is of another type or out of range.
        """
        try:
            image = {"color": "rgb", "any_size": False, **data["image"]}
            head = data["head"]
            raw_outputs = require.entries(data["raw_outputs"], "raw_outputs")
            rule = {"classes_per_box": 1, **data.get("suppression", asdict(Suppression()))}
            return cls(
                image=_record(ImageInput, {**image, "rescaling": _record(Rescaling, image["rescaling"])}),
                head=None if head is None else head_from_dict(head),
                class_names=require.texts(data["class_names"], "class_names"),
                thresholds=_record(Thresholds, data["thresholds"]),
                raw_outputs=tuple(RawOutput.from_dict(output) for output in raw_outputs),
                assumed=require.texts(data.get("assumed", ()), "assumed"),
                suppression=_record(Suppression, rule),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"detector description is incomplete or malformed: {error}") from error

    @classmethod
    def from_contract_1(cls, data: Mapping[str, Any]) -> DetectorSpec:
        """Read a description of contract 1: a YOLO v2 head whose grid, channels and anchors lie flat beside its kind.

        Raises:
            ValueError: as ``from_dict``.
        """
        try:
            kind, anchors = data["head"], data["anchors"]
            grid = tuple(require.count(data[name], name) for name in ("grid_h", "grid_w", "head_channels"))
            sizes = [] if anchors is None else require.entries(anchors["sizes_wh"], "anchors")
            names = len(data["class_names"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"detector description is incomplete or malformed: {error}") from error
        if kind not in ("yolo_v2", "none"):
            raise ValueError(f"head must be one of yolo_v2, none, got {kind!r}")
        if anchors is None and kind == "yolo_v2":
            raise ValueError("a yolo_v2 head needs anchors and class names")
        head, classes = None, grid[2] // max(1, len(sizes)) - 5
        fits = classes > 0 and len(sizes) * (5 + classes) == grid[2] and names in (0, classes)
        if anchors is not None and (fits or kind == "yolo_v2"):
            head = {"kind": "yolo_v2", "grid_h": grid[0], "grid_w": grid[1], "anchors": anchors, "num_classes": classes}
        raw = [{"name": "", "shape": grid}] if kind == "none" else []
        spec = cls.from_dict({**data, "head": head, "raw_outputs": raw})
        if spec.network_outputs[0].shape != grid:
            raise ValueError(f"anchors and classes make {spec.network_outputs[0].shape}, the head has {grid}")
        return spec


def _record(cls: type[T], data: Mapping[str, Any]) -> T:
    """An object from the keys of its fields; raises KeyError where one is missing."""
    return cls(**{f.name: data[f.name] for f in fields(cls)})  # type: ignore[arg-type]  # a dataclass
