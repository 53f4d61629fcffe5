"""The step from a float network to canonical QDQ int8: clean, calibrate on photographs, write anew.

Before: what an importer wrote, float32 from the rescaled pixels to the head. After: the same network in a graph of its
own, with integer codes between all operators (``converters.qdq``). Numeric effect: that of 8 bit quantisation; see
docs/keras.md for what it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from converters.calibration import observe_ranges
from converters.errors import OptionError
from converters.graph import IR_VERSION, GraphWriter
from converters.passes.cancel_transposes import CancelTransposes
from converters.passes.fold_affine import FoldAffine
from converters.quantize.graph import Rewriter
from converters.spec import HEAD

if TYPE_CHECKING:
    from converters.network import ImportedNetwork
    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec


def quantize_network(
    writer: GraphWriter, network: ImportedNetwork, spec: DetectorSpec, options: ConvertOptions
) -> tuple[GraphWriter, ImportedNetwork]:
    """Quantise an imported float network.

    Args:
        writer: the writer that holds it; not to be used afterwards.
        network: the network.
        spec: the detector.
        options: granularity, photographs, dtype of the activation codes.

    Returns:
        A new writer with the quantised network, every shape inferred.

    Raises:
        OptionError: the network is quantised already, or there are no photographs.
        SourceFileError: it computes numbers that are not finite.
    """
    if network.activations != "float32" or options.calibration is None:
        msg = (
            f"--quantize {options.quantize}: the source is quantised already ({network.quantization}); leave the option "
            "out, or give the float Keras file"
        )
        raise OptionError(msg)
    model = _calibration_model(writer, network.head_nhwc)
    proto = ir.to_proto(model)
    batch = options.batch_size if isinstance(options.batch_size, int) else 1
    ranges = observe_ranges(proto.SerializeToString(), spec.image, options.calibration, batch=batch)
    quantised = GraphWriter(str(writer.graph.name))
    rewritten = Rewriter(quantised, model.graph, ranges, spec.image, options).rewrite(network)
    common.ShapeInferencePass(data_prop=True)(ir.Model(quantised.graph, ir_version=IR_VERSION))
    return quantised, rewritten


def _calibration_model(writer: GraphWriter, head: ir.Value) -> ir.Model:
    """The float network, cleaned, with the head as its output and every shape inferred."""
    head.type = ir.TensorType(ir.DataType.FLOAT)
    writer.graph.outputs.append(head)
    model = ir.Model(writer.graph, ir_version=IR_VERSION, producer_name="xdet")
    CancelTransposes()(model)
    FoldAffine()(model)
    common.RemoveUnusedNodesPass()(model)
    common.ShapeInferencePass(data_prop=True)(model)
    assert model.graph.outputs[0].name == HEAD  # noqa: S101 - importers name it
    return model
