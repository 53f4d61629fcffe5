"""What a model file holds, told without running it: TFLite detectors, and ONNX files whether ours or not."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import ConversionError
from converters.formats import sniff_format
from converters.spec import METADATA_KEY, DetectorSpec, ModelDocument
from xdet.errors import ModelError
from xdet.runtimes.opening import read_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from converters.tflite.records import TfliteModel


@dataclass(frozen=True, slots=True)
class TensorSummary:
    """An input or output of a model.

    Attributes:
        name: its name in the file.
        dtype: numpy's name of its element type.
        shape: sizes; a text is a dimension that the caller chooses.
        scale: quantisation scale, None where the tensor is not quantised.
        zero_point: quantisation zero-point, None where the tensor is not quantised.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model file at a glance.

    Attributes:
        file: its name.
        format: ``"tflite"`` or ``"onnx"``.
        size_bytes: size of the file.
        sha256: hex digest of its bytes.
        producer: the program that wrote it, in its own words.
        inputs: what the caller feeds.
        outputs: what the caller reads.
        operators: operator -> how many.
        quantization: summary, such as ``"int8 per-channel"``; None where the file does not say.
        spec: the detector, None where the file and its sidecar do not describe one.
        problem: why there is no spec.
        document: the metadata of a finished model of ours.
    """

    file: str
    format: str
    size_bytes: int
    sha256: str
    producer: str
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: dict[str, int]
    quantization: str | None
    spec: DetectorSpec | None
    problem: str | None
    document: ModelDocument | None = None


def inspect(path: str | Path) -> Inspection:
    """Describe a model file.

    Raises:
        ModelError: the file cannot be read, or is none of the formats.
        ConversionError: a TFLite file is damaged.
    """
    path = Path(path)
    data = read_model(path)
    found = sniff_format(data)
    if found == "tflite":
        return _inspect_tflite(path, data)
    if found == "onnx":
        return _inspect_onnx(path, data)
    msg = f"'{path}' is {found or 'none of the known model formats'}; inspect reads TFLite and ONNX files"
    raise ModelError(msg)


def _inspect_tflite(path: Path, data: bytes) -> Inspection:
    from converters.description.settings import SourceOptions, describe_tflite
    from converters.tflite.quantization import summarise_quantization
    from converters.tflite.reader import read_tflite

    model = read_tflite(data, path.name)
    spec, problem = None, None
    try:
        spec = describe_tflite(path, model, SourceOptions())
    except ConversionError as error:  # a network without a description is worth inspecting, too
        problem = str(error)
    return Inspection(
        file=path.name,
        format="tflite",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        producer=model.description,
        inputs=_tflite_tensors(model, model.inputs),
        outputs=_tflite_tensors(model, model.outputs),
        operators=_counted([op.op for op in model.operators]),
        quantization=summarise_quantization(model),
        spec=spec,
        problem=problem,
    )


def _tflite_tensors(model: TfliteModel, indices: Sequence[int]) -> tuple[TensorSummary, ...]:
    tensors = [model.tensors[index] for index in indices]
    return tuple(
        TensorSummary(t.name, t.dtype, t.shape)
        if t.quant is None or t.quant.scale.size != 1
        else TensorSummary(t.name, t.dtype, t.shape, float(t.quant.scalar_scale), t.quant.scalar_zero_point)
        for t in tensors
    )


def _inspect_onnx(path: Path, data: bytes) -> Inspection:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        msg = f"'{path}' is a damaged ONNX file: {error}"
        raise ModelError(msg) from error
    document, problem = _read_document(model)
    initialisers = {tensor.name for tensor in model.graph.initializer}
    return Inspection(
        file=path.name,
        format="onnx",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=_onnx_tensors(
            [v for v in model.graph.input if v.name not in initialisers or document is not None]
        ),
        outputs=_onnx_tensors(model.graph.output),
        operators=_counted([node.op_type for node in model.graph.node]),
        quantization=None if document is None else document.quantization,
        spec=None if document is None else document.spec,
        problem=problem,
        document=document,
    )


def _read_document(model: onnx.ModelProto) -> tuple[ModelDocument | None, str | None]:
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not texts:
        return None, "not made by xdet: it carries no xdet document"
    try:
        return ModelDocument.from_json(texts[0]), None
    except ValueError as error:
        return None, str(error)


def _onnx_tensors(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSummary, ...]:
    import onnx

    summaries = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower().replace("float", "float32", 1)
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        )
        summaries.append(TensorSummary(value.name, {"float3216": "float16"}.get(dtype, dtype), shape))
    return tuple(summaries)


def _counted(operators: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(operators).items(), key=lambda item: (-item[1], item[0])))
