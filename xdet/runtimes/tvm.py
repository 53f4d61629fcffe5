"""A finished model, compiled by Apache TVM for this processor. Its only importer (extra ``tvm``).

The compiler takes tens of seconds per program. Nothing is tuned: times say nothing of what TVM can reach. It works
on threads of its own, one per processor unless told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters._ir import ir
from xdet.runtimes.compiled import CompiledRuntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.compiled import Program

THREADS = "runtime.config_threadpool"
BIG_CORES = 1


class TvmRuntime(CompiledRuntime):
    """A finished model, compiled by TVM."""

    TITLE, EXTRA, MODULE = "TVM", "tvm", "tvm"
    WHY = "older ones do not compile the suppression of boxes"

    def _errors(self) -> tuple[type[Exception], ...]:
        return (*super()._errors(), KeyError, AttributeError)

    def _program(self, model: ir.Model, names: tuple[str, ...]) -> Program:
        tvm = self._package
        if self.threads is not None:
            tvm.get_global_func(THREADS)(BIG_CORES, self.threads)
        from tvm.relax import VirtualMachine
        from tvm.relax.frontend.onnx import from_onnx
        from tvm.target.codegen import llvm_get_system_cpu

        target = tvm.target.Target({"kind": "llvm", "mcpu": str(llvm_get_system_cpu())})
        machine = VirtualMachine(tvm.compile(from_onnx(ir.to_proto(model)), target=target), tvm.cpu())

        def run(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
            outputs = machine["main"](tvm.runtime.tensor(images))
            return [value.numpy() for value in ([outputs] if len(names) == 1 else outputs)]

        return run


def open_model(model: ModelFile, choices: RuntimeChoices) -> TvmRuntime:
    """Compile a finished model."""
    return TvmRuntime(model, choices)
