"""What a caller can ask of a conversion, besides what ``converters.description.statements`` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from converters import require
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.spec import Arithmetic, LeakyRelu, Target
from converters.spec.contract import IR_VERSIONS, OPSET_RANGE

if TYPE_CHECKING:
    from converters.calibration import Calibration

Activations = Literal["uint8", "int8"]
Rounding = Literal["litert", "real"]
Quantize = Literal["none", "per-channel", "per-tensor"]
ImporterChoice = Literal["native", "tf2onnx"]
CHOICES = {
    "target": Target,
    "activations": Activations,
    "leaky_relu": LeakyRelu,
    "arithmetic": Arithmetic,
    "quantize": Quantize,
    "importer": ImporterChoice,
}


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Choices of one conversion; the names are those of the command line."""

    # what is said about the source model: anchors, classes, thresholds, head
    source: SourceOptions = field(default_factory=SourceOptions)
    batch: int | Literal["dynamic"] = 1  # images per call, or ``"dynamic"``
    # ``"portable"`` graphs suit any compiler, ``"cpu"`` adds rewrites for ONNX Runtime's CPU kernels
    target: Target = "portable"
    activations: Activations = "uint8"  # dtype of the activation codes; the integers and results are the same
    # ``"litert"`` rounds as LiteRT's kernels do, ``"float"`` follows the real functions (at most 1 LSB away per layer):
    # LeakyReLU's table, and where ties fall in sums, products, average pools, means, bilinear resizes and
    # requantisations
    leaky_relu: LeakyRelu = "litert"
    # what is written where no fused operator has LiteRT's codes: ``"litert"`` computes them step by step, ``"fused"``
    # keeps the fused operator (at most 1 LSB away)
    arithmetic: Arithmetic = "litert"
    dequantize: bool = False  # the float network of a quantised source, whose activations are not rounded any more
    float16: bool = False  # float networks compute on float16 between picture and head
    freeze_thresholds: bool = False  # constants instead of optional graph inputs
    any_size: bool = False  # the graph takes photographs of any size and holds the resize rule; one per call
    # granularity of the weights of a float source that is quantised to int8; ``"none"`` leaves it float
    quantize: Quantize = "none"
    symmetric: bool = False  # with ``quantize``: int8 activations with zero-points 0, and biases in float32
    # photographs that tell the ranges of its activations; with ``quantize`` or ``float16``, and only then
    calibration: Calibration | None = None
    opset: int | None = None  # of the finished file, 13 to 22; None is the lowest that the graph needs
    # ``"native"`` reads TFLite files itself, ``"tf2onnx"`` leaves that to tf2onnx; Keras files always take it
    importer: ImporterChoice = "native"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value, choices = getattr(self, name), get_args(allowed)
            if value not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.batch != "dynamic" and not (type(self.batch) is int and 1 <= self.batch <= 1024):
            raise OptionError(f"batch must be 'dynamic' or a whole number from 1 to 1024, got {self.batch!r}")
        if self.any_size and self.batch != 1:
            raise OptionError(
                f"`any_size` takes one photograph per call, since two rarely have one size; leave `batch` "
                f"{self.batch} out"
            )
        if self.opset is not None and (type(self.opset) is not int or self.opset not in IR_VERSIONS):
            raise OptionError(f"opset must be a whole number from {OPSET_RANGE}, got {self.opset!r}")
        try:
            require.instance(self.source, SourceOptions, "source")
            for flag in ("any_size", "dequantize", "float16", "freeze_thresholds", "symmetric"):
                require.flag(getattr(self, flag), flag)
        except ValueError as error:
            raise OptionError(str(error)) from error
        if self.dequantize and self.quantize != "none":
            raise OptionError("`dequantize` makes a float network and `quantize` an int8 one: choose one of them")
        if self.symmetric and self.quantize == "none":
            raise OptionError(
                "`symmetric` chooses how `quantize` makes codes: add `quantize` per-channel `calibration` DIR, and "
                "bring a float Keras or ONNX source; the integers of a quantised file are fixed"
            )
        if self.quantize != "none" and self.calibration is None:
            raise OptionError(f"`quantize` {self.quantize} needs photographs: add `calibration` DIR")
        if self.float16 and self.quantize != "none":
            raise OptionError("`float16` is for float networks and `quantize` makes an int8 one: choose one of them")
        if self.quantize == "none" and self.calibration is not None and not self.float16:
            raise OptionError("`calibration` is for quantising: add `quantize` per-channel, or leave it out")

    @property
    def rounding(self) -> Rounding:
        """What ``leaky_relu`` decides for every operator that has a choice."""
        return "litert" if self.leaky_relu == "litert" else "real"

    @property
    def fixed_batch(self) -> int:
        """Images per call where their number is fixed, else 1."""
        return 1 if self.batch == "dynamic" else self.batch

    @property
    def batch_size(self) -> int | str:
        """Images per call, or the name of the dynamic dimension."""
        return "N" if self.batch == "dynamic" else self.batch
