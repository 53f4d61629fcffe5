"""A finished model on ONNX Runtime Web (npm package ``onnxruntime-web``): what browsers run.

``wasm`` runs the WebAssembly kernels in Node, ``chromium`` runs them in a Chromium, and ``chromium-webgpu`` runs the
WebGPU kernels there, where it has an adapter.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from xdet.model.contract import read_document
from xdet.runtimes.chromium import Chromium, find_chromium
from xdet.runtimes.javascript import JavaScriptRuntime, NodeProcess, find_package, has_package

if TYPE_CHECKING:
    from xdet.model.file import ModelFile
    from xdet.runtimes.javascript import Peer
    from xdet.runtimes.processors import RuntimeChoices

PACKAGE = "onnxruntime-web"
IN_NODE = "wasm"
IN_CHROMIUM = {"chromium": "wasm", "chromium-webgpu": "webgpu"}


def open_model(model: ModelFile, choices: RuntimeChoices) -> JavaScriptRuntime:
    """Open a finished model in Node or in Chromium.

    Raises:
        RuntimeUnavailableError: Node, Chromium, an adapter or the package is not there.
        ModelError: the package cannot load the file.
    """
    package, provider = find_package(PACKAGE), str(choices.provider)
    document = read_document(model.data, file=model.file)
    peer: Peer = NodeProcess(package, provider) if provider == IN_NODE else Chromium(package, IN_CHROMIUM[provider])
    return JavaScriptRuntime(
        model.data, file=model.file, document=document, name=f"{choices.runtime}:{provider}", package=PACKAGE, peer=peer
    )


def providers() -> tuple[str, ...]:
    """Those whose program and package are here; whether there is an adapter for WebGPU shows only when it is opened."""
    if not has_package(PACKAGE):
        return ()
    node, browser = shutil.which("node") is not None, find_chromium() is not None
    return (*([IN_NODE] if node else []), *(["chromium"] if browser else []))
