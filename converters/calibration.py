"""Which values a float network computes on photographs: onnxruntime.quantization's calibrators, fed with pixels.

The network sees each photograph exactly as the finished model will: uint8 at network size, rescaled inside the graph.
The same photographs give the same ranges on one kind of processor; float kernels of another kind may differ in the last
bit.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import MissingExtraError, OptionError, SourceFileError
from converters.spec import IMAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.spec import ImageInput

MIN_IMAGES = 8
CHUNK = 8  # images whose tensors the percentile's histograms hold in memory at once
Ranges = dict[str, tuple[float, float]]
Pixels = Callable[["ImageInput"], Iterator["NDArray[np.uint8]"]]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Photographs to calibrate with."""

    # what the network takes -> its photographs in a fixed order, each uint8 ``(height, width, channels)``
    pixels: Pixels
    count: int  # how many photographs there are
    # None for the smallest and largest value seen; else a percentage in 50..100: the share of values that the range
    # keeps, cut on both sides alike
    percentile: float | None = None
    progress: Callable[[int], object] = lambda _: None  # called with 1 after every photograph

    def __post_init__(self) -> None:
        if self.count < MIN_IMAGES:
            raise OptionError(
                f"`calibration`: {self.count} photographs, expected at least {MIN_IMAGES}: ranges from so few do not "
                "hold for others; give 50 to 500 of the kind that the detector will see"
            )
        if self.percentile is not None and not 50 <= self.percentile <= 100:
            raise OptionError(f"`percentile` must lie in 50..100, got {self.percentile}; 99.99 is usual")


def observe_ranges(model: bytes, image: ImageInput, calibration: Calibration, *, batch: int = 1) -> Ranges:
    """The range of every float value in a network, over all photographs: value name -> (smallest, largest).

    Args:
        model: an ONNX file with the input ``image``, uint8 ``[batch, H, W, C]``.
        image: what it takes.
        calibration: photographs and method.
        batch: images per call; each photograph then stands in it that many times.

    Raises:
        SourceFileError: a value is not finite on some photograph.
    """
    with tempfile.TemporaryDirectory(prefix="xdet-calibration-") as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(model)
        calibrator, feeds = _calibrator(path, calibration), _feeds(image, calibration, batch)
        with contextlib.redirect_stdout(io.StringIO()):  # its histograms talk
            for start in range(0, calibration.count, CHUNK):
                chunk = islice(feeds, min(CHUNK, calibration.count - start))
                calibrator.collect_data(SimpleNamespace(get_next=partial(next, chunk, None)))
            data = calibrator.compute_data()
    ranges = {str(name): _bounds(entry) for name, entry in data.items()}
    broken = [name for name, bounds in ranges.items() if not all(map(math.isfinite, bounds))]
    if broken:
        raise SourceFileError(
            f"calibration: {', '.join(map(repr, broken[:5]))} are not finite: the network's weights are broken"
        )
    return ranges


def _feeds(image: ImageInput, calibration: Calibration, batch: int) -> Iterator[dict[str, NDArray[np.uint8]]]:
    for pixels in calibration.pixels(image):
        calibration.progress(1)
        yield {IMAGE: np.repeat(pixels[None], batch, axis=0)}


def _bounds(entry: Any) -> tuple[float, float]:
    """A calibrator's two numbers, which come as arrays of one element or none."""
    low, high = (np.asarray(bound).reshape(()) for bound in entry.range_value)
    return float(low), float(high)


def _calibrator(path: Path, calibration: Calibration) -> Any:
    try:
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime, which computes the ranges of `calibration`,", "cpu") from error
    augmented = str(path.with_name("augmented.onnx"))
    if calibration.percentile is None:
        return create_calibrator(path, [], augmented, CalibrationMethod.MinMax)
    options = {"percentile": calibration.percentile, "symmetric": False}
    return create_calibrator(path, [], augmented, CalibrationMethod.Percentile, extra_options=options)
