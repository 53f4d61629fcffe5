"""The conversion from end to end: read, describe, import, add the head, rewrite, verify, write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

from converters.description.settings import describe_tflite
from converters.errors import SourceFileError
from converters.files import read_source, require_writable, write_output
from converters.formats import sniff_format
from converters.graph import IR_VERSION, GraphWriter
from converters.head.yolo_v2 import add_yolo_v2_head
from converters.passes.pipelines import run_pipeline
from converters.spec import METADATA_KEY, DetectorSpec, ModelDocument, SourceInfo, TensorTwin
from converters.tflite.importer import import_tflite
from converters.tflite.reader import read_tflite
from converters.verify import require_contract

if TYPE_CHECKING:
    from pathlib import Path

    from converters.options import ConvertOptions


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished model.

    Attributes:
        model: bytes of the ONNX file.
        document: what its metadata says.
    """

    model: bytes
    document: ModelDocument


def convert(source: Path, output: Path, options: ConvertOptions, *, force: bool = False) -> Conversion:
    """Convert ``source`` and write the finished model to ``output``; nothing is written when anything fails.

    Args:
        source: a TFLite detector.
        output: the ONNX file to write.
        options: the choices.
        force: replace an existing ``output``.

    Raises:
        ConversionError: see ``converters.errors`` for the tree.
    """
    require_writable(output, source=source, force=force)
    conversion = convert_to_bytes(source, options)
    write_output(output, conversion.model)
    return conversion


def convert_to_bytes(source: Path, options: ConvertOptions) -> Conversion:
    """Convert ``source`` in memory.

    Raises:
        ConversionError: see ``converters.errors`` for the tree.
    """
    data = read_source(source)
    found = sniff_format(data)
    if found != "tflite":
        msg = f"{source}: expected a TFLite file, found {found or 'none of the known formats'}"
        raise SourceFileError(msg)
    network_source = read_tflite(data, source.name)
    spec = describe_tflite(source, network_source, options.source)
    writer = GraphWriter(source.stem)
    network = import_tflite(network_source, writer, spec.image, options)
    _add_outputs(writer, network.head_nhwc, spec, options)
    model = ir.Model(writer.graph, ir_version=IR_VERSION, producer_name="xdet")
    passes = run_pipeline(model, options.target)
    common.RemoveUnusedNodesPass()(model)
    document = ModelDocument(
        spec=spec,
        source=SourceInfo(source.name, hashlib.sha256(data).hexdigest(), found),
        quantization=network.quantization,
        activations=options.activations,
        leaky_relu=options.leaky_relu,
        target=options.target,
        freeze_thresholds=options.freeze_thresholds,
        passes=passes,
        notes=network.notes,
        tensors=_surviving(network.twins, model.graph),
    )
    return _finish(model, document, options)


def _add_outputs(writer: GraphWriter, head: ir.Value, spec: DetectorSpec, options: ConvertOptions) -> None:
    """The fused head, or the raw one as the only output."""
    batch = _batch(options)
    if spec.head == "none":
        head.type, head.shape = (
            ir.TensorType(ir.DataType.FLOAT),
            ir.Shape([batch, spec.grid_h, spec.grid_w, spec.head_channels]),
        )
        writer.graph.outputs.append(head)
    else:
        add_yolo_v2_head(writer, head, spec, batch=batch, freeze_thresholds=options.freeze_thresholds)


def _surviving(twins: dict[str, TensorTwin], graph: ir.Graph) -> dict[str, TensorTwin]:
    """The twins that the rewrites left in the graph."""
    alive = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    return {name: twin for name, twin in twins.items() if twin.onnx in alive}


def _finish(model: ir.Model, document: ModelDocument, options: ConvertOptions) -> Conversion:
    """Attach the document, infer shapes, check the contract, serialise once."""
    model.metadata_props[METADATA_KEY] = document.to_json()
    common.ShapeInferencePass(data_prop=True)(model)
    proto = ir.to_proto(model)
    require_contract(model, proto, batch=_batch(options), freeze_thresholds=options.freeze_thresholds)
    return Conversion(proto.SerializeToString(deterministic=True), document)


def _batch(options: ConvertOptions) -> int | str:
    return "N" if options.batch == "dynamic" else options.batch
