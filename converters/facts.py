"""What a source file itself says of its detector: picture size, outputs, input encoding. Importers fill it in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.heads.base import RawOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.quant import QuantParams
    from converters.spec import Color, Rescaling, ResizeRule


CHANNELS = (3, 1)  # of a picture: colours, or grey
IMAGE_SHAPE = "one image [N, height, width, 3], or 1 for grey"


@dataclass(frozen=True, slots=True)
class SourceOutput:
    """One output of a source."""

    name: str  # its name in the file
    shape: tuple[int, ...]  # without the batch
    # operators and layers that activate its numbers, such as ``"LOGISTIC"``; none where it is raw
    activations: tuple[str, ...] = ()
    largest: float | None = None  # the largest number that its codes can hold; None where it is not quantised
    smallest: float | None = None  # the smallest, likewise
    # whether a product of the picture reaches it; priors are an output that none reaches. None: not known
    from_picture: bool | None = None
    # the largest constant by which its numbers were multiplied last, as decoded boxes are by strides; None for none
    reach: float | None = None


@dataclass(frozen=True, slots=True)
class PostProcess:
    """What a source's own post-processing of an SSD head does, of which only the network is converted."""

    num_classes: int  # without a background
    scales: tuple[float, float, float, float]  # divisors of the offsets: y, x, h, w
    # one per box: centre y and x, h, w, as fractions of the picture
    priors: tuple[tuple[float, float, float, float], ...]
    score_threshold: float  # a candidate needs a score of it or above
    iou_threshold: float  # a box falls when its overlap with a better one is above it
    max_detections: int  # boxes that stay at most; rows where each has one
    across_classes: bool  # a box falls to better boxes of any class, and counts with its best
    per_class: int  # at most so many boxes of each class stay
    classes_per_box: int = 1  # rows of a box that stays, where suppression is across classes

    @property
    def rows(self) -> int:
        """Rows of all boxes."""
        return self.max_detections * self.classes_per_box


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What a model file says in words, beside its tensors; None = not said."""

    where: str  # what messages call the place, such as ``"'metadata.json' in the ZIP of 'm.tflite'"``
    class_names: tuple[str, ...] | None = None  # one name per class
    size_hw: tuple[int, int] | None = None  # rows and columns of the picture
    stride: int | None = None  # pixels of the picture per cell of the coarsest grid
    rescaling: Rescaling | None = None  # pixel to real number
    resize: ResizeRule | None = None  # how photographs get the network's size
    color: Color | None = None  # what the channels of the picture are
    notes: tuple[str, ...] = ()  # what is there and cannot be used, one sentence each
    task: str | None = None  # what the network is for, where that is no detection of boxes, such as ``"pose"``


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The facts of one source file."""

    file: str  # the file as messages name it
    height: int  # rows of the input picture
    width: int  # columns of the input picture
    outputs: tuple[SourceOutput, ...]  # what the network gives, in the file's order
    input_dtype: str  # numpy name of the input's dtype, such as ``"uint8"``
    input_quant: QuantParams | None  # the input's quantisation, None where it has none
    channels: int = 3  # of the input picture: 3, or 1 for grey
    # what stands behind the outputs and turns them into detections; None for nothing
    postprocess: PostProcess | None = None
    metadata: tuple[FileMetadata, ...] = ()  # what the file says in words, the most trusted first
    # rows of four numbers of an output that is a constant, and none of ``outputs``; None for nothing
    priors: tuple[tuple[float, ...], ...] | None = None

    @property
    def activations(self) -> str:
        """What activates its outputs, such as ``"LOGISTIC and SOFTMAX"``; ``""`` where they are raw."""
        return " and ".join(dict.fromkeys(name for output in self.outputs for name in output.activations))

    def activated(self, *, by_name: bool) -> str | None:
        """Why a decoder of raw numbers that nobody names does not suit them: the network has activated them."""
        if not self.activations or by_name:
            return None
        why = "this head holds raw numbers, so it is another, or would be activated twice"
        return f"{self.activations} in front of its output: {why}"

    def raw_outputs(self) -> tuple[RawOutput, ...]:
        """The outputs as they are, for a graph that ends there; names that differ where there are several."""
        if len(self.outputs) == 1:
            return (RawOutput("", self.outputs[0].shape),)
        names: list[str] = []
        for index, output in enumerate(self.outputs):
            name = re.sub(r"[^0-9A-Za-z]+", "_", output.name).strip("_") or str(index)
            names.append(f"{name}_{index}" if name in names else name)
        return tuple(RawOutput(name, output.shape) for name, output in zip(names, self.outputs, strict=True))


def match_outputs(shapes: Sequence[tuple[int, ...]], wanted: Sequence[RawOutput]) -> tuple[int, ...]:
    """Which of a network's outputs is each raw output of a head.

    Args:
        shapes: of the network's outputs, without the batch.
        wanted: the raw outputs, all of the network's.

    Returns:
        An index into ``shapes`` per raw output. Equal shapes belong together in their order; then shapes that hold as
        many numbers, which a reshape at the network's end moves nowhere.

    Raises:
        ValueError: they do not belong together.
    """
    left, places = list(range(len(shapes))), []
    for output in wanted:
        fits = [i for i in left if shapes[i] == output.shape]
        fits += [i for i in left if math.prod(shapes[i]) == output.size]
        if not fits:
            break
        places.append(fits[0])
        left.remove(fits[0])
    if left or len(places) < len(wanted):
        listed = ", ".join(f"{output.value_name} {list(output.shape)}" for output in wanted)
        raise ValueError(f"expected the outputs {listed}, found {', '.join(str(list(s)) for s in shapes)}")
    return tuple(places)
