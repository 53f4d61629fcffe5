"""What a source file itself says of its detector: facts that importers fill in, and words read as data, within bounds.

Two makers' forms are known. Ultralytics writes ``names``, ``imgsz``, ``stride`` and ``task``: as texts into an ONNX
file's ``metadata_props``, or as ``metadata.json``, ``metadata.yaml`` or a Python dictionary in a text file into a ZIP
behind a .tflite. Its detectors take letterboxed RGB photographs as p / 255. TensorFlow Lite's metadata name label files
in such a ZIP (``converters.sources.tflite.reader``).

Nothing here is evaluated: literals are read by ``ast.literal_eval`` up to a length and a depth, YAML as a sidecar's is,
and of a ZIP only stored or deflated members of a small directory up to ``MAX_BYTES`` each. What is damaged is left out
with a note: a network converts without its words.
"""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.description.config import load_mapping
from converters.description.values import MAX_BYTES, check_class_names
from converters.errors import SourceFileError
from converters.heads.base import RawOutput
from converters.spec import Rescaling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.quant import QuantParams
    from converters.spec import Color, ResizeRule


CHANNELS = (3, 1)  # of a picture: colours, or grey
IMAGE_SHAPE = "one image [N, height, width, 3], or 1 for grey"

MAX_LITERAL = 1 << 18  # characters
MAX_NESTING = 4
MAX_MEMBERS = 64
MAX_DIRECTORY = 1 << 14  # bytes
ULTRALYTICS = ("names", "stride")  # both: nobody else writes them
_END, _END64 = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _LONGEST_COMMENT = 22, 1 << 16
_PLAIN = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, RuntimeError, LookupError, EOFError)
_TEXT = re.compile(r".*\.(json|ya?ml|txt|names)", re.IGNORECASE)
_LABELS = re.compile(r"(.*[^a-z])?label(s|map|_?map)?\.txt", re.IGNORECASE)


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


def read_metadata_props(props: Mapping[str, str], where: str) -> FileMetadata | None:
    """The facts in an ONNX file's ``metadata_props``; None where Ultralytics did not write them."""
    if any(key not in props for key in ULTRALYTICS):
        return None
    try:
        return _from_ultralytics({key: read_literal(text) for key, text in props.items()}, where)
    except ValueError as error:
        return FileMetadata(where, notes=(f"{where} cannot be read and is left out: {error}",))


def read_archive(texts: Mapping[str, str], file: str) -> FileMetadata | None:
    """The facts in the texts of a ZIP behind a model: Ultralytics' metadata, else a lone list of labels, else None."""
    for name, text in texts.items():
        where = f"'{name}' in the ZIP of '{file}'"
        try:
            data = _mapping(name, text)
            if data is not None and all(key in data for key in ULTRALYTICS):
                return _from_ultralytics(data, where)
        except (ValueError, SourceFileError) as error:
            return FileMetadata(where, notes=(f"{where} cannot be read and is left out: {error}",))
    labels = [name for name in texts if _LABELS.fullmatch(name)]
    return read_labels(texts, labels[0], file) if len(labels) == 1 else None


def read_labels(texts: Mapping[str, str], name: str, file: str) -> FileMetadata:
    """A list of labels in the ZIP behind a model, one per line."""
    where = f"'{name}' in the ZIP of '{file}'"
    if name not in texts:
        return FileMetadata(where, notes=(f"the metadata of '{file}' name the labels '{name}', which its ZIP lacks",))
    try:
        return FileMetadata(where, check_class_names([line.strip() for line in texts[name].rstrip().splitlines()]))
    except ValueError as error:
        return FileMetadata(where, notes=(f"{where} is left out: {error}",))


def archive_texts(data: bytes, file: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The small text files in a ZIP behind a model's bytes, by name, and notes on what could not be read."""
    end = data.rfind(_END, max(0, len(data) - _END_SIZE - _LONGEST_COMMENT))
    if end < 0 or end + _END_SIZE > len(data):
        return {}, ()
    if (
        data[max(0, end - 20) :].startswith(_END64)
        or int.from_bytes(data[end + 12 : end + 16], "little") > MAX_DIRECTORY
    ):
        return {}, (f"the ZIP behind '{file}' has a directory of another size than metadata have, and is left out",)
    texts: dict[str, str] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist()[:MAX_MEMBERS]:
                if info.compress_type not in _PLAIN or not _TEXT.fullmatch(info.filename):
                    continue
                with archive.open(info) as member:
                    content = member.read(MAX_BYTES + 1)
                if len(content) <= MAX_BYTES:
                    texts[info.filename] = content.decode("utf-8-sig")
    except _BROKEN_ZIP as error:
        return texts, (f"the ZIP behind '{file}' cannot be read and is left out: {str(error) or type(error).__name__}",)
    return texts, ()


def read_literal(text: str) -> object:
    """A Python literal, such as ``"{0: 'person'}"``, without evaluating anything; any other text is itself."""
    if not re.match(r"\s*[\[({0-9'\"-]", text):
        return text
    if len(text) > MAX_LITERAL:
        raise ValueError(f"a text of {len(text)} characters, expected at most {MAX_LITERAL}")
    if _nesting(text) > MAX_NESTING:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep")
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value


def _nesting(text: str) -> int:
    """The deepest nesting of brackets, and of signs in a row; brackets inside quotes count, too: it is a bound."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[({") - (character in "])}")
        deepest = max(deepest, depth)
    signs = max((len(run) for run in re.findall(r"[-+~\s]{2,}", text)), default=0)
    return max(deepest, signs // 8)


def _mapping(name: str, text: str) -> Mapping[str, object] | None:
    """The mapping that a text holds, None where it is none: a list of labels, say."""
    if name.lower().endswith(".json"):
        try:
            data = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    elif name.lower().endswith((".yaml", ".yml")):
        data = load_mapping(text, name)
    else:
        data = read_literal(text) if text.lstrip().startswith("{") else None
    return data if isinstance(data, dict) else None


def _from_ultralytics(data: Mapping[str, object], where: str) -> FileMetadata:
    """Raises ValueError where a key holds something else than Ultralytics writes."""
    task, stride = data.get("task", "detect"), data.get("stride")
    other = None if task == "detect" else f"{task!s:.40}"
    notes = () if other is None else (f"{where} says that the network's task is {other!r}, not detect",)
    size = data.get("imgsz")
    return FileMetadata(
        where,
        class_names=_names(data["names"]),
        size_hw=None if size is None else _size(size),
        stride=stride if type(stride) is int and 0 < stride <= 1024 else None,
        rescaling=Rescaling(1 / 255, 0.0),
        resize="letterbox",
        notes=notes,
        task=other,
    )


def _names(value: object) -> tuple[str, ...]:
    """``{0: "person", 1: "car"}`` (JSON has its numbers as texts) or a list."""
    if not isinstance(value, dict):
        return check_class_names(value)
    numbered = {int(key): name for key, name in value.items() if re.fullmatch(r"[0-9]{1,6}", str(key))}
    if sorted(numbered) != list(range(len(value))):
        raise ValueError(f"names: expected numbers from 0 on, found {list(value)[:5]!r}")
    return check_class_names([numbered[number] for number in range(len(numbered))])


def _size(value: object) -> tuple[int, int]:
    """Rows and columns from ``[640, 480]`` or 640."""
    sides = [value, value] if type(value) is int else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise ValueError(f"imgsz: expected height and width, found {value!r:.60}")
    return int(sides[0]), int(sides[1])
