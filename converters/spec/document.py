"""The JSON document in a finished model's metadata: what it is, where it came from, what was changed on the way.

Readers ignore keys they do not know (later releases of contract 2 may add some) and find optional keys absent.
Every field is checked when a document is made, so that one read from a stranger's file is sound or refused.

``DIALECTS`` says which numbers a finished network computes on, how to ask for them, and which runtimes want them. There
is no option per runtime (``--target npu``): vendors change what they take with every release, numbers stay what they
are. ``docs/runtimes.md`` shows this table, ``xdet inspect`` the row of a file, and a test holds both together.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from converters import require
from converters.spec.contract import CONTRACT_VERSION
from converters.spec.detector import DetectorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ActivationCodes = Literal["uint8", "int8", "float32"]
LeakyRelu = Literal["litert", "float"]
Arithmetic = Literal["litert", "fused"]
Target = Literal["portable", "cpu"]
Fate = Literal["kept", "replicated", "removed"]
DeviationKind = Literal["scale", "zero_point", "slope", "table"]
OPTIONAL = ("evaluation", "golden", "licence", "origin")  # left out of the JSON where nobody states them
FLAGS = ("dequantize", "float16", "symmetric")  # left out where they are not set
BY_TF2ONNX = "translated by tf2onnx"  # begins the note of such a conversion
INT8_ENTRY = "session.qdqisint8allowed"  # lets ONNX Runtime multiply int8 codes as such on processors other than Arm's
IN_FLOAT = "int8 codes with several readers: "  # begins the note of products that need INT8_ENTRY to be exact
SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Where a finished model came from."""

    name: str  # file name without its folder
    sha256: str  # hex digest of the file's bytes
    format: str  # a row of ``converters.sources.SOURCES``, such as ``"tflite"``

    def __post_init__(self) -> None:
        require.fields(self, require.text, "name", "sha256", "format", of="source")


