"""A finished model, compiled by IREE for this processor. Its only importer (extra ``iree``).

The compiler takes tens of seconds per program.
"""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.errors import MissingExtraError
from xdet.model.contract import read_document
from xdet.runtimes.compiled import CompiledRuntime, require_release

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.compiled import Program
    from xdet.runtimes.processors import RuntimeChoices

OLDEST = "3.13"
WHY = "xdet is not tested with older ones"
UINT8 = 2  # TensorProto.DataType
BACK_END = "llvm-cpu"
FOR_THIS_PROCESSOR = ("--iree-llvmcpu-target-cpu=host",)


class IreeRuntime(CompiledRuntime):
    """A finished model, compiled by IREE."""

    TITLE = "IREE"
    ADVICE = "see that the file is a complete ONNX model"

    @property
    def name(self) -> str:
        """``iree:llvm-cpu``."""
        return f"iree:{BACK_END}"

    def _errors(self) -> tuple[type[Exception], ...]:
        from iree.compiler.extras.onnx_importer import OnnxImportError
        from onnx.checker import ValidationError
        from onnx.shape_inference import InferenceError

        return (
            OnnxImportError,
            ValidationError,
            InferenceError,
            RuntimeError,
            ValueError,
            TypeError,
            KeyError,
            MemoryError,
        )

    def _program(self, model: onnx.ModelProto, names: tuple[str, ...]) -> Program:
        rt = _runtime()
        config = rt.Config("local-sync" if self.threads == 1 else "local-task")
        context = rt.SystemContext(config=config)
        module = rt.VmModule.copy_buffer(context.instance, _compile(model))
        context.add_vm_module(module)
        (main,) = [name for name in module.function_names if not name.startswith("__") and "$" not in name]
        function = context.modules[module.name][main]

        def run(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
            found = function(images)
            arrays = [np.asarray(value) for value in ([found] if len(names) == 1 else found)]
            return [_unsigned(array, told) for array, told in zip(arrays, model.graph.output, strict=True)]

        return run


def open_model(model: ModelFile, choices: RuntimeChoices) -> IreeRuntime:
    """Compile a finished model."""
    _runtime()
    require_release("IREE", metadata.version("iree-base-compiler"), OLDEST, extra="iree", why=WHY)
    document = read_document(model.data, file=model.file)
    return IreeRuntime(model.data, file=model.file, document=document, threads=choices.threads)


def providers() -> tuple[str, ...]:
    """``("llvm-cpu",)``; raises ``MissingExtraError``."""
    _runtime()
    return (BACK_END,)


def _compile(model: onnx.ModelProto) -> bytes:
    """ONNX to IREE's dialect of it, by files as its importer wants them, and to its own machine code."""
    from iree.compiler.tools import CompilerToolError, compile_file
    from iree.compiler.tools.import_onnx.__main__ import main, parse_arguments

    with tempfile.TemporaryDirectory(prefix="xdet-iree-") as folder:
        source, lowered = Path(folder) / "model.onnx", Path(folder) / "model.mlir"
        source.write_bytes(model.SerializeToString())
        main(parse_arguments([str(source), "-o", str(lowered)]))
        try:
            compiled: bytes = compile_file(
                str(lowered), target_backends=[BACK_END], extra_args=list(FOR_THIS_PROCESSOR)
            )
        except CompilerToolError as error:
            raise RuntimeError(_first_error(str(error))) from error
    return compiled


def _unsigned(array: NDArray[Any], told: onnx.ValueInfoProto) -> NDArray[Any]:
    """IREE's integers have no sign; the file says which theirs is."""
    unsigned = told.type.tensor_type.elem_type == UINT8 and array.dtype == np.int8
    return array.view(np.uint8) if unsigned else array


def _first_error(text: str) -> str:
    """The compiler's first complaint: behind it follow whole graphs."""
    told = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
    return told[0] if told else text[:400]


def _runtime() -> Any:
    try:
        import iree.compiler
        import iree.runtime
    except ImportError as error:
        raise MissingExtraError("IREE", "iree") from error
    return iree.runtime
