"""What a model file holds, without running it: TFLite and Keras detectors, ONNX files of xdet and of others.

``inspect`` reads a file; ``layers`` lists what it computes; ``costs`` finds how much of it is alive at once.
"""

from __future__ import annotations

from xdet.inspection.costs import OperatorCost, TensorSummary, Totals
from xdet.inspection.inspect import Inspection, inspect

__all__ = ["Inspection", "OperatorCost", "TensorSummary", "Totals", "inspect"]
