"""Keras -> a float network in our graph: pixels rescaled inside, batch normalisation folded, NCHW, NHWC head.

tf2onnx folds batch normalisations into the convolutions in front of them (what it leaves, the pass ``fold affine``
folds) and hangs one Transpose behind the input and one in front of the output; the one behind the input meets its
inverse here, and the pass ``cancel transposes`` removes both.
Numeric effect: float32 rounding of folded weights and of another order of sums, about 1e-5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.errors import OptionError
from converters.network import ImportedNetwork
from converters.qdq import NCHW_TO_NHWC, image_pixels, rescaled_pixels
from converters.spec import HEAD, TensorTwin
from converters.tf2onnx_graph import take_over

if TYPE_CHECKING:
    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.keras.loading import LoadedKeras
    from converters.options import ConvertOptions
    from converters.spec import DetectorSpec

_SUFFIX = re.compile(r"_\d+")


def import_keras(
    model: LoadedKeras, writer: GraphWriter, spec: DetectorSpec, options: ConvertOptions
) -> ImportedNetwork:
    """Write a Keras detector network into ``writer``'s graph.

    Raises:
        OptionError: int8 activation codes are asked of a float graph.
        UnsupportedModelError: tf2onnx cannot translate the network.
    """
    if options.quantize == "none" and options.activations != "uint8":
        msg = (
            f"{model.source.file}: --activations {options.activations} is about integer codes, and a float graph has none; "
            "add --quantize per-channel --calibration DIR, or leave it out"
        )
        raise OptionError(msg)
    pixels = image_pixels(writer, spec.image, options.batch_size)
    real = rescaled_pixels(writer, pixels, spec.image.rescaling)
    nhwc = writer.op("Transpose", [real], "pixels/nhwc", perm=list(NCHW_TO_NHWC))
    batch = options.batch_size if isinstance(options.batch_size, int) else None
    taken = take_over(model.to_onnx(batch), writer, nhwc, model.source.file)
    taken.output.name = HEAD
    return ImportedNetwork(
        head_nhwc=taken.output,
        twins=layer_twins(model, taken.values),
        quantization="float32",
        activations="float32",
        leaky_relu="float",
    )


def layer_twins(model: LoadedKeras, values: dict[str, ir.Value]) -> dict[str, TensorTwin]:
    """Layer name -> the last value computed in that layer's scope.

    TensorFlow names tensors ``<model>/<layer>/<operation>``; Keras 3 puts the same suffix behind every scope.
    """
    layers = {layer.name for layer in model.source.layers}
    twins: dict[str, TensorTwin] = {}
    for name, value in values.items():
        scope = name.split("/")
        suffix = scope[0].removeprefix(str(model.model.name))
        if not (suffix == "" or _SUFFIX.fullmatch(suffix)):
            continue
        for part in scope[1:]:
            layer = part.removesuffix(suffix) if suffix else part
            if layer in layers and value.name is not None:
                rank = 0 if value.shape is None else len(value.shape)
                layout = "NHWC->NCHW" if rank == 4 and value.name != HEAD else "same"
                twins[layer] = TensorTwin(value.name, layout, 0)
    return twins
