"""A finished model, compiled by IREE for this processor. Its only importer (extra ``iree``).

The compiler takes tens of seconds per program. Its NonMaxSuppression takes one class: with several it does not compile,
and several nodes of one class each give wrong rows (3.13). So heads that suppress class by class are refused. It
divides by the union of two boxes, also where that is 0, and drops the worse one: it gets boxes of no area far from each
other instead. Numeric effect: none, by the standard no such box suppresses another.
"""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters._ir import ir
from converters.graph import GraphWriter, infer_shapes
from xdet.errors import RuntimeUnavailableError, import_extra
from xdet.runtimes.compiled import CompiledRuntime, as_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.compiled import Program

BACK_END = "llvm-cpu"
FOR_THIS_PROCESSOR = ("--iree-llvmcpu-target-cpu=host",)


class IreeRuntime(CompiledRuntime):
    """A finished model, compiled by IREE."""

    TITLE, EXTRA, MODULE = "IREE", "iree", "iree.compiler"
    WHY = "older ones do not compile the suppression of boxes"

    def _release(self) -> str:
        return metadata.version("iree-base-compiler")

    def _errors(self) -> tuple[type[Exception], ...]:
        from iree.compiler.extras.onnx_importer import OnnxImportError
        from onnx.checker import ValidationError
        from onnx.shape_inference import InferenceError

        return (*super()._errors(), KeyError, OnnxImportError, ValidationError, InferenceError)

    def _program(self, model: ir.Model, names: tuple[str, ...]) -> Program:
        if self.spec.gives_boxes and self.spec.competing_classes > 1:
            raise RuntimeUnavailableError(
                f"'{self.file}': IREE suppresses boxes of one class, this head suppresses those of "
                f"{self.spec.competing_classes} classes one by one; convert the source again with `head` none or "
                f"`class_agnostic`, or use another runtime"
            )
        rt = import_extra("iree.runtime", self.TITLE, self.EXTRA)
        config = rt.Config("local-sync" if self.threads == 1 else "local-task")
        context = rt.SystemContext(config=config)
        _move_boxes_of_no_area_apart(model)
        module = rt.VmModule.copy_buffer(context.instance, _compile(as_file(model)))
        context.add_vm_module(module)
        (main,) = [name for name in module.function_names if not name.startswith("__") and "$" not in name]
        function = context.modules[module.name][main]

        def run(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
            outputs = function(images)
            arrays = [np.asarray(value) for value in ([outputs] if len(names) == 1 else outputs)]
            return [_unsigned(array, value) for array, value in zip(arrays, model.graph.outputs, strict=True)]

        return run


def open_model(model: ModelFile, choices: RuntimeChoices) -> IreeRuntime:
    """Compile a finished model."""
    return IreeRuntime(model, choices)


def _move_boxes_of_no_area_apart(model: ir.Model) -> None:
    """Let no NonMaxSuppression meet two boxes without area in one place."""
    infer_shapes(model)
    for node in [node for node in model.graph if node.op_type == "NonMaxSuppression"]:
        boxes, name = node.inputs[0], f"{node.outputs[0].name}/boxes"
        assert boxes is not None  # noqa: S101 - the checker has seen it
        assert boxes.shape is not None  # noqa: S101 - inferred
        writer = GraphWriter.inserting(model.graph, node)
        corner = 2 + 2 * np.arange(boxes.shape.numpy()[1], dtype=np.float32)
        apart = writer.constant(np.stack([corner, corner, corner + 1, corner + 1], axis=-1)[None], f"{name}:apart")
        corners = writer.constant(np.array([1, 1, 1, 1], np.int64), f"{name}:corners")
        no_area = writer.constant(np.float32(0), f"{name}:no_area")
        sides = [f"{name}:{side}" for side in ("y1", "x1", "y2", "x2")]
        y1, x1, y2, x2 = writer.ops("Split", [boxes, corners], sides, axis=2)
        height = writer.op("Sub", [y2, y1], f"{name}:height")
        width = writer.op("Sub", [x2, x1], f"{name}:width")
        area = writer.op("Mul", [height, width], f"{name}:area")
        is_flat = writer.op("Equal", [area, no_area], f"{name}:is_flat")
        node.replace_input_with(0, writer.op("Where", [is_flat, apart, boxes], name))


def _compile(model: bytes) -> bytes:
    """ONNX to IREE's dialect of it, by files as its importer wants them, and to its own machine code."""
    from iree.compiler.tools import CompilerToolError, compile_file
    from iree.compiler.tools.import_onnx.__main__ import main, parse_arguments

    with tempfile.TemporaryDirectory(prefix="xdet-iree-") as folder:
        source, lowered = Path(folder) / "model.onnx", Path(folder) / "model.mlir"
        source.write_bytes(model)
        main(parse_arguments([str(source), "-o", str(lowered)]))
        try:
            compiled: bytes = compile_file(
                str(lowered), target_backends=[BACK_END], extra_args=list(FOR_THIS_PROCESSOR)
            )
        except CompilerToolError as error:
            raise RuntimeError(_first_error(str(error))) from error
    return compiled


def _unsigned(array: NDArray[Any], value: ir.Value) -> NDArray[Any]:
    """IREE's integers have no sign; the file says which theirs is."""
    unsigned = value.dtype == ir.DataType.UINT8 and array.dtype == np.int8
    return array.view(np.uint8) if unsigned else array


def _first_error(text: str) -> str:
    """The compiler's first complaint: behind it follow whole graphs."""
    errors = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
    return errors[0] if errors else text[:400]
