"""One file -> one ``Inspection``, by format; nothing is run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError
from converters.files import FINISHED
from converters.sources import SOURCES, sniff_format
from converters.spec import METADATA_KEY, ModelDocument
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.inspection.costs import TensorSummary, Totals, best_peak, plain_peak_bytes
from xdet.model.file import hash_model, holds_graphs, read_model, require_contract_graph, require_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from converters.description.statements import SourceOptions
    from converters.facts import SourceFacts
    from converters.spec import DetectorSpec
    from xdet.inspection.costs import Network, OperatorCost
    from xdet.inspection.coverage import Coverage, TwoScales

MOST_NODES = 10_000  # of a graph whose kernels are looked up: ONNX Runtime's optimiser is not linear


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model file at a glance."""

    file: str
    format: str  # "tflite", "h5", "keras", "onnx" (finished), "onnx-source"
    size_bytes: int
    sha256: str  # of its bytes, hex digits
    producer: str  # the program that wrote it, in its own words
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: dict[str, int]  # operator -> how many
    quantization: str | None  # such as "int8 per-channel"; None where the file does not say
    spec: DetectorSpec | None  # None where the file and its sidecar do not describe a detector
    problem: str | None  # why there is no spec
    # of a source: fact of spec -> who states it, or "assumed"
    stated_by: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # of a source: what its metadata state, and where they contradict somebody else
    refused: str | None = None  # why other commands do not take the file: its operators, or its graph
    document: ModelDocument | None = None  # the metadata of a finished model of ours
    two_scales: tuple[TwoScales, ...] = ()  # tensors that are read with another scale than they were written with
    totals: Totals | None = None  # None where totals_problem says why they are not known
    totals_problem: str | None = None
    coverage: Coverage | None = None  # of ONNX files: the share that runs in integers on ONNX Runtime's CPU provider
    coverage_problem: str | None = None  # why an ONNX file's coverage is not known
    layers: tuple[OperatorCost, ...] = ()  # where they were asked for


def inspect(path: str | Path, *, layers: bool = False, source_options: SourceOptions | None = None) -> Inspection:
    """Describe a model file; nothing is run.

    Args:
        path: a TFLite, ONNX, H5 or .keras file.
        source_options: what file and sidecar of a source do not say (``xdet.describing_options``).
        layers: also list the layers. Of a Keras file they are those of the float ONNX graph that a conversion makes,
            which needs TensorFlow.

    Raises:
        ModelError: the file cannot be read, or is none of the formats.
        ConversionError: a source file is damaged, or refused.
    """
    path = Path(path)
    require_source([path], source_options)
    data = read_model(path)
    kind = sniff_format(data)
    if kind is None:
        raise ModelError(
            f"'{path}' is none of the known model formats; inspect reads TFLite, ONNX, H5 and .keras files"
        )
    inspection = (
        inspect_onnx(path, data) if kind == FINISHED else SOURCES[kind].inspect(path, data, layers, source_options)
    )
    if layers and inspection.totals is None:
        raise ModelError(inspection.totals_problem or f"'{path}' has no layers that can be listed")
    return inspection if layers else replace(inspection, layers=())


def inspect_tflite(path: Path, data: bytes, _: bool, source_options: SourceOptions | None = None) -> Inspection:  # noqa: FBT001 - called by a table
    """Tell what a TFLite file holds."""
    from converters.sources.tflite.facts import facts_from_tflite, summarise_quantization
    from converters.sources.tflite.reader import read_tflite
    from converters.sources.tflite.supported import require_sound, require_supported
    from xdet.inspection.layers import summarise_tensor, tflite_layers, tflite_network

    model = read_tflite(data, path.name)
    operators = model.operators if model.postprocess is None else (*model.operators, model.postprocess)
    inspection = Inspection(
        file=path.name,
        format="tflite",
        size_bytes=len(data),
        sha256=hash_model(data),
        producer=model.description,
        inputs=tuple(summarise_tensor(model.tensors[index]) for index in model.inputs),
        outputs=tuple(summarise_tensor(model.tensors[index]) for index in model.outputs),
        operators=_counted([op.op for op in operators]),
        quantization=summarise_quantization(model),
        refused=_refusal(require_supported, model),
        **_description(path, lambda: facts_from_tflite(model), source_options),
    )
    try:
        require_sound(model)  # operands as the operators need them: what counting relies on
        layers = tflite_layers(model)
        return replace(inspection, layers=layers, totals=_totals(layers, tflite_network(model)))
    except ConversionError as error:
        return replace(inspection, totals_problem=str(error))


def inspect_onnx_source(path: Path, data: bytes, _: bool, source_options: SourceOptions | None = None) -> Inspection:  # noqa: FBT001 - called by a table
    """Tell what an ONNX file without a head holds."""
    from converters.sources.onnx.importer import summarise_quantization
    from converters.sources.onnx.network import facts_from_onnx, fixed_graph
    from converters.sources.onnx.reader import read_onnx

    inspection = replace(inspect_onnx(path, data), format="onnx-source")
    try:
        source = read_onnx(data, path.name, None if source_options is None else source_options.input_size)
        inspection = replace(inspection, quantization=summarise_quantization(fixed_graph(source)))
        facts = facts_from_onnx(source)
    except ConversionError as error:
        return replace(inspection, refused=str(error))
    return replace(inspection, **_description(path, lambda: facts, source_options))