@dataclass(frozen=True, slots=True)
class TensorTwin:
    """The ONNX value that carries a source tensor."""

    onnx: str | None  # name of the value (integer codes where the tensor is quantised); None where a pass removed it
    layout: str  # ``"same"``, or the permutation that was applied, such as ``"NHWC->NCHW"``
    # what was added to codes and zero-point: 128 where int8 became uint8, a negative number where uint8 weights became
    # int8, else 0
    zero_point_shift: int
    # ``"kept"``; ``"replicated"``: the value holds copies of the tensor, arranged by the pass ``by``, which tells how;
    # ``"removed"``: the pass ``by`` made the tensor disappear, nothing computes it any more
    fate: Fate = "kept"
    by: str | None = None  # title of the pass behind ``fate``, None for ``"kept"``

    def __post_init__(self) -> None:
        require.text(self.layout, "twin layout")
        require.count(self.zero_point_shift, "twin zero_point_shift", low=-255, high=255)
        require.choice(self.fate, Fate, "twin fate")
        if (self.fate == "removed") != (self.onnx is None):
            raise ValueError(f"a {self.fate} twin cannot have the ONNX name {self.onnx!r}")
        if self.onnx is not None:
            require.text(self.onnx, "twin ONNX name")
        if (self.fate == "kept") != (self.by is None):
            raise ValueError(f"a {self.fate} twin cannot be the work of pass {self.by!r}")
        require.fields(self, require.text, "by", of="twin", optional=True)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A number in the graph that is not the source's: written so that results round as the source's kernels do."""

    tensor: str  # the source tensor to which the number belongs (for a slope or table, the operator's output)
    operator: str  # the output tensor of the operator in whose translation the number stands
    # ``"scale"`` or ``"zero_point"`` (in the graph's codes) of a Q or DQ node, ``"slope"`` of a LeakyRelu (which stands
    # for a requantisation, too, with the source's slope 1), ``"table"``: a table of codes, or integer arithmetic,
    # instead of the operator
    kind: DeviationKind
    source: float | None  # the source's number, None for a table
    written: float | None  # the graph's number, None for a table

    def __post_init__(self) -> None:
        require.fields(self, require.text, "tensor", "operator", of="deviation")
        require.choice(self.kind, DeviationKind, "deviation kind")
        require.fields(self, require.number, "source", "written", of="deviation", optional=True)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """With what a training run evaluates its detector; never the defaults of a finished model. None = not stated."""

    score_threshold: float | None = None  # a box counts above it, 0..1
    nms_iou_threshold: float | None = None  # IoU above which boxes suppress each other, 0..1
    evaluation_iou: float | None = None  # IoU from which a box counts as found, 0..1
    max_detections: int | None = None  # boxes per image

    def __post_init__(self) -> None:
        fractions = ("score_threshold", "nms_iou_threshold", "evaluation_iou")
        require.fields(self, require.fraction, *fractions, optional=True)
        require.fields(self, require.count, "max_detections", optional=True)


def _require_quantisation(part: GoldenPart | GoldenVector) -> None:
    if require.number(part.scale, "golden scale") <= 0:
        raise ValueError(f"golden scale must be above 0, got {part.scale!r}")
    require.count(part.zero_point, "golden zero_point", low=0, high=255)


@dataclass(frozen=True, slots=True)
class GoldenPart:
    """Where the next of several raw outputs begins, and how its codes are read."""

    start: int  # its first value in the head, which holds the raw outputs flattened side by side
    scale: float  # float32 scale; ``real = scale * (code - zero_point)``
    zero_point: int  # in uint8 form

    def __post_init__(self) -> None:
        require.count(self.start, "golden start")
        _require_quantisation(self)


@dataclass(frozen=True, slots=True)
class GoldenVector:
    """The head's codes for a picture made from a seed, as exact integer kernels give them."""

    generator: int  # version of the recipe that makes the picture
    seed: int  # what the recipe starts from
    codes: str  # base64 of uint8 codes: every ``stride``-th of the head flattened as row, column, channel
    stride: int  # 1 where every code is stored; more where the whole would take over 2 % of the file
    sha256: str  # hex digest of all codes, stored or not
    scale: float  # float32 scale of the head, or of its first raw output; ``real = scale * (code - zero_point)``
    zero_point: int  # its zero-point in uint8 form
    # how far, in codes, a runtime with exact integer kernels may be: 0 unless the model has operators whose last
    # float32 bit is each runtime's own
    bound_lsb: int
    # how far a runtime may be whose kernels round in another way, as LiteRT's own do among each other
    other_kernels_lsb: int
    further: tuple[GoldenPart, ...] = ()  # the second and further raw outputs, where there are several

    def __post_init__(self) -> None:
        require.fields(self, require.count, "generator", "stride", of="golden")
        require.fields(self, partial(require.count, low=0), "seed", "bound_lsb", "other_kernels_lsb", of="golden")
        require.text(self.codes, "golden codes")
        if not SHA256.fullmatch(require.text(self.sha256, "golden sha256")):
            raise ValueError(f"golden sha256 must be 64 hex digits, got {self.sha256!r}")
        _require_quantisation(self)
        for part in self.further:
            require.instance(part, GoldenPart, "further golden output")
        starts = [part.start for part in self.further]
        if starts != sorted(set(starts)):
            raise ValueError(f"further golden outputs must begin one behind the other, got {starts}")


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """The document itself; the same model gives the same text."""

    spec: DetectorSpec  # the detector
    source: SourceInfo  # the file it was converted from
    quantization: str  # summary for people, such as ``"int8 per-channel"`` or ``"float32"``
    activations: ActivationCodes  # dtype of the activation codes in the graph: ``"uint8"``, ``"int8"`` or ``"float32"``
    leaky_relu: LeakyRelu  # ``"litert"`` (ties and tables of LiteRT's kernels) or ``"float"`` (the real functions)
    target: Target  # ``"portable"`` or ``"cpu"``
    freeze_thresholds: bool  # whether the thresholds are constants instead of optional inputs
    passes: tuple[str, ...]  # titles of the passes that changed the graph, in order
    notes: tuple[str, ...]  # deviations worth knowing, one sentence each
    tensors: Mapping[str, TensorTwin]  # source tensor name -> its ONNX twin
    # every number that was translated into another than the source's, before any of ``passes``
    deviations: tuple[Deviation, ...] = ()
    # the training yaml's evaluation settings, None where no yaml states any
    evaluation: EvaluationSettings | None = None
    licence: str | None = None  # the source's licence in its sidecar's words, None where nobody states one
    origin: str | None = None  # where the source comes from in its sidecar's words, None likewise
    # what was written where no fused operator has LiteRT's codes: ``"litert"`` (integer arithmetic step by step) or
    # ``"fused"`` (the fused operator, at most 1 LSB away)
    arithmetic: Arithmetic = "litert"
    # whether this is the float network of a quantised source: its weights, and activations that nothing rounds
    dequantize: bool = False
    float16: bool = False  # whether the network between picture and head computes on float16, where its numbers allow
    symmetric: bool = False  # whether every zero-point is 0, and biases are float32
    # what the head holds for a known picture, for ``xdet selftest``; None where no integers define it
    golden: GoldenVector | None = None
    # runtime -> the oldest release known to load the file, such as ``{"onnxruntime": "1.15"}``
    oldest_runtimes: Mapping[str, str] = field(default_factory=dict)
    contract: int = field(default=CONTRACT_VERSION)  # version of the contract

    def __post_init__(self) -> None:
        require.instance(self.spec, DetectorSpec, "spec")
        require.instance(self.source, SourceInfo, "source")
        require.text(self.quantization, "quantization")
        require.choice(self.activations, ActivationCodes, "activations")
        require.choice(self.leaky_relu, LeakyRelu, "leaky_relu")
        require.choice(self.arithmetic, Arithmetic, "arithmetic")
        require.choice(self.target, Target, "target")
        require.fields(self, require.flag, "freeze_thresholds", *FLAGS)
        require.fields(self, require.texts, "passes", "notes")
        for name, twin in self.tensors.items():
            require.text(name, "each tensor name")
            require.instance(twin, TensorTwin, f"tensors[{name!r}]")
        for deviation in self.deviations:
            require.instance(deviation, Deviation, "each deviation")
        require.instance(self.oldest_runtimes, dict, "oldest_runtimes")
        for runtime, release in self.oldest_runtimes.items():
            require.release(release, f"oldest_runtimes[{require.text(runtime, 'each runtime')!r}]")
        require.instance(self.evaluation, (EvaluationSettings, type(None)), "evaluation")
        require.instance(self.golden, (GoldenVector, type(None)), "golden")
        require.fields(self, require.text, "licence", "origin", optional=True)
        if self.contract != CONTRACT_VERSION:
            raise ValueError(f"contract version {self.contract!r} is not {CONTRACT_VERSION}, the one this xdet writes")

    @property
    def multiplies_in_float(self) -> bool:
        """Whether ONNX Runtime computes products of int8 codes in float32, unless told otherwise (``IN_FLOAT``)."""
        return any(note.startswith(IN_FLOAT) for note in self.notes)

    @property
    def is_taken_over(self) -> bool:
        """Whether tf2onnx translated the source, in its own form: its constants belong to no tensor of the map."""
        return any(note.startswith(BY_TF2ONNX) for note in self.notes)

    def to_json(self) -> str:
        """The document as JSON text with sorted keys and no spaces."""
        data = {**asdict(self), "spec": self.spec.to_dict()}
        for key in [*(key for key in OPTIONAL if data[key] is None), *(key for key in FLAGS if not data[key])]:
            del data[key]
        if self.golden is not None and not self.golden.further:
            del data["golden"]["further"]
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelDocument:
        """Read what ``to_json`` wrote, or what contract 1 wrote: then the document is its equal of contract 2.

        Raises:
            ValueError: no JSON, another contract version, or a malformed document.
        """
        try:
            data = json.loads(text)
            version = data["contract"]
            if type(version) is not int or version not in READERS:
                listed = " and ".join(map(str, READERS))
                raise ValueError(f"contract version {version!r} is none of {listed}, the ones this xdet reads")
            evaluation, golden = data.get("evaluation"), data.get("golden")
            deviations = require.entries(data.get("deviations", ()), "deviations")
            read = {
                "contract": CONTRACT_VERSION,
                "spec": READERS[version](data["spec"]),
                "source": _record(SourceInfo, data["source"]),
                "passes": require.texts(data["passes"], "passes"),
                "notes": require.texts(data["notes"], "notes"),
                "tensors": {name: _record(TensorTwin, twin) for name, twin in data["tensors"].items()},
                "deviations": tuple(_record(Deviation, entry) for entry in deviations),
                "evaluation": None if evaluation is None else _record(EvaluationSettings, evaluation),
            }
            if golden is not None:
                further = require.entries(golden.get("further", []), "further golden outputs")
                parts = tuple(_record(GoldenPart, part) for part in further)
                read["golden"] = _record(GoldenVector, {**golden, "further": parts})
            return _record(cls, {**data, **read})
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"the xdet document is malformed: {error}") from error


