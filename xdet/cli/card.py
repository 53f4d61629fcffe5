"""``xdet card``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from xdet.cli.bench import read_numbers
from xdet.cli.describing import Said, describes_source
from xdet.cli.options import Force, print_line
from xdet.errors import DataError

LARGEST_NOTES = 1 << 20
EPILOG = """\b
Examples:
  xdet card person.tflite person.onnx --images photos --annotations annotations.json
  xdet card person.tflite person.onnx float.h5 --images photos --annotations annotations.json --notes limits.md
"""


@describes_source
def card(
    source: Annotated[Path, typer.Argument(help="The source model; differences and ratios refer to it.")],
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.onnx...", help="Finished models, and others to compare, such as the float file."),
    ],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the annotated photographs.")],
    annotations: Annotated[Path, typer.Option(metavar="COCO.json", help="Their boxes, in COCO format.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.md", help="Where to write it; pictures go beside it.")
    ] = Path("model-card.md"),
    samples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photographs to draw boxes on [default: the first three of --images]."),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.md", help="Hand-written Markdown: its beginning opens the card, its sections close it."
        ),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Runtimes to time, as in xdet bench [default: all that work here]."),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="LIST", help="Threads inside an operator, such as 1,2.")] = "1",
    blocks: Annotated[int, typer.Option(metavar="N", help="Turns of each case, as in xdet bench.")] = 5,
    protocol: Annotated[
        Literal["coco", "zoo-3", "zoo-4"], typer.Option(help="Of the average precision, as in xdet eval.")
    ] = "coco",
    force: Force = False,
    source_options: Said,
) -> None:
    """Write a model card, filled for this machine.

    It holds network, memory, time, accuracy, pictures and provenance.
    """
    from xdet.bench import BenchOptions
    from xdet.card import CardRequest, make_card

    request = CardRequest(
        source=source,
        models=tuple(models),
        images=images,
        annotations=annotations,
        samples=() if samples is None else (samples,),
        notes="" if notes is None else _read(notes),
        notes_name="" if notes is None else notes.name,
        runtimes=runtimes,
        protocol=protocol,
        bench=BenchOptions(threads=read_numbers(threads), blocks=blocks),
        source_options=source_options.options(),
    )
    content = make_card(
        request, output, _tell, inputs=(*source_options.files(), *(() if notes is None else (notes,))), force=force
    )
    print_line(f"wrote {output} and {len(content.pictures)} pictures beside it")


def _read(path: Path) -> str:
    from converters.files import read_regular

    try:
        return read_regular(path, LARGEST_NOTES).decode("utf-8")
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the notes '{path}': {reason}; give a Markdown file in UTF-8") from error


def _tell(stage: str) -> None:
    """Stages on a terminal, nothing in a pipe."""
    if sys.stderr.isatty():
        print_line(f"{stage} ...", err=True)
