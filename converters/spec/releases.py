"""The opsets that a finished file may have, their IR versions, and the oldest releases of every runtime that run it.

Measured. ONNX Runtime: one model, stamped with each opset, on every minor release from 1.15 to 1.24; for Node and the
web, the same. Others: nine detectors on every release that has a wheel for Python 3.11, downwards until one failed.
What failed: OpenVINO 2023.0 does not import in that way, OpenCV 4 has no such engine, IREE 3.12 and TVM 0.25 do not
compile the suppression, tract 0.23.5 and 0.23.7 load files and compute wrong heads (167 steps), older ones do not load
them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

IR_VERSIONS: Mapping[int, int] = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
OPSET_RANGE = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
ONNXRUNTIME: Mapping[int, str] = {
    **dict.fromkeys(range(13, 19), "1.15"),
    19: "1.16",
    20: "1.17",
    21: "1.18",
    22: "1.21",
}
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-node", "onnxruntime-web")  # one core, the same numbers
OTHER_RUNTIMES: Mapping[str, str] = {
    "iree": "3.13",
    "opencv": "5.0",
    "openvino": "2023.1",
    "tract": "0.23.8",
    "tvm": "0.26",
}
ANY_SIZE_OPENVINO = "2025.4"  # older ones do not load the resize rules
UINT8_MAX_ONNXRUNTIME = "1.24"  # the first whose kernel for Max takes uint8, which ONNX has since opset 12


def is_older(release: str, wanted: str) -> bool:
    """Whether a ``release`` (``"1.20.1"``, ``"1.24.0.dev3"``) comes before ``wanted`` (``"1.24"``).

    Example:
        >>> is_older("1.9.0", "1.24"), is_older("1.24.1", "1.24"), is_older("2.0", "1.24")
        (True, False, False)
    """
    return _numbers(release) < _numbers(wanted)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]
