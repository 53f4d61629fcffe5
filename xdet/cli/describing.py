"""The options that describe a source model, declared once, for every command that opens one.

``@describes_source`` gives a command all of them; the command's parameter ``source_options`` gets them together.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.description.statements import SourceOptions

PANEL = "About the source model"


def _option(*names: str, **words: Any) -> Any:
    return typer.Option(*names, rich_help_panel=PANEL, **words)


DESCRIBING: dict[str, tuple[Any, Any]] = {
    "config": (
        Annotated[Path | None, _option(metavar="FILE", help="ST model zoo yaml (2.x to 4.x), or Darknet's .cfg.")],
        None,
    ),
    "anchors": (
        Annotated[
            str | None, _option(metavar="LIST|FILE", help='"w,h w,h ...", a file, or a zoo family: tiny_yolo_v2.')
        ],
        None,
    ),
    "anchor_unit": (
        Annotated[
            Literal["cell", "image", "pixel"] | None,
            _option(help="Grid cells, fractions of the image, or pixels; never guessed."),
        ],
        None,
    ),
    "classes": (
        Annotated[
            str | None,
            _option("--classes", "--class-names", metavar="LIST|FILE", help='"person,car" or a file, one per line.'),
        ],
        None,
    ),
    "resize": (
        Annotated[
            Literal["nearest", "bilinear", "bilinear-antialias", "letterbox"] | None,
            _option(help="How photographs got the network's size in training."),
        ],
        None,
    ),
    "color": (
        Annotated[
            Literal["rgb", "bgr", "grey"] | None,
            _option(help="Channels of the network's picture [default: rgb, or grey where it has one]."),
        ],
        None,
    ),
    "rescaling": (
        Annotated[str | None, _option(metavar="SCALE,OFFSET", help="Of float pixels, such as 1/255,0 or 1/127.5,-1.")],
        None,
    ),
    "input_size": (
        Annotated[
            str | None, _option(metavar="HEIGHTxWIDTH", help="Of an ONNX file that leaves its picture's size open.")
        ],
        None,
    ),
    "head": (
        Annotated[
            str,
            _option(
                metavar="auto|none|KIND", help="auto looks at the outputs; none ends at them; kinds: docs/heads.md."
            ),
        ],
        "auto",
    ),
    "priors": (
        Annotated[
            str | None,
            _option(metavar="FILE|coco-ssd|coco-ssd-fpn", help="Of an SSD head that brings none; .npy, .csv or .json."),
        ],
        None,
    ),
    "prior_format": (
        Annotated[
            Literal["yxhw", "xywh", "xyxy", "yxyx"] | None,
            _option(help="Centre and size, or two corners; fractions of the picture."),
        ],
        None,
    ),
    "variances": (
        Annotated[
            str | None, _option(metavar="V,V,V,V", help="Factors of an SSD head's offsets, such as 0.1,0.1,0.2,0.2.")
        ],
        None,
    ),
    "score_activation": (
        Annotated[Literal["none", "sigmoid", "softmax"] | None, _option(help="What an SSD head's scores still need.")],
        None,
    ),
    "class_agnostic": (
        Annotated[bool, _option("--class-agnostic", help="Boxes suppress each other across classes.")],
        False,
    ),
}
CLASS_NAMES = Annotated[
    str | None, _option("--class-names", metavar="LIST|FILE", help='Of a source: "person,car" or a file, one per line.')
]
"""In a command whose own ``--classes`` is another thing."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line says of a source model.

    Attributes:
        keywords: of ``xdet.conversion.describing_options``, those that were given.
    """

    keywords: dict[str, Any]

    def options(self) -> SourceOptions | None:
        """As the library takes it; None where nothing is said.

        Raises:
            ConversionError: a value that cannot be meant, or a file that cannot be read.
        """
        from xdet.conversion import describing_options

        return describing_options(**self.keywords) if self.keywords else None

    def files(self) -> list[Path]:
        """Files that it may name, which no output replaces."""
        return [
            Path(self.keywords[name]) for name in ("config", "anchors", "classes", "priors") if name in self.keywords
        ]


def describes_source(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of ``DESCRIBING`` in the place of its parameter ``source_options``."""
    own = inspect.signature(command, eval_str=True)
    taken = {"classes": "class_names"} if "classes" in own.parameters else {}
    names = {taken.get(name, name): name for name in DESCRIBING}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {keyword: given.pop(name) for name, keyword in names.items()}
        source_options = {name: value for name, value in values.items() if value != DESCRIBING[name][1]}
        command(**given, source_options=Said(source_options))

    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=DESCRIBING[keyword][1],
            annotation=CLASS_NAMES if name != keyword else DESCRIBING[keyword][0],
        )
        for name, keyword in names.items()
    ]
    kept = [parameter for name, parameter in own.parameters.items() if name != "source_options"]
    run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]  # read by typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    return run
