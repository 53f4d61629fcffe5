"""What a source file itself tells about its detector: picture size, outputs, input encoding. Every importer fills it in."""

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
    """One output of a source.

    Attributes:
        name: its name in the file.
        shape: without the batch.
        activations: operators and layers that activate its numbers, such as ``"LOGISTIC"``; none where it is raw.
        largest: the largest number that its codes can hold; None where it is not quantised.
        smallest: the smallest, likewise.
        from_picture: whether a product of the picture reaches it; priors are an output that none reaches. None: not
            known.
        reach: the largest constant by which its numbers were multiplied last, as decoded boxes are by strides; None for
            none.
    """

    name: str
    shape: tuple[int, ...]
    activations: tuple[str, ...] = ()
    largest: float | None = None
    smallest: float | None = None
    from_picture: bool | None = None
    reach: float | None = None


@dataclass(frozen=True, slots=True)
class PostProcess:
    """What a source's own post-processing of an SSD head does, of which only the network is converted.

    Attributes:
        num_classes: without a background.
        scales: divisors of the offsets: y, x, h, w.
        priors: one per box: centre y and x, h, w, as fractions of the picture.
        score_threshold: a candidate needs a score of it or above.
        iou_threshold: a box falls when its overlap with a better one is above it.
        max_detections: boxes that stay at most; rows where each has one.
        across_classes: a box falls to better boxes of any class, and counts with its best.
        per_class: at most so many boxes of each class stay.
        classes_per_box: rows of a box that stays, where suppression is across classes.
    """

    num_classes: int
    scales: tuple[float, float, float, float]
    priors: tuple[tuple[float, float, float, float], ...]
    score_threshold: float
    iou_threshold: float
    max_detections: int
    across_classes: bool
    per_class: int
    classes_per_box: int = 1

    @property
    def rows(self) -> int:
        """Rows of all boxes."""
        return self.max_detections * self.classes_per_box


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What a model file says in words, beside its tensors; None = not said.

    Attributes:
        where: what messages call the place, such as ``"'metadata.json' in the ZIP of 'm.tflite'"``.
        class_names: one name per class.
        size_hw: rows and columns of the picture.
        stride: pixels of the picture per cell of the coarsest grid.
        rescaling: pixel to real number.
        resize: how photographs get the network's size.
        color: what the channels of the picture are.
        notes: what is there and cannot be used, one sentence each.
        task: what the network is for, where that is no detection of boxes, such as ``"pose"``.
    """

    where: str
    class_names: tuple[str, ...] | None = None
    size_hw: tuple[int, int] | None = None
    stride: int | None = None
    rescaling: Rescaling | None = None
    resize: ResizeRule | None = None
    color: Color | None = None
    notes: tuple[str, ...] = ()
    task: str | None = None


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The facts of one source file.

    Attributes:
        file: the file as messages name it.
        height: rows of the input picture.
        width: columns of the input picture.
        outputs: what the network gives, in the file's order.
        input_dtype: numpy name of the input's dtype, such as ``"uint8"``.
        input_quant: the input's quantisation, None where it has none.
        channels: of the input picture: 3, or 1 for grey.
        postprocess: what stands behind the outputs and turns them into detections; None for nothing.
        metadata: what the file says in words, the most trusted first.
        priors: rows of four numbers of an output that is a constant, and none of ``outputs``; None for nothing.
    """

    file: str
    height: int
    width: int
    outputs: tuple[SourceOutput, ...]
    input_dtype: str
    input_quant: QuantParams | None
    channels: int = 3
    postprocess: PostProcess | None = None
    metadata: tuple[FileMetadata, ...] = ()
    priors: tuple[tuple[float, ...], ...] | None = None

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
    left, found = list(range(len(shapes))), []
    for output in wanted:
        fits = [i for i in left if shapes[i] == output.shape]
        fits += [i for i in left if math.prod(shapes[i]) == output.size]
        if not fits:
            break
        found.append(fits[0])
        left.remove(fits[0])
    if left or len(found) < len(wanted):
        listed = ", ".join(f"{output.value_name} {list(output.shape)}" for output in wanted)
        raise ValueError(f"expected the outputs {listed}, found {', '.join(str(list(s)) for s in shapes)}")
    return tuple(found)
