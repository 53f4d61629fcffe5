"""What a finished model promises, checked on the finished bytes' graph before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from converters.errors import ContractError
from converters.graph import IR_VERSION, OPSET
from converters.spec import DETECTION_OUTPUTS, METADATA_KEY, DetectorSpec, ModelDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES = {
    "image": ir.DataType.UINT8,
    "score_threshold": ir.DataType.FLOAT,
    "iou_threshold": ir.DataType.FLOAT,
    "head": ir.DataType.FLOAT,
    "num_detections": ir.DataType.INT32,
    "detection_boxes": ir.DataType.FLOAT,
    "detection_scores": ir.DataType.FLOAT,
    "detection_classes": ir.DataType.INT32,
    "detection_anchors": ir.DataType.INT32,
}


def require_contract(
    model: ir.Model, proto: onnx.ModelProto, *, batch: int | str, freeze_thresholds: bool
) -> None:
    """Check a finished model against docs/contract.md.

    Raises:
        ContractError: everything that does not hold, in one message.
    """
    problems = [
        *_format_problems(model, proto),
        *_io_problems(model, batch, freeze_thresholds=freeze_thresholds),
    ]
    problems.extend(_shape_problems(model))
    if problems:
        msg = (
            "the finished graph breaks the model contract: "
            + "; ".join(problems)
            + "; please report this with the source file"
        )
        raise ContractError(msg)


def _format_problems(model: ir.Model, proto: onnx.ModelProto) -> Iterator[str]:
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        yield f"onnx.checker: {error}"
    if model.opset_imports != {"": OPSET} or model.ir_version != IR_VERSION:
        yield f"opset {dict(model.opset_imports)} and IR {model.ir_version}, expected {OPSET} and {IR_VERSION}"
    foreign = sorted({node.domain for node in model.graph if node.domain not in ("", "ai.onnx")})
    if foreign:
        yield f"operators of domains {foreign}"
    try:
        ModelDocument.from_json(model.metadata_props.get(METADATA_KEY, ""))
    except ValueError as error:
        yield f"metadata: {error}"


def _io_problems(model: ir.Model, batch: int | str, *, freeze_thresholds: bool) -> Iterator[str]:
    spec = ModelDocument.from_json(model.metadata_props[METADATA_KEY]).spec
    thresholds = [] if freeze_thresholds or spec.head == "none" else ["score_threshold", "iou_threshold"]
    inputs = {"image": (batch, spec.image.height, spec.image.width, 3), **dict.fromkeys(thresholds, ())}
    for what, values, expected in (
        ("inputs", model.graph.inputs, inputs),
        ("outputs", model.graph.outputs, _output_shapes(spec, batch)),
    ):
        found = {str(v.name): _shape(v) for v in values}
        if found != expected or list(found) != list(expected):
            yield f"{what} {found}, expected {expected}"
        yield from (f"{v.name} is {v.dtype}" for v in values if v.dtype != _TYPES.get(str(v.name)))


def _output_shapes(spec: DetectorSpec, batch: int | str) -> dict[str, tuple[int | str, ...]]:
    if spec.head == "none":
        return {"head": (batch, spec.grid_h, spec.grid_w, spec.head_channels)}
    rows = spec.thresholds.max_detections
    return dict(zip(DETECTION_OUTPUTS, [(batch,), (batch, rows, 4), *[(batch, rows)] * 3], strict=True))


def _shape(value: ir.Value) -> tuple[int | str | None, ...]:
    return (
        tuple(d if isinstance(d, int) else str(d) for d in value.shape)
        if value.shape is not None
        else (None,)
    )


def _shape_problems(model: ir.Model) -> Iterator[str]:
    """Every quantised pair is complete: codes leave a QuantizeLinear only towards what works on codes."""
    for node in model.graph:
        if node.op_type == "Conv" and any(v is not None and v.producer() is None for v in node.inputs):
            yield f"{node.name} reads a tensor that is not dequantised"
