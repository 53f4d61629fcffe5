"""The conversion from end to end: read, describe, import, add the head, rewrite, verify, write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from converters._ir import ir
from converters.any_size import take_any_size
from converters.description.sidecar import sidecar_path
from converters.errors import ContractError, ConversionError, OptionError, attempt_all
from converters.files import require_writable, write_output
from converters.float16 import write_float16
from converters.graph import IR_VERSION, GraphWriter, float_products, infer_shapes, keep_static_shapes, require_finite
from converters.heads.nms_nodes import add_head
from converters.integer.evaluate import attempt_golden_vector
from converters.opset import oldest_runtimes, stamp_opset
from converters.passes import run_pipeline
from converters.passes.weights import omit_zero_points
from converters.quantize.network import quantize_network
from converters.sources import SOURCES, describe, open_source
from converters.spec import METADATA_KEY, ModelDocument, SourceInfo, contract_io, raw_outputs
from converters.spec.document import IN_FLOAT, INT8_ENTRY
from converters.verify import require_contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from converters.description.statements import SourceDescription
    from converters.options import ConvertOptions
    from converters.sources import ImportedNetwork, OpenSource
    from converters.spec import DetectorSpec


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished model.

    Attributes:
        model: bytes of the ONNX file.
        document: what its metadata says.
    """

    model: bytes
    document: ModelDocument


def convert(
    source: Path, output: Path, options: ConvertOptions, *, force: bool = False, inputs: Iterable[Path] = ()
) -> Conversion:
    """Convert ``source`` and write the finished model to ``output``; nothing is written when anything fails.

    Args:
        source: a detector in any format of ``converters.sources``.
        output: the ONNX file to write.
        options: the choices.
        force: replace an existing ``output``, unless it is read by this conversion.
        inputs: files that are read besides the source, its sidecar and the yaml.

    Raises:
        ConversionError: see ``converters.errors`` for the tree.
    """
    config = options.source.config
    read = (source, sidecar_path(source), *(() if config is None else (config,)))
    require_writable(output, inputs=chain(read, inputs), force=force)
    conversion = convert_to_bytes(source, options)
    write_output(output, conversion.model)
    return conversion


def convert_to_bytes(source: Path, options: ConvertOptions) -> Conversion:
    """Convert ``source`` in memory.

    Raises:
        ConversionError: see ``converters.errors`` for the tree.
    """
    opened = open_source(source, options.importer, options.source.input_size)
    _require_choices(opened, options)
    description = _described(opened, options)
    writer = GraphWriter(_printable(source.stem))
    network = opened.importer.build(opened.model, writer, description.spec, options)
    require_finite(writer.graph, source.name)
    if options.quantize != "none":
        writer, network = quantize_network(writer, network, description.spec, options)
    golden, golden_notes = attempt_golden_vector(writer.graph, network, description.spec)
    _add_outputs(writer, network.outputs, description.spec, options)
    model = ir.Model(writer.graph, ir_version=IR_VERSION, producer_name="xdet")
    rewritten = run_pipeline(model, options.target, network.twins)
    half_notes = _halved(model, opened, description.spec, network, options) if options.float16 else ()
    notes = (*description.notes, *network.notes, *golden_notes, *half_notes, *_float_notes(writer.graph, options))
    written = {"passes": rewritten.passes, "tensors": rewritten.twins, "golden": golden, "notes": notes}
    document = _document(opened, description, network, options, **written)
    if options.any_size:
        document = take_any_size(model.graph, document)
    return _finish(model, document, options, canonical=network.canonical)


def _require_choices(opened: OpenSource, options: ConvertOptions) -> None:
    """Refuse choices that an importer has no part in; what depends on the file it refuses itself."""
    if options.dequantize and not opened.importer.dequantizes:
        raise OptionError(
            f"{opened.path.name}: `dequantize` takes quantised TFLite files, read without `importer` tf2onnx, and QDQ "
            f"ONNX files; leave it out: {SOURCES[opened.format].title} networks are float already"
            if options.importer == "native"
            else f"{opened.path.name}: `dequantize` needs `importer` native"
        )


