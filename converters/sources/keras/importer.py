"""Keras -> a float network in our graph: pixels rescaled inside, batch normalisation folded, NCHW, NHWC head.

tf2onnx folds batch normalisations into the convolutions in front of them (what it leaves, the pass ``fold affine``
folds) and hangs one Transpose behind the input and one in front of the output; the one behind the input meets its
inverse here, and the pass ``cancel transposes`` removes both.
Numeric effect: float32 rounding of folded weights and of another order of sums, about 1e-5.

What a Keras file itself tells about its detector: picture size and outputs. It never says how pixels are scaled.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.errors import OptionError, SourceFileError
from converters.facts import CHANNELS, IMAGE_SHAPE, SourceFacts, SourceOutput
from converters.graph import NCHW_TO_NHWC, image_pixels, rescaled_pixels
from converters.sources import ImportedNetwork
from converters.sources.tf2onnx import name_outputs, take_over
from converters.spec import HEAD, TensorTwin

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

    from converters.graph import GraphWriter
    from converters.options import ConvertOptions
    from converters.sources.keras.loading import LoadedKeras
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
        raise OptionError(
            f"{model.source.file}: --activations {options.activations} is about integer codes, and a float graph has "
            "none; add --quantize per-channel --calibration DIR, or leave it out"
        )
    pixels = image_pixels(writer, spec.image, options.batch_size)
    real = rescaled_pixels(writer, pixels, spec.image.rescaling)
    nhwc = writer.op("Transpose", [real], "pixels/nhwc", perm=list(NCHW_TO_NHWC))
    batch = options.batch_size if isinstance(options.batch_size, int) else None
    outputs, values = take_over(model.to_onnx(batch), writer, nhwc, model.source.file)
    return ImportedNetwork(
        outputs=name_outputs(writer, outputs, facts_from_keras(model), spec),
        twins=layer_twins(model, values, [output.value_name for output in spec.network_outputs]),
        quantization="float32",
        activations="float32",
        leaky_relu="float",
    )


def layer_twins(
    model: LoadedKeras, values: dict[str, ir.Value], raw: Collection[str] = (HEAD,)
) -> dict[str, TensorTwin]:
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
                layout = "NHWC->NCHW" if rank == 4 and value.name not in raw else "same"
                twins[layer] = TensorTwin(value.name, layout, 0)
    return twins


Shapes = tuple[tuple[int | None, ...], ...]


def facts_from_keras(model: LoadedKeras) -> SourceFacts:
    """Read the facts of a Keras detector: one image in, any number of outputs of any rank.

    Raises:
        SourceFileError: its inputs are not one picture, or a size is open.
    """
    file = model.source.file
    image = _sizes(model.input_shapes[0]) if len(model.input_shapes) == 1 else None
    if image is None or len(image) != 3 or image[2] not in CHANNELS:
        raise _not_a_detector(file, "input", model.input_shapes, IMAGE_SHAPE)
    sizes = [_sizes(shape) for shape in model.output_shapes]
    outputs = tuple(
        SourceOutput(name, shape, activations)
        for name, shape, activations in zip(model.output_names, sizes, model.output_activations, strict=True)
        if shape is not None
    )
    if not outputs or len(outputs) < len(sizes):
        raise _not_a_detector(file, "output", model.output_shapes, "numbers of known sizes, [N, ...]")
    return SourceFacts(file, image[0], image[1], outputs, "float32", None, image[2])


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """The sizes behind the batch; None where one is open."""
    sizes = tuple(size for size in shape[1:] if size is not None and size > 0)
    return sizes if len(sizes) == len(shape) - 1 else None


def _not_a_detector(file: str, side: str, shapes: Shapes, expected: str) -> SourceFileError:
    listed = ", ".join(str(["N" if n is None else n for n in shape]) for shape in shapes) or "none"
    open_size = any(None in shape[1:] for shape in shapes)
    hint = " (a size is open: build the network for one picture size, and save it again)" if open_size else ""
    return SourceFileError(f"'{file}' is not a detector: {side} expected {expected}, found {listed}{hint}")
