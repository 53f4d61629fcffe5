"""An inspection as a report and as JSON (schema ``xdet.inspection``, docs/json.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from converters.description.precedence import TITLES
from converters.description.values import ASSUMED as ASSUMED_BY
from converters.errors import counted
from converters.spec.document import dialect_of
from xdet.writing.blocks import Facts, Report, Section, Table
from xdet.writing.files import to_json
from xdet.writing.text import format_count, format_kib, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.spec import DetectorSpec, ImageInput, ModelDocument
    from xdet.inspection import Inspection, OperatorCost, TensorSummary, Totals
    from xdet.inspection.coverage import Coverage

INSPECTION_SCHEMA = "xdet.inspection"
INSPECTION_VERSION = 1
MOST_LINES = 20  # of one kind
ASSUMED = "  (assumed: nobody states it)"


def inspection_to_json(inspection: Inspection) -> str:
    """JSON text with a final newline; the metadata document is nested as it stands in the file."""
    data = asdict(inspection)
    if inspection.spec is not None:
        data["spec"] = inspection.spec.to_dict()
    if inspection.document is not None:
        data["document"]["spec"] = inspection.document.spec.to_dict()
    return to_json(INSPECTION_SCHEMA, INSPECTION_VERSION, data)


def inspection_report(inspection: Inspection) -> Report:
    """Facts of the file; behind them the layers, where they were asked for."""
    sections = [Section("", (Facts(tuple(_lines(inspection))),))]
    if inspection.layers:
        sections.append(Section("", (layers_table(inspection.layers),)))
    return Report(f"xdet inspect: {inspection.file}", tuple(sections))


def layers_table(layers: Sequence[OperatorCost]) -> Table:
    """One line per layer; weight scales are counted, the output's scale and zero-point written out."""
    rows = (
        (
            index,
            layer.op,
            " + ".join(_shape_text(shape) for shape in layer.inputs),
            _shape_text(layer.output.shape),
            layer.output.dtype,
            layer.macs or "",
            layer.parameters or "",
            layer.weight_bytes or "",
            layer.weight_scales or "",
            layer.activation_bytes,
            "" if layer.output.scale is None else f"{layer.output.scale:.6g}",
            "" if layer.output.zero_point is None else layer.output.zero_point,
        )
        for index, layer in enumerate(layers)
    )
    headers = ("layer", "operator", "in", "out", "dtype", "MACs", "parameters", "weight bytes", "w scales")
    return Table((*headers, "activation bytes", "scale", "zero-point"), tuple(rows), keys=2)


def _totals_lines(totals: Totals) -> Iterator[tuple[str, str]]:
    """What the network costs, one line per number."""
    share = format_share(totals.macs_integer, totals.macs)
    order = "all orders searched" if totals.best_is_exact else "the file's order"
    plain, best = format_kib(totals.peak_plain_bytes), format_kib(totals.peak_best_bytes)
    yield "Weights Flash", f"{format_kib(totals.weight_bytes)}  ({totals.parameters:,} parameters, scales not counted)"
    yield "MACs", f"{format_count(totals.macs)}  ({totals.macs:,} per image, {share} on integer codes)"
    yield "Activations, plain", f"{plain} at once: a buffer per tensor, the file's order"
    yield "Activations, best", f"{best} at once: in place, convolutions fused with pools, {order}"


def _coverage_lines(coverage: Coverage) -> Iterator[tuple[str, str]]:
    """The share that runs in integers, and one line per operator that does not."""
    if coverage.macs_integer is None:
        yield "Integer coverage", f"not known: {coverage.provider} compiles the graph and does not show its kernels"
        return
    share = format_share(coverage.macs_integer, coverage.macs_total)
    yield "Integer coverage", f"{share} of the MACs run in integer kernels of ONNX Runtime ({coverage.provider})"
    yield from (("In float", f"{miss.node}: {miss.reason}") for miss in coverage.misses[:MOST_LINES])
    if len(coverage.misses) > MOST_LINES:
        yield "In float", f"{len(coverage.misses) - MOST_LINES} more (--json lists them)"


