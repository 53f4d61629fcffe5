"""What a source file itself tells about its detector: picture size, head size, input encoding. Every importer fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.quant import QuantParams


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The facts of one source file.

    Attributes:
        file: the file as messages name it.
        height: rows of the input picture.
        width: columns of the input picture.
        grid_h: rows of the head.
        grid_w: columns of the head.
        head_channels: channels of the head.
        input_dtype: numpy name of the input's dtype, such as ``"uint8"``.
        input_quant: the input's quantisation, None where it has none.
    """

    file: str
    height: int
    width: int
    grid_h: int
    grid_w: int
    head_channels: int
    input_dtype: str
    input_quant: QuantParams | None
