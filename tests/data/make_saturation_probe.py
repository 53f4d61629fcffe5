"""Write ``xdet/data/saturation_probe.onnx``: one quantised 3x3 convolution, 16 channels, every weight 127.

Pixels of 255 make every pair of products saturate in 16 bits (``xdet.runtimes.ort_session``). The output scale
puts the true sum, 255 * 127 * 16 * 9, at code 200. Run it as it is; the same bytes come out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBE = Path(__file__).resolve().parents[2] / "xdet" / "data" / "saturation_probe.onnx"
CHANNELS = 16
TRUE_SUM = 255 * 127 * CHANNELS * 9


def build_probe(activation_dtype: type[Any] = np.uint8) -> bytes:
    """The probe as ONNX bytes; int8 activations (zero-point -128) make the other dialect, for tests."""
    zero: NDArray[Any] = np.array(np.iinfo(activation_dtype).min, activation_dtype)
    weights = np.full((CHANNELS, CHANNELS, 3, 3), 127, np.int8)
    constants: dict[str, NDArray[Any]] = {
        "w": weights,
        "w_scale": np.array(1, np.float32),
        "w_zero": np.array(0, np.int8),
        "x_scale": np.array(1, np.float32),
        "x_zero": zero,
        "y_scale": np.array(TRUE_SUM / 200, np.float32),
        "y_zero": zero,
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_real"], "x_real"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_real"], "w_real"),
        helper.make_node("Conv", ["x_real", "w_real"], ["y_real"], "y_real"),
        helper.make_node("QuantizeLinear", ["y_real", "y_scale", "y_zero"], ["y"], "y"),
    ]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(activation_dtype))
    graph = helper.make_graph(
        nodes,
        "saturation_probe",
        [helper.make_tensor_value_info("x", code, [1, CHANNELS, 5, 5])],
        [helper.make_tensor_value_info("y", code, [1, CHANNELS, 3, 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


if __name__ == "__main__":
    PROBE.write_bytes(build_probe())
