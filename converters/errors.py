"""What a conversion can raise.

::

    ConversionError                 every error of this package
    ├── OptionError                 the caller's options are incomplete or contradict the model (usage)
    ├── SourceFileError             a file (model, sidecar, yaml) is missing, damaged or not what it should be
    ├── IncompleteError             a source cannot be described whole; it holds the facts that are known
    ├── UnsupportedModelError       a sound model that holds something no importer translates
    ├── MissingExtraError           a package that this source needs is not installed
    ├── OutputError                 the result cannot be written where it was asked for
    └── ContractError               the finished graph breaks its own contract: a defect of the converter

Each message says what failed, where (file, operator, tensor), what was expected and found, and what to do. It lists the
first ``LISTED`` of many names, and how many there are besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LISTED = 10


class ReportedError(Exception):
    """Something failed; the message is written for the person who started it.

    Args:
        message: one line.
        details: further lines, where the message needs a table.
    """

    exit_code = 3

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details)
        self.lines = (message, *details)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class ConversionError(ReportedError):
    """A conversion failed."""


class OptionError(ConversionError):
    """The options are incomplete, malformed, or contradict the model."""

    exit_code = 2


class SourceFileError(ConversionError):
    """A file that the conversion reads is missing, damaged, or of another kind."""


class IncompleteError(ConversionError):
    """A source cannot be described whole.

    Args:
        error: what is in the way.
        known: the facts that are known: name, value as JSON would have it, who says it; a value of None is missing.
    """

    def __init__(self, error: ConversionError, known: Sequence[tuple[str, Any, str]]) -> None:
        super().__init__(*error.lines)
        self.known = tuple(known)


class UnsupportedModelError(ConversionError):
    """The model is sound, yet holds operators or tensor types that no importer translates."""


class MissingExtraError(ConversionError):
    """A source format needs a package of an extra that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} is not installed; install it with: pip install "xdet[{extra}]"')
        self.what, self.extra = what, extra


class OutputError(ConversionError):
    """The output exists already, or its folder cannot be written."""


class ContractError(ConversionError):
    """The finished graph does not keep the contract (docs/contract.md): a defect worth reporting."""


def join_errors(errors: Sequence[ConversionError]) -> ConversionError:
    """Several obstacles as one error: of the first one's kind, with the lines of all."""
    first, *others = errors
    if not others:
        return first
    also = [line for error in others for line in (f"also: {error.lines[0]}", *error.lines[1:])]
    return type(first)(*first.lines, *also)


def attempt_all(*attempts: Callable[[], Any]) -> list[Any]:
    """The results of all attempts.

    Raises:
        ConversionError: some fail; the errors of all of these.
    """
    results, errors = [], []
    for attempt in attempts:
        try:
            results.append(attempt())
        except ConversionError as error:
            errors.append(error)
    if errors:
        raise join_errors(errors) from errors[0]
    return results


def reason_of(error: BaseException) -> str:
    """What an error of other libraries says, in one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def counted(number: int, one: str, many: str) -> str:
    """A number with what it counts: ``1 class``, ``2 classes``."""
    return f"{number:,} {one if number == 1 else many}"


def list_some(texts: Sequence[str]) -> str:
    """The first texts of a list and how many more there are.

    >>> list_some(["a", "b"]), list_some([str(i) for i in range(100)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 90 more')
    """
    more = f" and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return ", ".join(texts[:LISTED]) + more


def quote_some(names: Sequence[str]) -> str:
    """As ``list_some``, each name quoted."""
    return list_some([repr(name) if i < LISTED else "" for i, name in enumerate(names)])