def _stated_lines(stated_by: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Who states which facts."""
    stated: dict[str, list[str]] = {}
    for fact, who in stated_by.items():
        if who != ASSUMED_BY:
            stated.setdefault(who, []).append(TITLES[fact])
    if stated:
        yield "Stated by", "; ".join(f"{who}: {', '.join(facts)}" for who, facts in stated.items())


def _lines(inspection: Inspection) -> Iterator[tuple[str, str]]:
    yield "File", f"{inspection.file}  {inspection.format}  {format_size(inspection.size_bytes)}"
    yield "SHA-256", inspection.sha256
    yield "Producer", inspection.producer or "unknown"
    yield from _tensor_lines("Input", inspection.inputs)
    yield from _tensor_lines("Output", inspection.outputs)
    yield "Operators", ", ".join(f"{name} x{count}" for name, count in inspection.operators.items())
    if inspection.quantization is not None:
        yield "Quantisation", inspection.quantization
    if inspection.totals is not None:
        yield from _totals_lines(inspection.totals)
    elif inspection.totals_problem is not None:
        yield "Costs", f"not known: {inspection.totals_problem}"
    if inspection.coverage is not None:
        yield from _coverage_lines(inspection.coverage)
    elif inspection.coverage_problem is not None:
        yield "Integer coverage", f"not known: {inspection.coverage_problem}"
    if inspection.two_scales:
        tensors = counted(len(inspection.two_scales), "tensor is", "tensors are")
        yield (
            "Two scales",
            f"{tensors} read with another scale than written with (--json lists them); compilers that keep one "
            "scale per tensor need --leaky-relu float",
        )
    if inspection.spec is not None:
        yield from _spec_lines(inspection.spec)
    yield from _stated_lines(inspection.stated_by)
    yield from (("Note", note) for note in inspection.notes)
    if inspection.refused is not None:
        yield "Refused", f"other commands do not take this file: {inspection.refused}"
    if inspection.problem is not None:
        yield "Detector", f"not described: {inspection.problem}"
    if inspection.document is not None:
        yield from _document_lines(inspection.document)


def _tensor_lines(title: str, tensors: Sequence[TensorSummary]) -> Iterator[tuple[str, str]]:
    yield from ((title, f"{tensor.name}  {tensor_text(tensor)}") for tensor in tensors[:MOST_LINES])
    if len(tensors) > MOST_LINES:
        yield title, f"{len(tensors) - MOST_LINES} more (--json lists them)"


def tensor_text(tensor: TensorSummary) -> str:
    """Type, shape and quantisation."""
    shape = f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
    return shape if tensor.scale is None else f"{shape}, scale {tensor.scale:.9g}, zero-point {tensor.zero_point}"


def _shape_text(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"


COLORS = {"rgb": "RGB", "bgr": "BGR", "grey": "grey"}


def _spec_lines(spec: DetectorSpec) -> Iterator[tuple[str, str]]:
    image = spec.image
    assumed = {name: ASSUMED if name in spec.assumed else "" for name in ("resize", "class_names")}
    inside = ", in the file: image is a photograph of any size" if image.any_size else ""
    yield "Image", f"{image.height} x {image.width} {COLORS[image.color]}, {rescaling_text(image)}"
    yield "Resize", image.resize + assumed["resize"] + inside
    yield from head_lines(spec)
    if spec.class_names:
        yield "Classes", ", ".join(spec.class_names) + assumed["class_names"]
    if spec.gives_boxes:
        limits, across = spec.thresholds, " across classes" * spec.suppression.across_classes
        several = spec.suppression.classes_per_box
        rows = "boxes" if several == 1 else f"rows, {several} classes of each box"
        yield (
            "Thresholds",
            f"score > {limits.score}, IoU > {limits.iou} suppresses{across}, at most {limits.max_detections} {rows}",
        )


def rescaling_text(image: ImageInput) -> str:
    """What the network makes of a pixel."""
    return f"pixel x {image.rescaling.scale:.9g} + {image.rescaling.offset:.9g}"


def head_lines(spec: DetectorSpec) -> Iterator[tuple[str, str]]:
    """What the head is, and where the graph ends."""
    if spec.head is not None:
        image = spec.image
        yield from ((title.capitalize(), text) for title, text in spec.head.describe(image.width, image.height))
    if not spec.gives_boxes:
        listed = ", ".join(f"{output.value_name} {list(output.shape)}" for output in spec.raw_outputs)
        yield "Ends at", f"raw outputs per image: {listed}"


def _document_lines(document: ModelDocument) -> Iterator[tuple[str, str]]:
    yield "Contract", f"version {document.contract}"
    yield "Source", f"{document.source.name}  {document.source.format}  {document.source.sha256}"
    thresholds = "frozen thresholds" if document.freeze_thresholds else "thresholds as optional inputs"
    yield (
        "Graph",
        f"target {document.target}, {document.activations} activations, leaky relu {document.leaky_relu}, {thresholds}",
    )
    dialect = dialect_of(document)
    yield "Dialect", f"{dialect.name}: {dialect.numbers}; for {dialect.wanted_by}"
    yield "Passes", ", ".join(document.passes) or "none"
    yield from (("Note", note) for note in document.notes)
