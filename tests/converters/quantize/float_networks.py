"""Small float networks in the form that importers write, and photographs for them: random, the same on every run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.calibration import Calibration
from converters.description.statements import SourceOptions
from converters.graph import NCHW_TO_NHWC, GraphWriter, image_pixels, rescaled_pixels
from converters.options import ConvertOptions
from converters.sources import ImportedNetwork
from converters.spec import HEAD, DetectorSpec, ImageInput, RawOutput, Rescaling, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

SIZE = 16


class FloatNetwork:
    """A network under construction: NCHW inside, weights from a fixed generator."""

    def __init__(self, rescaling: Rescaling) -> None:
        self.writer = GraphWriter("net")
        self.rng = np.random.default_rng(5)
        self.image = ImageInput(SIZE, SIZE, rescaling)

    def conv(self, source: ir.Value, shape: tuple[int, int, int, int], name: str, **attributes: Any) -> ir.Value:
        """A convolution with weights of ``shape`` (OIHW) and a bias."""
        fan_in = np.prod(shape[1:])
        weights = self.writer.constant((self.rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32), f"{name}/w")
        bias = self.writer.constant(self.rng.normal(size=shape[0]).astype(np.float32) / 4, f"{name}/b")
        same = [shape[2] // 2] * 4
        return self.writer.op("Conv", [source, weights, bias], name, kernel_shape=shape[2:], pads=same, **attributes)


def imported(
    body: Callable[[FloatNetwork, ir.Value], ir.Value], rescaling: Rescaling
) -> tuple[FloatNetwork, ImportedNetwork]:
    """A whole network around ``body``, which gets the rescaled pixels and returns the head in NCHW."""
    net = FloatNetwork(rescaling)
    pixels = rescaled_pixels(net.writer, image_pixels(net.writer, net.image, 1), rescaling)
    last = body(net, pixels)
    head = net.writer.op("Transpose", [last], HEAD, perm=list(NCHW_TO_NHWC))
    twins = {"last": TensorTwin(str(last.name), "NHWC->NCHW", 0)}
    return net, ImportedNetwork((head,), twins, "float32", "float32", leaky_relu="float")


def photographs(count: int = 8, size: int = SIZE) -> list[NDArray[np.uint8]]:
    """uint8 ``(size, size, 3)``, each with its own brightness and contrast."""
    rng = np.random.default_rng(7)
    pictures = []
    for index in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3)).repeat(size // 4, axis=0).repeat(size // 4, axis=1)
        noise = rng.integers(-20, 21, coarse.shape)
        pictures.append(np.clip(coarse * (index + 4) // 12 + noise, 0, 255).astype(np.uint8))
    return pictures


def calibration(percentile: float | None = None, count: int = 8, size: int = SIZE, **extra: Any) -> Calibration:
    def pixels(image: ImageInput) -> Iterator[NDArray[np.uint8]]:
        assert (image.height, image.width) == (size, size)
        return iter(photographs(count, size))

    return Calibration(pixels, count, percentile, **extra)


def options(quantize: str = "per-channel", activations: str = "uint8", **extra: Any) -> ConvertOptions:
    return ConvertOptions(
        source=SourceOptions(head="none"),
        quantize=quantize,  # type: ignore[arg-type]  # parametrised
        activations=activations,  # type: ignore[arg-type]  # parametrised
        calibration=calibration(),
        **extra,
    )


def spec_of(net: FloatNetwork, grid: int, channels: int) -> DetectorSpec:
    return DetectorSpec(net.image, None, raw_outputs=(RawOutput("", (grid, grid, channels)),))