def _description(path: Path, facts: Callable[[], SourceFacts], source_options: SourceOptions | None) -> dict[str, Any]:
    """The fields of an inspection that say which detector a source is; one without a description has the problem."""
    from converters.description.statements import SourceOptions, describe_source

    try:
        described = describe_source(path, facts(), source_options or SourceOptions())
    except ConversionError as error:  # a network without a description is worth inspecting, too
        return {"spec": None, "problem": "; ".join(line.strip() for line in error.lines)}
    return {"spec": described.spec, "problem": None, "stated_by": described.stated_by, "notes": described.notes}


def inspect_onnx(path: Path, data: bytes) -> Inspection:
    """Tell what an ONNX file holds."""
    from xdet.model.graph import load_onnx

    model = load_onnx(data, str(path))
    document, problem = _read_document(model)
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inspection = Inspection(
        file=path.name,
        format="onnx",
        size_bytes=len(data),
        sha256=hash_model(data),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=_onnx_tensors([v for v in model.graph.input if v.name not in initialisers or document is not None]),
        outputs=_onnx_tensors(model.graph.output),
        operators=_counted([node.op_type for node in model.graph.node]),
        quantization=None if document is None else document.quantization,
        spec=None if document is None else document.spec,
        problem=problem,
        refused=None if document is None else _refusal(require_contract_graph, data, path.name),
        document=document,
    )
    if document is None or not document.spec.image.any_size:
        return _with_onnx_costs(inspection, model, data)
    from xdet.model.surgery import at_network_size

    try:  # costs are those of the network: what comes before depends on the photograph
        fixed = at_network_size(data, path.name)
    except ModelError as error:
        return replace(inspection, totals_problem=str(error))
    return _with_onnx_costs(inspection, load_onnx(fixed, path.name), fixed)


def _with_onnx_costs(inspection: Inspection, model: onnx.ModelProto, data: bytes) -> Inspection:
    from xdet.inspection.coverage import find_two_scales, integer_coverage
    from xdet.inspection.layers import onnx_layers, onnx_network
    from xdet.model.graph import inferred_model, require_valid

    file = inspection.file
    try:
        require_valid(model, file)
        inferred = inferred_model(model, file)
        inspection = replace(inspection, two_scales=find_two_scales(inferred.graph))
        layers = onnx_layers(inferred.graph, file)
        inspection = replace(inspection, layers=layers, totals=_totals(layers, onnx_network(inferred.graph, file)))
    except ModelError as error:
        return replace(inspection, totals_problem=str(error))
    checked = inspection.document is not None and inspection.refused is None
    if len(model.graph.node) > MOST_NODES or (not checked and holds_graphs(data)):
        limit = (
            f"ONNX Runtime optimises graphs of at most {MOST_NODES:,} operators here, none of which runs another graph"
        )
        return replace(inspection, coverage_problem=limit)
    try:
        return replace(inspection, coverage=integer_coverage(data, "cpu", file=file, inferred=inferred))
    except (ModelError, RuntimeUnavailableError) as error:  # such as a file with operators of another runtime's
        return replace(inspection, coverage_problem=str(error))


def inspect_keras(path: Path, data: bytes, layers: bool, source_options: SourceOptions | None = None) -> Inspection:  # noqa: FBT001 - called by a table
    """Tell what a Keras file holds; its costs where ``layers`` asks for them."""
    from converters.sources.keras.stored import read_keras

    model = read_keras(data, path.name)
    shape = tuple("N" if size is None else size for size in model.input_shape)
    inspection = Inspection(
        file=path.name,
        format=model.container,
        size_bytes=len(data),
        sha256=hash_model(data),
        producer=f"Keras {model.version}",
        inputs=(TensorSummary("input", "float32", shape),),
        outputs=(),
        operators=_counted([layer.kind for layer in model.layers]),
        quantization="float32",
        spec=None,
        problem="a Keras file is described when it is loaded: add --layers (needs TensorFlow)",
        totals_problem="add --layers: a Keras file has to be loaded for it, with TensorFlow",
    )
    return _with_keras_costs(inspection, path, source_options) if layers else inspection


def _with_keras_costs(inspection: Inspection, path: Path, source_options: SourceOptions | None) -> Inspection:
    """The costs of the float graph that a conversion without a head makes of it."""
    from converters.convert import convert_to_bytes
    from converters.description.statements import SourceOptions
    from converters.options import ConvertOptions
    from xdet.model.graph import load_onnx

    converted = convert_to_bytes(path, ConvertOptions(source=replace(source_options or SourceOptions(), head="none")))
    model = load_onnx(converted.model, str(path))
    inspection = replace(
        inspection,
        outputs=_onnx_tensors(model.graph.output),
        spec=converted.document.spec,
        problem=None,
        totals_problem=None,
    )
    return replace(_with_onnx_costs(inspection, model, converted.model), coverage=None)


def _refusal(require: Callable[..., None], *arguments: object) -> str | None:
    """Why another command refuses what inspection shows; None where it does not."""
    try:
        require(*arguments)
    except (ConversionError, ModelError) as error:
        return str(error)
    return None


def _totals(layers: Sequence[OperatorCost], network: Network) -> Totals:
    best = best_peak(network)
    return Totals(
        macs=sum(layer.macs for layer in layers),
        macs_integer=sum(layer.macs for layer in layers if layer.integer),
        parameters=sum(layer.parameters for layer in layers),
        weight_bytes=sum(layer.weight_bytes for layer in layers),
        peak_plain_bytes=plain_peak_bytes(network),
        peak_best_bytes=best.size_bytes,
        best_is_exact=best.exact,
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
    from xdet.model.graph import dtype_name

    summaries = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = dtype_name(tensor.elem_type) or f"unknown ({tensor.elem_type})"
        shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
        summaries.append(TensorSummary(value.name, dtype, shape))
    return tuple(summaries)


def _counted(operators: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(operators).items(), key=lambda item: (-item[1], item[0])))
