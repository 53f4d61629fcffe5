"""onnx_ir without sympy, which it imports for arithmetic on symbolic sizes: a third of a short conversion, for nothing.

Both modules are executed when one of their attributes is first read, in the caller's program, too. Whoever imports
onnx_ir before this module has loaded them, and nothing changes.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.util import LazyLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

LATER = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class _Later(MetaPathFinder):
    """Finds the modules of ``LATER``, with a loader that waits."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


_later = _Later()
sys.meta_path.insert(0, _later)
try:
    import onnx_ir as ir
finally:
    sys.meta_path.remove(_later)

__all__ = ["ir"]
