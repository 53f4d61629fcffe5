"""Memory of a long run: ``python -m tests.fuzz.memory --detections 100000 --openings 1000``, in one process.

A line per tenth, with the memory that the process holds. Exit code 1 where it grew by more than 8 MiB behind the first
tenth.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.xdet.finished_models import finished_model, red_image
from xdet.detection.detector import Detector

if TYPE_CHECKING:
    from collections.abc import Callable

GROWTH_BYTES = 8 << 20


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.memory", description=__doc__)
    parser.add_argument("--detections", type=int, default=100_000, help="of a photograph's file")
    parser.add_argument("--openings", type=int, default=1_000, help="of a model, each with one detection")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model, picture = Path(name) / "m.onnx", Path(name) / "p.png"
        model.write_bytes(finished_model())
        Image.fromarray(red_image(250, 0, 199, 0)[0]).resize((64, 48)).save(picture)

        def open_once() -> None:
            with Detector(model, threads=1) as opened:
                opened(picture)

        with Detector(model, threads=1) as detector:
            grown = [_repeat("detections", asked.detections, lambda: detector(picture))]
        grown.append(_repeat("openings", asked.openings, open_once))
    return int(max(grown) > GROWTH_BYTES)


def _repeat(what: str, times: int, act: Callable[[], object]) -> int:
    """How many bytes more there are at the end than behind the first tenth."""
    held: list[int] = []
    for number in range(1, times + 1):
        act()
        if number % max(1, times // 10) == 0:
            held.append(_resident_bytes())
            print(f"{what} {number}: {held[-1] / (1 << 20):.1f} MiB", flush=True)  # noqa: T201
    return held[-1] - held[0]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])  # Linux alone
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
