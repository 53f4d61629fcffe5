"""A model in memory compared with its source layer by layer, as a check of the two does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xdet.checking.layers import compare_layers
from xdet.checking.pair import open_pair
from xdet.checking.runtimes import OpenRuntimes
from xdet.model.file import ModelFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import LayerComparison


def opened(model: bytes, source: Path) -> OpenedPair:
    return open_pair(ModelFile(Path("model.onnx"), model, "onnx"), source)


def layers_of(model: bytes, source: Path, images: NDArray[np.uint8]) -> LayerComparison:
    pair = opened(model, source)
    with OpenRuntimes(pair) as runtimes:
        return compare_layers(pair, images, runtimes)
