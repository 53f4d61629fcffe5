"""A card and its pictures, on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdet.card.content import CardContent, CardRequest, gather
from xdet.card.markdown import card_text
from xdet.outputs import make_folder, require_target, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_card(
    request: CardRequest, output: Path, report: Callable[[str], object] = lambda _: None
) -> CardContent:
    """Measure and write a model card; its pictures go to ``<stem>-pictures`` beside it.

    Args:
        request: what the card is made from.
        output: the Markdown file; replaced if it is there.
        report: called with one line before each stage.

    Returns:
        All that the card says.

    Raises:
        OutputError: a file cannot be written.
        XdetError: a model cannot be read, run, evaluated or timed.
    """
    require_target(output)
    pictures = output.parent / f"{output.stem}-pictures"
    make_folder(pictures)
    content = gather(request, pictures, report)
    write_text(output, card_text(content, output.parent))
    return content
