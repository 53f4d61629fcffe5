"""``--device`` and ``--provider-option`` of the commands that take ``--provider``."""

from __future__ import annotations

from typing import Annotated

import typer

from xdet.errors import UsageError

Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The provider's device, as xdet providers lists it, such as gpu or gpu:1."
    ),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Handed to the execution provider; may be given several times."),
]


def read_provider_options(words: list[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary.

    Raises:
        UsageError: a word without a key or an equals sign, or a key that stands twice.
    """
    found: dict[str, str] = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--provider-option must be KEY=VALUE, got {word!r}")
        if key in found:
            raise UsageError(f"--provider-option names {key!r} twice; give it once")
        found[key] = value
    return found
