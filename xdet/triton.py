"""A model repository for Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/1/model.onnx``.

Names, element types and dimensions come from the file. Where its batch is symbolic, Triton joins requests to batches; a
dimension that is the batch alone (``num_detections``) is declared as ``[1]`` and reshaped, since Triton wants one
behind the batch. The model is a copy whose thresholds are constants: Triton gives every input a batch, which a
threshold has not. The format is that of ``model_config.proto`` in Triton's repository "common".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.detection.detector import choose_thresholds
from xdet.errors import ModelError, UsageError
from xdet.model.file import read_document, read_model_file
from xdet.model.graph import dtype_name, load_onnx
from xdet.model.wire import freeze_thresholds
from xdet.writing.files import MODEL_MARK, encode_text, with_sidecars, write_changed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from converters.spec import ModelDocument

CONFIG_START = "# xdet triton\n"
DATA_TYPES = {"uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}  # those of the contract
BEYOND_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class TritonFiles:
    """What was written: the model's configuration, and the ONNX file."""

    config: Path
    model: Path


def write_repository(
    model: Path,
    output: Path,
    *,
    name: str | None = None,
    max_batch: int = 8,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    force: bool = False,
) -> TritonFiles:
    """Write a model into a Triton model repository.

    Args:
        model: a finished model.
        output: the repository; made if it is missing.
        name: of the model there; None is the file's name, with ``_`` for what is not a letter, digit, ``_``, ``.`` or
            ``-``.
        max_batch: the most pictures of a batch, where the file's batch is symbolic.
        score_threshold: of the boxes; None is the file's own.
        iou_threshold: of the suppression; None is the file's own.
        force: replace files that xdet did not make, too.

    Raises:
        ModelError: no finished model.
        UsageError: a name that is none, a batch below 1, a threshold that is out of range or that the file cannot take.
        OutputError: the repository cannot be written.
    """
    file = read_model_file(model)
    document = read_document(file.data, file=file.file)
    name = BEYOND_NAMES.sub("_", file.path.stem) if name is None else name
    if not name.strip(".") or BEYOND_NAMES.search(name):
        raise UsageError(
            f"a model's name has letters, digits, '_', '.' and '-', got {name!r}; give another with `name`"
        )
    if max_batch < 1:
        raise UsageError(f"`max_batch` must be at least 1, got {max_batch}")
    data = _with_thresholds(file.data, document, score_threshold, iou_threshold)
    config = config_text(load_onnx(data, file.file).graph, name, max_batch=max_batch)
    files = TritonFiles(output / name / "config.pbtxt", output / name / "1" / "model.onnx")
    marks = {files.model: MODEL_MARK, files.config: re.compile(re.escape(CONFIG_START.encode()))}
    write_changed({files.model: data, files.config: encode_text(config)}, marks, with_sidecars([model]), force=force)
    return files


def config_text(graph: onnx.GraphProto, name: str, *, max_batch: int) -> str:
    """The configuration of a finished model's graph; ``max_batch`` counts where its batch is symbolic.

    Raises:
        ModelError: an input or output whose batch is another than the first input's, or of a type that no contract has.
    """
    initialised = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialised]
    batched = not inputs[0].type.tensor_type.shape.dim[0].HasField("dim_value")
    lines = [
        f"name: {json.dumps(name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch if batched else 0}",
        *_tensors("input", inputs, batched=batched),
        *_tensors("output", graph.output, batched=batched),
        *(["dynamic_batching { }"] if batched else []),
    ]
    return CONFIG_START + "\n".join(lines) + "\n"


def _tensors(kind: str, values: Sequence[onnx.ValueInfoProto], *, batched: bool) -> list[str]:
    blocks = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = dtype_name(tensor.elem_type)
        dims = tensor.shape.dim
        if dtype not in DATA_TYPES or (batched and (not dims or dims[0].HasField("dim_value"))):
            raise ModelError(
                f"{kind} '{value.name}' is {dtype} with {len(dims)} dimensions, which no configuration here can state; "
                f"convert the source again with this version of xdet"
            )
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims[1 if batched else 0 :]]
        shape = [f"dims: [ {', '.join(map(str, sizes))} ]"] if sizes else ["dims: [ 1 ]", "reshape { shape: [ ] }"]
        fields = [f"name: {json.dumps(value.name)}", f"data_type: {DATA_TYPES[dtype]}", *shape]
        blocks.append("  {\n" + "".join(f"    {field}\n" for field in fields) + "  }")
    return [f"{kind} [\n" + ",\n".join(blocks) + "\n]"]


def _with_thresholds(data: bytes, document: ModelDocument, score: float | None, iou: float | None) -> bytes:
    """The model with these thresholds as constants; as it is where it has none to choose."""
    thresholds = choose_thresholds(document.spec.thresholds, score, iou)
    if document.spec.gives_boxes and not document.freeze_thresholds:
        return freeze_thresholds(data, document, thresholds)
    if thresholds != document.spec.thresholds:
        raise UsageError("the file's thresholds are constants, or it has none; convert it without `freeze_thresholds`")
    return data
