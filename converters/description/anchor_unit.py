"""In which unit anchors are meant: said by somebody, or implied by an anchor above 1, never guessed.

The same list is meant in grid cells by one release of the zoo and as fractions of the image by another, and
no model file says which; the wrong reading gives boxes of a wrong size that look almost plausible. So a list
without a unit is refused with a message that shows both readings in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import OptionError
from converters.spec import Anchors, AnchorUnit

if TYPE_CHECKING:
    from converters.description.anchors import SizesWh
    from converters.description.facts import SourceFacts


@dataclass(frozen=True, slots=True)
class StatedAnchors:
    """A list of anchors somebody stated.

    Attributes:
        sizes_wh: (width, height) pairs.
        unit: the unit stated beside the list, None where none was.
        where: who stated it, as messages name it: ``"--anchors"``, ``"sidecar 'm.xdet.json': anchors"``.
    """

    sizes_wh: SizesWh
    unit: AnchorUnit | None
    where: str


def settle_unit(stated: StatedAnchors, unit: AnchorUnit | None, facts: SourceFacts) -> Anchors:
    """Join a list with its unit.

    Args:
        stated: the list.
        unit: the unit, where one is known.
        facts: for the pixels in the message.

    Raises:
        OptionError: the unit is unknown, or the anchors are out of range or too large for it.
    """
    if unit is None and any(max(size_wh) > 1 for size_wh in stated.sizes_wh):
        unit = "cell"
    if unit is None:
        raise OptionError(_ask_for_unit(stated, facts))
    try:
        return Anchors(stated.sizes_wh, unit)
    except ValueError as error:
        raise OptionError(f"{stated.where} with unit '{unit}': {error}") from error


def _ask_for_unit(stated: StatedAnchors, facts: SourceFacts) -> str:
    """The message: each anchor in pixels under both readings, and the line to paste."""
    cell_wh = (facts.width / facts.grid_w, facts.height / facts.grid_h)
    image_wh = (facts.width, facts.height)
    rows = [
        f"  {f'{w:g} x {h:g}':<22}{_pixels((w, h), cell_wh):<24}{_pixels((w, h), image_wh)}"
        for w, h in stated.sizes_wh
    ]
    return "\n".join(
        [
            f"'{facts.file}': the unit of the anchors ({stated.where}) is not stated; both readings are "
            f"possible in the {facts.width} x {facts.height} image:",
            f"  {'width x height':<22}{'in grid cells':<24}as fractions of the image",
            *rows,
            "Choose the one whose boxes have the size of your objects, and add one of:",
            "  --anchor-unit cell",
            "  --anchor-unit image",
        ]
    )


def _pixels(size_wh: tuple[float, float], unit_wh_px: tuple[float, float]) -> str:
    return f"{size_wh[0] * unit_wh_px[0]:.1f} x {size_wh[1] * unit_wh_px[1]:.1f} px"
