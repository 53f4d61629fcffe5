"""Tiny YOLO v2 detectors as one end-to-end ONNX file, run and proven on every runtime at hand.

>>> import xdet
>>> xdet.convert("model.tflite", "model.onnx")  # doctest: +SKIP
>>> xdet.Detector("model.onnx")("photo.jpg")  # doctest: +SKIP

Names are loaded when they are first used, so importing the package is cheap and needs no back end.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.convert import Conversion
    from converters.errors import ConversionError
    from xdet.bench import Benchmark, BenchOptions, run_benchmark
    from xdet.checking.check import check
    from xdet.checking.result import CheckResult
    from xdet.checking.selftest import SelfTest, run_selftest
    from xdet.conversion import convert
    from xdet.detection.detector import Detector
    from xdet.detections import Detection, Detections
    from xdet.errors import XdetError
    from xdet.evaluation.evaluate import evaluate
    from xdet.evaluation.results import Evaluation
    from xdet.inspection import inspect
    from xdet.runtimes.ort_session import available_providers

__all__ = [
    "BenchOptions",
    "Benchmark",
    "CheckResult",
    "Conversion",
    "ConversionError",
    "Detection",
    "Detections",
    "Detector",
    "Evaluation",
    "SelfTest",
    "XdetError",
    "__version__",
    "available_providers",
    "check",
    "convert",
    "evaluate",
    "inspect",
    "run_benchmark",
    "run_selftest",
]

__version__ = "0.1.0"

_HOMES = {
    "BenchOptions": "xdet.bench",
    "Benchmark": "xdet.bench",
    "CheckResult": "xdet.checking.result",
    "Conversion": "converters.convert",
    "ConversionError": "converters.errors",
    "Detection": "xdet.detections",
    "Detections": "xdet.detections",
    "Detector": "xdet.detection.detector",
    "Evaluation": "xdet.evaluation.results",
    "SelfTest": "xdet.checking.selftest",
    "XdetError": "xdet.errors",
    "available_providers": "xdet.runtimes.ort_session",
    "check": "xdet.checking.check",
    "convert": "xdet.conversion",
    "evaluate": "xdet.evaluation.evaluate",
    "inspect": "xdet.inspection",
    "run_benchmark": "xdet.bench",
    "run_selftest": "xdet.checking.selftest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'xdet' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
