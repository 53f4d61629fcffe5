"""Convert a detector, run it on a photograph, print the boxes.

Usage: python quickstart.py SOURCE.tflite PHOTO

The source's sidecar ``SOURCE.xdet.json`` names anchors and classes; ``xdet convert --help`` lists the other ways to
tell them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import xdet


def main(source: Path, photo: Path) -> None:
    """Convert ``source`` into a temporary folder and print what it finds on ``photo``."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "detector.onnx"
        xdet.convert(source, model)
        detector = xdet.Detector(model)
        for detection in detector(photo):
            x1, y1, x2, y2 = detection.box_xyxy_px
            print(f"{detection.class_name} {detection.score:.3f}  {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
