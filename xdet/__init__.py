"""Object detectors as one end-to-end ONNX file, run and proven on every runtime at hand.

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
    from xdet.card import CardRequest, make_card
    from xdet.checking.check import check
    from xdet.checking.result import CheckResult
    from xdet.checking.selftest import SelfTest, run_selftest
    from xdet.conversion import convert, describe, describing_options
    from xdet.detection.batch import detect_files, detect_film_to_file, detect_frames, detect_to_file
    from xdet.detection.detector import Detector
    from xdet.detection.embedded import run_demo
    from xdet.detection.parquet import open_results
    from xdet.detection.units import try_units
    from xdet.detections import Detection, Detections
    from xdet.errors import XdetError
    from xdet.evaluation.evaluate import Evaluation, evaluate
    from xdet.inspection import inspect
    from xdet.pictures.render import draw_detections
    from xdet.pictures.video import Film
    from xdet.runtimes.ort_session import available_providers

__all__ = [
    "BenchOptions", "Benchmark", "CardRequest", "CheckResult", "Conversion", "ConversionError", "Detection",
    "Detections", "Detector", "Evaluation", "Film", "SelfTest", "XdetError", "__version__", "available_providers",
    "check", "convert", "describe", "describing_options", "detect_files", "detect_film_to_file", "detect_frames",
    "detect_to_file", "draw_detections", "evaluate", "inspect", "make_card", "open_results", "run_benchmark",
    "run_demo", "run_selftest", "try_units",
]  # fmt: skip

__version__ = "0.1.0"

_HOMES = {
    "xdet.bench": ("BenchOptions", "Benchmark", "run_benchmark"),
    "xdet.card": ("CardRequest", "make_card"),
    "xdet.checking.check": ("check",),
    "xdet.checking.result": ("CheckResult",),
    "xdet.checking.selftest": ("SelfTest", "run_selftest"),
    "xdet.conversion": ("convert", "describe", "describing_options"),
    "xdet.detection.batch": ("detect_files", "detect_film_to_file", "detect_frames", "detect_to_file"),
    "xdet.detection.embedded": ("run_demo",),
    "xdet.detection.detector": ("Detector",),
    "xdet.detection.parquet": ("open_results",),
    "xdet.detection.units": ("try_units",),
    "xdet.detections": ("Detection", "Detections"),
    "xdet.errors": ("XdetError",),
    "xdet.evaluation.evaluate": ("Evaluation", "evaluate"),
    "xdet.inspection": ("inspect",),
    "xdet.pictures.render": ("draw_detections",),
    "xdet.pictures.video": ("Film",),
    "xdet.runtimes.ort_session": ("available_providers",),
    "converters.convert": ("Conversion",),
    "converters.errors": ("ConversionError",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    msg = f"module 'xdet' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
