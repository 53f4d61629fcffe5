"""A finished model on tract, an inference engine in Rust. Its only importer (extra ``tract``).

tract takes initialisers for what they are at load, so thresholds are constants. It works on one thread. A Softmax
between codes it computes wrong without a word (0.23): such files are refused.
"""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from xdet.errors import RuntimeUnavailableError
from xdet.model.graph import readers_of
from xdet.runtimes.compiled import CompiledRuntime, as_file

if TYPE_CHECKING:
    import onnx_ir as ir

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.compiled import Program


class TractRuntime(CompiledRuntime):
    """A finished model on tract."""

    TITLE, EXTRA, MODULE = "tract", "tract", "tract"
    WHY = "older ones do not load finished files, or compute heads up to 167 steps off without a word"
    ADVICE = "where the file holds int8 activations, convert the source without --activations int8"

    def _release(self) -> str:
        return metadata.version("tract")

    def _errors(self) -> tuple[type[Exception], ...]:
        return (*super()._errors(), self._package.TractError)

    def _program(self, model: ir.Model, names: tuple[str, ...]) -> Program:
        del names  # the model's outputs are these
        shares = [node.outputs[0] for node in model.graph if node.op_type == "Softmax"]
        wrong = [v for v in shares if any(node.op_type == "QuantizeLinear" for node in readers_of(v))]
        if wrong:
            raise RuntimeUnavailableError(
                f"'{self.file}': tract computes a Softmax of codes wrong ({wrong[0].name!r}); use another runtime"
            )
        with tempfile.TemporaryDirectory(prefix="xdet-tract-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(as_file(model))
            runnable = self._package.onnx().load(path).into_model().into_runnable()
        return lambda images: [value.to_numpy() for value in runnable.run([images])]


def open_model(model: ModelFile, choices: RuntimeChoices) -> TractRuntime:
    """Open a finished model on tract."""
    return TractRuntime(model, choices)
