"""TFLite by way of tf2onnx: the general fallback, for operators that the native importer does not know.

tf2onnx keeps the source's integers in its own form: int8 activations, a QuantizeLinear behind the pixels, and what it
makes of operators that have no QDQ form in float32. It is taken over as it is; head and rewrites follow as for every
source. Which convolutions a runtime then computes in integers is the runtime's business: the native importer is the one
that promises it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from converters.errors import OptionError
from converters.network import ImportedNetwork
from converters.qdq import NHWC_TO_NCHW
from converters.spec import HEAD, IMAGE, TensorTwin
from converters.tf2onnx_export import TF2ONNX_OPSET, exporting
from converters.tf2onnx_graph import take_over
from converters.tflite.quantization import summarise_quantization

if TYPE_CHECKING:
    import onnx

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec
    from converters.tflite.records import TfliteModel


@dataclass(frozen=True, eq=False)
class CheckedTflite:
    """A TFLite file that was read and checked.

    Attributes:
        records: what it holds.
        data: its bytes.
    """

    records: TfliteModel
    data: bytes


def import_by_tf2onnx(
    model: CheckedTflite, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Write a TFLite detector network into ``writer``'s graph, as tf2onnx translates it.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        OptionError: the file takes float pixels, or uint8 activations are insisted on.
        UnsupportedModelError: tf2onnx cannot translate it.
    """
    file = model.records.file
    if model.records.tensors[model.records.inputs[0]].dtype != "uint8":
        raise OptionError(
            f"{file}: --importer tf2onnx takes models with uint8 pixels; leave it out for this one"
        )
    image = writer.input(
        IMAGE, ir.DataType.UINT8, [options.batch_size, spec.image.height, spec.image.width, 3]
    )
    taken = take_over(_exported(model), writer, image, file)
    taken.output.name = HEAD
    return ImportedNetwork(
        head_nhwc=taken.output,
        twins=_twins(model.records, taken.values),
        quantization=summarise_quantization(model.records),
        activations="int8",
        canonical=False,
        notes=("translated by tf2onnx: int8 activations, and some operators may run in float32",),
        leaky_relu="float",
    )


def _exported(model: CheckedTflite) -> onnx.ModelProto:
    """What tf2onnx writes for the very bytes that were checked."""
    file = model.records.file
    with tempfile.TemporaryDirectory(prefix="xdet-tflite-") as folder, exporting(file) as tf2onnx:
        copy = Path(folder) / "model.tflite"
        copy.write_bytes(model.data)
        proto: onnx.ModelProto
        proto, _ = tf2onnx.convert.from_tflite(str(copy), opset=TF2ONNX_OPSET)
    return proto


def _twins(records: TfliteModel, values: dict[str, ir.Value]) -> dict[str, TensorTwin]:
    """Source tensor name -> the value of the same name, where tf2onnx kept one of its shape."""
    twins: dict[str, TensorTwin] = {}
    for tensor in records.tensors:
        value = values.get(tensor.name)
        shape = None if value is None or value.shape is None else list(value.shape)
        if value is None or value.name is None or shape is None or len(shape) != len(tensor.shape):
            continue
        if shape[1:] == list(tensor.shape[1:]):
            twins[tensor.name] = TensorTwin(value.name, "same", 0)
        elif len(shape) == 4 and shape[1:] == [tensor.shape[i] for i in NHWC_TO_NCHW[1:]]:
            twins[tensor.name] = TensorTwin(value.name, "NHWC->NCHW", 0)
    return twins
