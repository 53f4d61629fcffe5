"""Which packages of ONNX Runtime are installed: distributions, one per provider, and plug-ins with further providers.

All distributions write the same files: two of them overwrite each other, and removing one leaves the other in pieces.
Each case is told with the lines that repair it.

A file that ONNX Runtime did not load may be too new for it: the file's document names the oldest release that does.

Plug-ins (``onnxruntime-ep-*``) are found among the installed modules. By their makers' convention such a module is
called ``onnxruntime_ep_*`` and tells its library's path and its providers' names. ``onnxruntime_qnn``
(``onnxruntime-qnn`` from 2.0 on) keeps the convention but for its name.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from converters.spec import METADATA_KEY, ModelDocument
from converters.spec.contract import is_older
from xdet.errors import RuntimeUnavailableError
from xdet.model.wire import read_metadata

PACKAGE = "onnxruntime"
PLUGINS = ("onnxruntime_ep_", "onnxruntime_qnn")  # begin the names of their modules
OLDEST = "1.20"  # that xdet is tested with; the extra "cpu" asks for it
LOG = logging.getLogger(__name__)


def installed_distributions() -> tuple[str, ...]:
    """Names of the distributions that bring the package ``onnxruntime``, sorted."""
    from importlib import metadata  # not for every start: it loads half of the standard library

    return tuple(sorted(set(metadata.packages_distributions().get(PACKAGE, ()))))


def two_distributions() -> str | None:
    """What is wrong where several are installed, and the repair; else None."""
    names = installed_distributions()
    if len(names) < 2:
        return None
    return (
        f"{len(names)} distributions of ONNX Runtime are installed, which overwrite each other's files: "
        f"{', '.join(names)}; remove all of them and install the one that you need again: {_repair(names)}"
    )


@cache
def warn_of_two() -> None:
    """Log ``two_distributions`` once per process, where several may be here: a look at folder names costs no time."""
    folders = (path for entry in sys.path for path in Path(entry or ".").glob(f"{PACKAGE}*.dist-info"))
    if len({folder.name.partition("-")[0] for folder in folders}) > 1 and (problem := two_distributions()) is not None:
        LOG.warning("%s", problem)


def not_importable(error: ImportError) -> str:
    """Why ONNX Runtime cannot be imported, and the repair."""
    names = installed_distributions()
    if not names:
        return (
            "ONNX Runtime is not installed; install it with: pip install onnxruntime (or one distribution with the "
            "execution provider that you need, such as onnxruntime-gpu or onnxruntime-openvino)"
        )
    return (
        f"ONNX Runtime ({', '.join(names)}) cannot be imported: {' '.join(str(error).split())}; an installation in "
        f"pieces is repaired by: {_repair(names)}"
    )


def _repair(names: tuple[str, ...]) -> str:
    return f"pip uninstall -y {' '.join(names)}, then pip install {names[-1]}"


def require_new_enough(model: bytes, file: str, installed: str) -> None:
    """Refuse a finished model that names a newer ONNX Runtime; what names none passes.

    Raises:
        RuntimeUnavailableError: says both releases and how to convert for the one that is here.
    """
    try:
        document = ModelDocument.from_json(read_metadata(model).get(METADATA_KEY, ""))
    except ValueError:  # no file of ours, whose fault is another
        return
    oldest = document.oldest_runtimes.get("onnxruntime")
    if oldest is None or not is_older(installed, oldest):
        return
    other = "`target` portable" if document.target == "cpu" else "a lower `opset`"
    raise RuntimeUnavailableError(
        f"'{file}' needs ONNX Runtime {oldest} or newer, found {installed}; install a newer onnxruntime, or "
        f"convert the source again with {other}"
    )


class Plugin(NamedTuple):
    """A plug-in's library, to be registered, and the full names of the providers inside."""

    path: str
    providers: tuple[str, ...]


def installed_plugins() -> tuple[str, ...]:
    """Names of the plug-ins' modules in this environment, sorted; nothing is imported."""
    return tuple(sorted({module.name for module in pkgutil.iter_modules() if module.name.startswith(PLUGINS)}))


def read_plugin(name: str) -> Plugin:
    """What a plug-in's module tells; its library is not loaded.

    Raises:
        ImportError: the module is damaged or does not keep the convention.
    """
    module = importlib.import_module(name)
    try:
        return Plugin(str(module.get_library_path()), tuple(map(str, module.get_ep_names())))
    except AttributeError as error:
        raise ImportError(f"{name} does not tell its library and providers: {error}") from error
