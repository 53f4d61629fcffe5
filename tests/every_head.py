"""A small network of every head, random weights: files that ``examples/runtime_matrix.py --look-alikes`` measures.

``python -m tests.every_head FOLDER`` writes a TFLite file and its sidecar for each (extra: litert).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from converters.description.statements import SourceOptions
from tests.converters.sources.tflite.look_alikes import (
    CODES,
    SIZE,
    LookAlike,
    blazeface,
    fastestdet,
    three_grids,
    yolo_v8,
)
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from tests.converters.sources.tflite.ssd_networks import ssd_with_postprocess
from xdet.conversion import describe

if TYPE_CHECKING:
    from collections.abc import Callable

PIXELS = tuple((float(6 * i), float(5 * i)) for i in range(1, 7))
CELLS = ((2.0, 2.0), (3.0, 4.0), (4.0, 3.0), (2.5, 2.5), (1.5, 1.7))
STRIDES = (8, 16, 32)


def yolo_v2() -> bytes:
    """A grid of 8 x 8 cells behind three convolutions."""
    network = NetworkBuilder(SIZE, seed=3, gain=8.0).conv(16, stride=2, activation="RELU").max_pool()
    return network.conv(32, activation="RELU").max_pool().conv(HEAD_CHANNELS, 1).build()


def rows_of_grids(values: int, *, activated: bool) -> bytes:
    """Rows ``[1, boxes, values]`` of three strides, finest first: YOLO v5 where they are activated, YOLOX where not."""
    net, counts = LookAlike(), [(SIZE // stride) ** 2 for stride in STRIDES]
    rows = [
        net.reshaped(net.grid(stride, values), (1, count, values))
        for stride, count in zip(STRIDES, counts, strict=True)
    ]
    shape = (1, sum(counts), values)
    joined = net.b.op("CONCATENATION", rows, shape, "int8", *CODES, axis=1)
    if activated:
        joined = net.activated("LOGISTIC", joined, shape)
    return net.b.build([net.real(joined, shape, "out")])


def fomo(classes: int) -> bytes:
    """Classes of 8 x 8 cells by a softmax, the background first."""
    net, side = LookAlike(), SIZE // 8
    shape = (1, side, side, 1 + classes)
    return net.b.build([net.real(net.activated("SOFTMAX", net.grid(8, 1 + classes), shape), shape, "out")])


HEADS: dict[str, tuple[Callable[[], bytes], SourceOptions]] = {
    "yolo_v2": (yolo_v2, SourceOptions(anchors=CELLS, anchor_unit="cell")),
    "yolo_v3": (lambda: three_grids(14), SourceOptions(anchors=PIXELS)),
    "yolo_v5": (lambda: rows_of_grids(7, activated=True), SourceOptions(head="yolo_v5")),
    "yolo_v5_raw": (lambda: three_grids(14), SourceOptions(head="yolo_v5_raw", anchors=PIXELS)),
    "yolo_v8": (lambda: yolo_v8(2), SourceOptions(head="yolo_v8")),
    "yolox": (lambda: rows_of_grids(7, activated=False), SourceOptions(head="yolox")),
    "ssd": (ssd_with_postprocess, SourceOptions()),
    "fomo": (lambda: fomo(2), SourceOptions(head="fomo")),
    "blazeface": (blazeface, SourceOptions()),
    "fastestdet": (lambda: fastestdet(3), SourceOptions()),
}


def write_look_alikes(folder: Path) -> list[Path]:
    """One TFLite file of each head with its sidecar, named after the head."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, (build, source_options) in HEADS.items():
        path = folder / f"{kind}.tflite"
        path.write_bytes(build())
        describe(path, source_options=source_options, output=path.with_suffix(".xdet.json"), force=True)
        written.append(path)
    return written


if __name__ == "__main__":
    write_look_alikes(Path(sys.argv[1]))
