"""A model card in Markdown, in the layout that engineers know from the ST model zoo, filled for the hardware at hand.

``content`` measures what it says, ``markdown`` writes it down, ``make`` puts card and pictures into files.
"""

from __future__ import annotations

from xdet.card.content import CardContent, CardRequest, Picture
from xdet.card.markdown import make_card

__all__ = ["CardContent", "CardRequest", "Picture", "make_card"]
