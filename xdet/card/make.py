"""A card and its pictures, on disk."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from xdet.card.content import CardContent, CardRequest, gather, picture_targets, sample_images
from xdet.card.markdown import card_text
from xdet.evaluation import evaluated_files
from xdet.outputs import PICTURE_MARK, Output, make_folder, require_apart, require_outputs, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def make_card(
    request: CardRequest,
    output: Path,
    report: Callable[[str], object] = lambda _: None,
    *,
    inputs: Sequence[Path] = (),
    force: bool = False,
) -> CardContent:
    """Measure and write a model card; its pictures go to ``<stem>-pictures`` beside it.

    Args:
        request: what the card is made from.
        output: the Markdown file.
        report: called with one line before each stage.
        inputs: further files that are read and may not be replaced, such as the notes.
        force: replace an existing card, and pictures that no card made.

    Returns:
        All that the card says.

    Raises:
        UsageError: a file exists already and ``force`` is not set, or is an input.
        OutputError: a file cannot be written.
        XdetError: a model cannot be read, run, evaluated or timed.
    """
    pictures = output.parent / f"{output.stem}-pictures"
    samples = sample_images(request)
    drawn = [Output(path, PICTURE_MARK, in_new_folder=True) for path in picture_targets(samples, pictures)]
    read = chain(inputs, samples, evaluated_files(request.files, request.images, request.annotations))
    require_outputs([Output(output), *drawn], read, force=force)
    require_apart(pictures, samples)
    make_folder(pictures)
    content = gather(request, pictures, report)
    write_text(output, card_text(content, output.parent))
    return content