def _record(cls: type[T], data: Any) -> T:
    """An object from the keys of ``data`` that its class knows."""
    require.instance(data, dict, cls.__name__)
    return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})  # type: ignore[arg-type]  # a dataclass


READERS: Mapping[int, Callable[[Mapping[str, Any]], DetectorSpec]] = {
    1: DetectorSpec.from_contract_1,
    CONTRACT_VERSION: DetectorSpec.from_dict,
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One row: name, options of ``xdet convert``, what the network computes on, and runtimes that say so.

    A finished model is in the first of all rows that ``applies``.
    """

    name: str
    options: str
    numbers: str
    wanted_by: str
    applies: Callable[[ModelDocument], bool]


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "float16",
        "--float16",
        "float16 from the rescaled pixels to the last product, float32 in front and behind",
        "GPUs, NPUs and browsers that compute on float16",
        lambda document: document.float16,
    ),
    Dialect(
        "dequantised",
        "--dequantize",
        "float32: the source's weights as scale x (code - zero-point), activations that nothing rounds",
        "CoreML, MNN, TensorRT without int8, GPUs: runtimes without Q/DQ, or without zero-points",
        lambda document: document.dequantize,
    ),
    Dialect(
        "float",
        "",
        "float32, as the source's (of a float source)",
        "compilers of float networks",
        lambda document: document.activations == "float32",
    ),
    Dialect(
        "symmetric",
        "--quantize per-channel --symmetric",
        "int8 with every zero-point 0, biases in float32; of a float Keras or ONNX source",
        "TensorRT with int8, NPUs that multiply without zero-points",
        lambda document: document.symmetric,
    ),
    Dialect(
        "cpu",
        "--target cpu",
        "int8 codes, with the same bits as portable",
        "ONNX Runtime 1.24 and newer on its CPU kernels",
        lambda document: document.target == "cpu",
    ),
    Dialect(
        "int8",
        "--activations int8",
        "int8 codes, with the same bits as portable",
        "the XNNPACK and MIGraphX providers",
        lambda document: document.activations == "int8",
    ),
    Dialect(
        "portable",
        "",
        "uint8 codes and int8 weights, as the source's integers (of a quantised source)",
        "ONNX Runtime, OpenVINO, TVM, and compilers that take Q/DQ with zero-points",
        lambda _: True,
    ),
)


def dialect_of(document: ModelDocument) -> Dialect:
    """The row of a finished model."""
    return next(row for row in DIALECTS if row.applies(document))
