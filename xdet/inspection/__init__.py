"""What a model file holds, without running it: TFLite and Keras detectors, ONNX files of xdet and of others.

``inspect`` reads a file; ``tflite_layers`` and ``onnx_layers`` list what it computes; ``memory`` finds how much of it
is alive at once.
"""

from __future__ import annotations

from xdet.inspection.inspect import inspect
from xdet.inspection.layers import Inspection, Layer, TensorSummary, Totals

__all__ = ["Inspection", "Layer", "TensorSummary", "Totals", "inspect"]