def _described(opened: OpenSource, options: ConvertOptions) -> SourceDescription:
    """The description; where it fails, the error tells of operators and types that have no translation, too."""
    require = opened.importer.require
    try:
        return describe(opened, options.source)
    except ConversionError:
        if require is not None:
            attempt_all(lambda: describe(opened, options.source), lambda: require(opened.model))
        raise


def _add_outputs(writer: GraphWriter, outputs: Sequence[ir.Value], spec: DetectorSpec, options: ConvertOptions) -> None:
    """The fused head, or the raw outputs; these get their promised type and shape in both cases."""
    for value, promised in zip(outputs, raw_outputs(spec, options.batch_size), strict=True):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(promised.shape)
    if not spec.gives_boxes:
        writer.graph.outputs.extend(outputs)
        return
    freeze = options.freeze_thresholds
    _, wanted = contract_io(spec, options.batch_size, freeze_thresholds=freeze)
    add_head(writer, outputs, spec, wanted, freeze_thresholds=freeze)


def _halved(
    model: ir.Model, opened: OpenSource, spec: DetectorSpec, network: ImportedNetwork, options: ConvertOptions
) -> tuple[str, ...]:
    if network.activations != "float32":
        raise OptionError(
            f"{opened.path.name}: `float16` is for float networks, and this one computes on {network.activations} "
            "codes; add `dequantize`, or bring the float Keras, TFLite or ONNX file"
        )
    return write_float16(model, spec, options.calibration, options.fixed_batch)


def _float_notes(graph: ir.Graph, options: ConvertOptions) -> Iterator[str]:
    count = len(float_products(graph))
    if count and options.importer != "tf2onnx":  # whose files promise no bits, and would become slow
        yield (
            f"{IN_FLOAT}on processors other than Arm's, ONNX Runtime computes the products in front of them and behind "
            f"them ({count}) in float32, which may round another way; the session entry {INT8_ENTRY} = 1, which xdet "
            "sets, keeps them exact"
        )


def _document(
    opened: OpenSource,
    description: SourceDescription,
    network: ImportedNetwork,
    options: ConvertOptions,
    **written: Any,
) -> ModelDocument:
    """What the metadata says of the conversion; ``written`` are the fields that tell what became of the network."""
    choices = ("arithmetic", "dequantize", "float16", "symmetric", "target", "freeze_thresholds")
    digest = hashlib.sha256(opened.data).hexdigest()
    try:
        return ModelDocument(
            spec=description.spec,
            source=SourceInfo(_printable(opened.path.name), digest, opened.format),
            quantization=network.quantization,
            activations=network.activations,
            leaky_relu=network.leaky_relu or options.leaky_relu,
            deviations=network.deviations,
            evaluation=description.evaluation,
            licence=description.licence,
            origin=description.origin,
            **{name: getattr(options, name) for name in choices},
            **written,
        )
    except ValueError as error:
        raise ContractError(
            f"{opened.path.name}: the model's document is malformed: {error}; please report this with the source file"
        ) from error


def _printable(name: str) -> str:
    """A file name as text that can be stored: bytes that are no UTF-8, which Python keeps as surrogates, become ?."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _finish(model: ir.Model, document: ModelDocument, options: ConvertOptions, *, canonical: bool) -> Conversion:
    """Choose the opset, attach the document, state the shapes, check the contract, serialise once."""
    if canonical:  # others keep the operators of their sources
        omit_zero_points(model.graph)
    infer_shapes(model)
    stamp_opset(model, options.opset)
    document = replace(document, oldest_runtimes=oldest_runtimes(model, document))
    keep_static_shapes(model, options.batch_size)
    model.metadata_props[METADATA_KEY] = document.to_json()
    data = ir.to_proto(model).SerializeToString(deterministic=True)
    require_contract(model, data, batch=options.batch_size, canonical=canonical)
    return Conversion(data, document)
