"""What a caller can ask of a conversion, besides the description of the source model (``converters.description.settings``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from converters.description.settings import SourceOptions
from converters.errors import OptionError

Target = Literal["portable", "cpu"]
Activations = Literal["uint8", "int8"]
LeakyRelu = Literal["litert", "float"]


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Choices of one conversion; the names are those of the command line.

    Attributes:
        source: what is said about the source model: anchors, classes, thresholds, head.
        batch: images per call, or ``"dynamic"``.
        target: ``"portable"`` graphs suit any compiler, ``"cpu"`` adds rewrites for ONNX Runtime's CPU kernels.
        activations: dtype of the activation codes; the integers and results are the same.
        leaky_relu: ``"litert"`` reproduces XNNPACK's table, ``"float"`` is the real function (at most 1 LSB away).
        freeze_thresholds: constants instead of optional graph inputs.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    batch: int | Literal["dynamic"] = 1
    target: Target = "portable"
    activations: Activations = "uint8"
    leaky_relu: LeakyRelu = "litert"
    freeze_thresholds: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("target", Target), ("activations", Activations), ("leaky_relu", LeakyRelu)):
            value, choices = getattr(self, name), get_args(allowed)
            if value not in choices:
                msg = f"{name} must be one of {', '.join(choices)}, got {value!r}"
                raise OptionError(msg)
        if self.batch != "dynamic" and not 1 <= self.batch <= 1024:
            msg = f"batch must be 'dynamic' or a number from 1 to 1024, got {self.batch!r}"
            raise OptionError(msg)
