"""Execution providers that come as packages of their own (``onnxruntime-ep-*``), found among the installed modules.

By their makers' convention such a module is called ``onnxruntime_ep_*`` and tells its library's path and its providers' names.
``onnxruntime_qnn`` (``onnxruntime-qnn`` from 2.0 on) keeps the convention but for its name.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

PREFIXES = ("onnxruntime_ep_", "onnxruntime_qnn")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plug-in.

    Attributes:
        name: of its module.
        path: of the library to register.
        providers: full names of the providers inside.
    """

    name: str
    path: str
    providers: tuple[str, ...]


def installed_plugins() -> tuple[str, ...]:
    """Names of the plug-ins' modules in this environment, sorted; nothing is imported."""
    return tuple(sorted({found.name for found in pkgutil.iter_modules() if found.name.startswith(PREFIXES)}))


def read_plugin(name: str) -> Plugin:
    """What a plug-in's module tells; its library is not loaded.

    Raises:
        ImportError: the module is damaged or does not keep the convention.
    """
    module = importlib.import_module(name)
    try:
        return Plugin(name, str(module.get_library_path()), tuple(map(str, module.get_ep_names())))
    except AttributeError as error:
        raise ImportError(f"{name} does not tell its library and providers: {error}") from error
