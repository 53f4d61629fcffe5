"""A finished model on ONNX Runtime for Node (npm package ``onnxruntime-node``): the CPU's kernels behind another language."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from xdet.model.contract import read_document
from xdet.runtimes.javascript import JavaScriptRuntime, NodeProcess, find_package, has_package

if TYPE_CHECKING:
    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices

PACKAGE = "onnxruntime-node"


def open_model(model: ModelFile, choices: RuntimeChoices) -> JavaScriptRuntime:
    """Open a finished model in Node.

    Raises:
        RuntimeUnavailableError: Node or the package is not there.
        ModelError: the package cannot load the file.
    """
    return JavaScriptRuntime(
        model.data,
        file=model.file,
        document=read_document(model.data, file=model.file),
        name=f"{choices.runtime}:{choices.provider}",
        package=PACKAGE,
        peer=NodeProcess(find_package(PACKAGE), str(choices.provider)),
    )


def providers() -> tuple[str, ...]:
    """``("cpu",)`` where Node and the package are here, else nothing."""
    return ("cpu",) if has_package(PACKAGE) and shutil.which("node") else ()
