"""``xdet describe``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdet.cli.describing import Said, describes_source
from xdet.cli.options import Force, print_line, print_report
from xdet.writing.blocks import Report, Section, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

EPILOG = """\b
Examples:
  xdet describe person.tflite                            what is known of it, and who says so
  xdet describe net.tflite --config net.cfg --classes person --resize letterbox -o net.xdet.json
  xdet describe net.tflite --anchors "0.9,3.3 2.1,5.3" --anchor-unit cell -o net.xdet.json
"""
LONGEST = 44  # of a value in the table


@describes_source
def describe(
    source: Annotated[Path, typer.Argument(help="A source model: TFLite or Keras.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.json",
            help="Write the facts as a sidecar; as <stem>.xdet.json beside the model every command finds them.",
        ),
    ] = None,
    force: Force = False,
    source_options: Said,
) -> None:
    """Tell what is known of a source, and who says it.

    Where facts are missing it tells what is known all the same, writes nothing, and exits with 3.
    """
    from converters.description.writing import sidecar_data
    from converters.errors import IncompleteError
    from xdet.conversion import describe as describe_model

    try:
        found = describe_model(
            source, source_options=source_options.options(), output=output, force=force, inputs=source_options.files()
        )
    except IncompleteError as error:
        _print_facts((name, "" if value is None else _shown(value), who) for name, value, who in error.known)
        raise
    data = sidecar_data(found, Path() if output is None else output.parent)
    _print_facts((name, _shown(value), found.stated_by.get(name, "")) for name, value in data.items())
    for note in (*found.spec.assumptions, *found.notes):
        print_line(f"note: {note}", err=True)
    if output is not None:
        print_line(f"wrote {output}")


def _print_facts(rows: Iterable[tuple[str, str, str]]) -> None:
    table = Table(("fact", "value", "said by"), tuple(rows))
    print_report(Report("xdet describe", (Section("", (table,)),)))


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
