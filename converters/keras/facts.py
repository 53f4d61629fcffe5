"""What a Keras file itself tells about its detector: picture size and head size. It never says how pixels are scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.facts import SourceFacts
from converters.errors import SourceFileError

if TYPE_CHECKING:
    from converters.keras.loading import LoadedKeras

Shapes = tuple[tuple[int | None, ...], ...]


def facts_from_keras(model: LoadedKeras) -> SourceFacts:
    """Read the facts of a Keras detector: one image in, one grid of boxes out.

    Raises:
        SourceFileError: the inputs or outputs are not those of a detector of this family, or their sizes are open.
    """
    file = model.source.file
    height, width, colours = _only(file, "input", model.input_shapes, "one image [N, height, width, 3]")
    if colours != 3:
        raise _not_of_this_family(file, "input", model.input_shapes, "one image [N, height, width, 3]")
    wanted = "one grid [N, rows, columns, anchors * (5 + classes)]"
    grid_h, grid_w, channels = _only(file, "output", model.output_shapes, wanted)
    return SourceFacts(file, height, width, grid_h, grid_w, channels, "float32", None)


def _only(file: str, side: str, shapes: Shapes, expected: str) -> tuple[int, int, int]:
    """The three sizes behind the batch of the only tensor on one side."""
    sizes = shapes[0][1:] if len(shapes) == 1 else ()
    known = tuple(size for size in sizes if size is not None)
    if len(known) != 3 or len(sizes) != 3 or min(known) < 1:
        raise _not_of_this_family(file, side, shapes, expected)
    return known[0], known[1], known[2]


def _not_of_this_family(file: str, side: str, found: Shapes, expected: str) -> SourceFileError:
    listed = ", ".join(str(["N" if n is None else n for n in shape]) for shape in found) or "none"
    open_size = any(None in shape[1:] for shape in found)
    hint = " (a size is open: build the network for one picture size, and save it again)" if open_size else ""
    return SourceFileError(
        f"'{file}' is not a detector of this family: {side} expected {expected}, found {listed}{hint}"
    )
