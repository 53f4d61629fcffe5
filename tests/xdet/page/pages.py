"""What the tests of the page need: the npm package, real or made up."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from xdet.page import ONNXRUNTIME_WEB, PACKAGE, RUNTIME_FILES


def real_package() -> Path:
    """The npm package's folder; skips by name where it is not installed in the page's release."""
    package = Path(os.environ.get("XDET_NODE_MODULES", "node_modules")) / PACKAGE
    told = package / "package.json"
    if not told.is_file() or json.loads(told.read_bytes())["version"] != ONNXRUNTIME_WEB:
        pytest.skip(f"needs npm install {PACKAGE}@{ONNXRUNTIME_WEB}, and XDET_NODE_MODULES to name its node_modules")
    return package


def empty_package(folder: Path, *, version: str = ONNXRUNTIME_WEB) -> Path:
    """A folder that looks like the npm package, with empty files."""
    package = folder / PACKAGE
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": PACKAGE, "version": version}), "utf-8")
    for name in RUNTIME_FILES:
        (package / "dist" / name).write_bytes(b"")
    return package
