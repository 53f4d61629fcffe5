"""Whether this CPU's uint8 x int8 kernels saturate, found by running one small convolution.

x86 without VNNI multiplies bytes in pairs and adds each pair in *saturating* 16-bit: 255 * 127 + 255 * 127
becomes 32767 instead of 64770. ONNX Runtime then returns wrong integers and says nothing. The probe is one
quantised 3x3 convolution of nothing but such pairs: pixels 255, weights 127, 16 channels, requantised so that
the true answer is 200 everywhere. A list of CPU models would be out of date; this is measured once per process.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBE = Path(__file__).parent.parent / "data" / "saturation_probe.onnx"
EXACT = 200


@cache
def kernels_saturate() -> bool:
    """Whether default sessions here compute wrong sums; then ``SessionChoices.exact_for`` is needed."""
    return bool((run_probe() != EXACT).any())


def run_probe(*, exact_for: str | None = None, optimized_path: str | None = None) -> NDArray[np.uint8]:
    """The probe's outputs, uint8 ``(1, 16, 3, 3)``: 200 everywhere from exact kernels."""
    choices = SessionChoices(threads=1, exact_for=exact_for, optimized_path=optimized_path)
    session = OrtSession(PROBE.read_bytes(), file=PROBE.name, choices=choices)
    output: NDArray[np.uint8] = session.run(["y"], {"x": np.full((1, 16, 5, 5), 255, np.uint8)})[0]
    return output
