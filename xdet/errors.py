"""What running, measuring and checking a detector can raise.

::

    XdetError                       every error of this package
    ├── UsageError                  the request itself is wrong (exit code 2)
    ├── ModelError                  a file is no model, no model of ours, or damaged
    ├── ImageError                  an image cannot be read or is of no use
    ├── DataError                   a folder or another data file is missing, empty or malformed
    ├── OutputError                 a result cannot be written
    └── RuntimeUnavailableError     a package, provider or capability that was asked for is not there
        ├── MissingExtraError       ... and one pip line brings it
        └── RuntimeCrashedError     a runtime's subprocess ended before it gave a result

``converters.ConversionError`` stands beside this tree: ``xdet.convert`` raises nothing else for bad files.
Each message says what failed, where, what was expected and found, and what to do. It names parameters as the library
calls them, between backticks (`force`); the command line writes its own options there (--force).
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

from converters.errors import ReportedError


class XdetError(ReportedError):
    """An xdet operation failed."""


class UsageError(XdetError):
    """The request itself is wrong: an option, a combination, or a value out of range."""

    exit_code = 2


class ModelError(XdetError):
    """A model file is missing, damaged, or not one this operation can use."""


class UnsoundOutputError(ModelError):
    """Boxes that break the contract: a count, coordinate, score, class or index out of range."""


class ImageError(XdetError):
    """An image is missing, damaged, or has no pixels."""


class DataError(XdetError):
    """A folder or data file is missing, empty, or malformed."""


class OutputError(XdetError):
    """A result file or folder cannot be written."""


class RuntimeUnavailableError(XdetError):
    """A runtime, execution provider or capability that was asked for is not available."""


class MissingExtraError(RuntimeUnavailableError):
    """A runtime needs a package of an extra that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} is not installed; install it with: pip install "xdet[{extra}]"')
        self.what, self.extra = what, extra


class RuntimeCrashedError(RuntimeUnavailableError):
    """A runtime's subprocess ended before it gave a result."""


@contextmanager
def converter_errors() -> Iterator[None]:
    """Turn what the converter says of a file into errors of this package."""
    from converters import errors

    try:
        yield
    except errors.OptionError as error:
        raise UsageError(*error.lines) from error
    except errors.MissingExtraError as error:
        raise MissingExtraError(error.what, error.extra) from error
    except errors.ConversionError as error:
        raise ModelError(*error.lines) from error


def import_extra(module: str, what: str, extra: str) -> Any:
    """Import a package of an extra, by its module's name.

    Args:
        module: such as ``"pyarrow"``.
        what: what it is called in the error, perhaps with what it is for.
        extra: the extra that brings it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error
