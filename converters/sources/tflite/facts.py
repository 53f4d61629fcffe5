"""What a TFLite file itself tells about its detector: picture size, head size, input encoding.

How a TFLite network is quantised, in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import SourceFileError
from converters.facts import SourceFacts
from converters.sources.tflite.operators import WEIGHTED

if TYPE_CHECKING:
    from converters.sources.tflite.reader import TfliteModel, TfliteTensor


def facts_from_tflite(model: TfliteModel) -> SourceFacts:
    """Read the facts of a TFLite detector: one image in, one grid of boxes out.

    Raises:
        SourceFileError: the inputs or outputs are not those of a detector of this family.
    """
    inputs = [(tensor.name, tuple(tensor.shape)) for tensor in _tensors(model, model.inputs)]
    outputs = [(tensor.name, tuple(tensor.shape)) for tensor in _tensors(model, model.outputs)]
    if len(inputs) != 1 or not _is_image(inputs[0][1]):
        raise _not_of_this_family(model, "input", inputs, "one image [1, height, width, 3]")
    if len(outputs) != 1 or not _is_grid(outputs[0][1]):
        raise _not_of_this_family(
            model, "output", outputs, "one grid [1, rows, columns, anchors * (5 + classes)]"
        )
    image, (_, grid_h, grid_w, channels) = _tensors(model, model.inputs)[0], outputs[0][1]
    return SourceFacts(
        file=str(model.file),
        height=image.shape[1],
        width=image.shape[2],
        grid_h=grid_h,
        grid_w=grid_w,
        head_channels=channels,
        input_dtype=str(image.dtype),
        input_quant=image.quant,
    )


def _tensors(model: TfliteModel, indices: tuple[int, ...]) -> list[TfliteTensor]:
    return [model.tensors[index] for index in indices]


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[3] == 3 and min(shape) > 0


def _is_grid(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and min(shape) > 0


def _not_of_this_family(
    model: TfliteModel, side: str, found: list[tuple[str, tuple[int, ...]]], expected: str
) -> SourceFileError:
    listed = ", ".join(f"'{name}' {list(shape)}" for name, shape in found) or "none"
    flat = len(found) == 1 and len(found[0][1]) < 4
    hint = (
        " (a flat output: the grid is folded away, or boxes are already decoded)"
        if flat and side == "output"
        else ""
    )
    msg = f"'{model.file}' is not a detector of this family: {side} expected {expected}, found {listed}{hint}"
    return SourceFileError(msg)


def summarise_quantization(model: TfliteModel) -> str:
    """The weights' dtypes and granularity: ``"int8 per-channel"``, ``"uint8 per-tensor"``, ``"float32"``."""
    weights = [
        model.tensors[op.inputs[1]] for op in model.operators if op.op in WEIGHTED and len(op.inputs) > 1
    ]
    dtypes = "/".join(sorted({w.dtype for w in weights})) or "none"
    if all(w.quant is None for w in weights):
        return dtypes
    per_channel = any(w.quant is not None and w.quant.scale.size > 1 for w in weights)
    return f"{dtypes} {'per-channel' if per_channel else 'per-tensor'}"
