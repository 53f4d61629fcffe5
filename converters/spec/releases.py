"""The opsets that a finished file may have, their IR versions, and the releases of ONNX Runtime that load them.

Measured: one model, stamped with each opset, on every minor release from 1.15 to 1.24. Older releases were not tried.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

IR_VERSIONS: Mapping[int, int] = {
    13: 7,
    14: 7,
    15: 8,
    16: 8,
    17: 8,
    18: 8,
    19: 9,
    20: 9,
    21: 10,
    22: 10,
}
OPSET_RANGE = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
ONNXRUNTIME: Mapping[int, str] = {
    **dict.fromkeys(range(13, 19), "1.15"),
    19: "1.16",
    20: "1.17",
    21: "1.18",
    22: "1.21",
}
UINT8_MAX_ONNXRUNTIME = "1.24"  # the first whose kernel for Max takes uint8, which ONNX has since opset 12


def is_older(found: str, wanted: str) -> bool:
    """Whether the release ``found`` (``"1.20.1"``, ``"1.24.0.dev3"``) comes before ``wanted`` (``"1.24"``).

    Example:
        >>> is_older("1.9.0", "1.24"), is_older("1.24.1", "1.24"), is_older("2.0", "1.24")
        (True, False, False)
    """
    return _numbers(found) < _numbers(wanted)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]
