"""What several commands share: options, each declared once, printing, and the progress bar.

A command's parameter whose type is a dataclass stands for that dataclass's fields: each is an option of the command
(``with_groups``), and the command gets them together.

``--json FILE`` goes to a file, whole or not at all, or to stdout for ``-``. A progress bar shows on a terminal and not
in a pipe.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from xdet.errors import UsageError
from xdet.writing.files import Output, encode_text, json_mark, write_text
from xdet.writing.text import message_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from converters.description.statements import SourceOptions
    from xdet.writing.blocks import Report

Result = TypeVar("Result")
STDOUT = Path("-")
_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")

Force = Annotated[
    bool, typer.Option("--force", help="Replace existing files that xdet did not make, too; never an input.")
]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JSON; - is stdout.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The provider's device, as xdet providers lists it, such as gpu or gpu:1."),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Handed to the execution provider; may be given several times."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Threads inside an operator [default: the runtime's, shared among workers]."),
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Photographs worked on at the same time [default: one per processor, at most 8]."),
]


@dataclass(frozen=True)
class Running:
    """What runs a model, and where."""

    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:PROVIDER]",
            help="As check --runtimes names it, such as openvino [default: onnxruntime; of sources their own].",
        ),
    ] = None
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Execution provider, see xdet providers; as NAME:PROVIDER [default: cpu]."),
    ] = None
    device: Device = None
    provider_option: ProviderOption = None
    threads: Threads = None

    @property
    def keywords(self) -> dict[str, Any]:
        """As ``xdet.Detector`` takes them."""
        given = vars(self).copy()
        return {"provider_options": read_provider_options(given.pop("provider_option")), **given}


@dataclass(frozen=True)
class Describing:
    """What a command line says of a source model."""

    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="ST model zoo yaml (2.x to 4.x), or Darknet's .cfg.")
    ] = None
    anchors: Annotated[
        str | None, typer.Option(metavar="LIST|FILE", help='"w,h w,h ...", a file, or a zoo family: tiny_yolo_v2.')
    ] = None
    anchor_unit: Annotated[
        Literal["cell", "image", "pixel"] | None,
        typer.Option(help="Grid cells, fractions of the image, or pixels; never guessed."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option("--classes", "--class-names", metavar="LIST|FILE", help='"person,car" or a file, one per line.'),
    ] = None
    resize: Annotated[
        Literal["nearest", "bilinear", "bilinear-antialias", "letterbox"] | None,
        typer.Option(help="How photographs got the network's size in training."),
    ] = None
    color: Annotated[
        Literal["rgb", "bgr", "grey"] | None,
        typer.Option(help="Channels of the network's picture [default: rgb, or grey where it has one]."),
    ] = None
    rescaling: Annotated[
        str | None, typer.Option(metavar="SCALE,OFFSET", help="Of float pixels, such as 1/255,0 or 1/127.5,-1.")
    ] = None
    input_size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Of an ONNX file that leaves its picture's size open.")
    ] = None
    head: Annotated[
        str,
        typer.Option(
            metavar="auto|none|KIND", help="auto looks at the outputs; none ends there; kinds: docs/heads.md."
        ),
    ] = "auto"
    priors: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|coco-ssd|coco-ssd-fpn", help="Of an SSD head that brings none; .npy, .csv or .json."
        ),
    ] = None
    prior_format: Annotated[
        Literal["yxhw", "xywh", "xyxy", "yxyx"] | None,
        typer.Option(help="Centre and size, or two corners; fractions of the picture."),
    ] = None
    variances: Annotated[
        str | None, typer.Option(metavar="V,V,V,V", help="Factors of an SSD head's offsets, such as 0.1,0.1,0.2,0.2.")
    ] = None
    score_activation: Annotated[
        Literal["none", "sigmoid", "softmax"] | None, typer.Option(help="What an SSD head's scores still need.")
    ] = None
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Boxes suppress each other across classes.")
    ] = False

    @property
    def keywords(self) -> dict[str, Any]:
        """Of ``xdet.describing_options``, those that were given."""
        return {field.name: value for field in fields(self) if (value := vars(self)[field.name]) != field.default}

    def options(self) -> SourceOptions | None:
        """As the library takes it; None where nothing is said.

        Raises:
            ConversionError: a value that cannot be meant, or a file that cannot be read.
        """
        from xdet.conversion import describing_options

        return describing_options(**self.keywords) if self.keywords else None

    def files(self) -> list[Path]:
        """Files that it may name, which no output replaces."""
        return [Path(name) for name in (self.config, self.anchors, self.classes, self.priors) if name is not None]


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with the fields of its parameters that are dataclasses as options of its own."""
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation for name, parameter in own.parameters.items() if is_dataclass(parameter.annotation)
    }
    members: dict[str, list[inspect.Parameter]] = {}
    for name, group in groups.items():
        types = get_type_hints(group, include_extras=True)
        members[name] = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
            for f in fields(group)
        ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {name: groups[name](**{m.name: values.pop(m.name) for m in members[name]}) for name in groups}
        command(**values, **made)

    parameters = [each for name, parameter in own.parameters.items() for each in members.get(name, [parameter])]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def read_provider_options(words: list[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary.

    Raises:
        UsageError: a word without a key or an equals sign, or a key that stands twice.
    """
    options: dict[str, str] = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--provider-option must be KEY=VALUE, got {word!r}")
        if key in options:
            raise UsageError(f"--provider-option names {key!r} twice; give it once")
        options[key] = value
    return options


@contextmanager
def progress_bar(label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show on stderr how much is done; yields ``advance(done)``, or ``advance(done, total)`` where no total is given."""
    hidden = total == 0 or not sys.stderr.isatty()
    length = 1 if total is None else total
    with typer.progressbar(length=length, label=label, file=sys.stderr, show_pos=True, hidden=hidden) as bar:

        def advance(done: int, whole: int | None = None) -> None:
            bar.length = whole or bar.length
            bar.update(done)

        yield advance


def print_line(text: str, *, err: bool = False) -> None:
    """One line on the terminal, whatever names are in it."""
    typer.echo(with_options(message_line(text)), err=err)


def with_options(text: str) -> str:
    """What the library says of its parameters, as the command line calls them: `anchor_unit` is --anchor-unit."""
    return _PARAMETER.sub(
        lambda match: f"--{match[1].replace('_', '-')}" if match[1] in _parameters() else match[0], text
    )


@functools.cache
def _parameters() -> frozenset[str]:
    """The parameters of all commands."""
    from xdet.cli.app import build_app

    group = typer.main.get_command(build_app())
    commands = getattr(group, "commands", {}).values()
    return frozenset(str(parameter.name) for command in commands for parameter in command.params)


def print_report(report: Report) -> None:
    """A report, as wide as the terminal or COLUMNS says; in a pipe that says nothing, each sentence and row is one line."""
    from xdet.writing.terminal import report_text

    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    typer.echo(with_options(report_text(report, shutil.get_terminal_size().columns if has_width else None)))


def print_result(
    result: Result, json: Path | None, to_json: Callable[[Result], str], to_report: Callable[[Result], Report]
) -> None:
    """A result as JSON where ``--json`` asks for it, and as a report, unless the JSON went to stdout."""
    if json is not None:
        write_json(json, to_json(result))
    if json != STDOUT:
        print_report(to_report(result))


def json_outputs(target: Path | None, schema: str | None) -> list[Output]:
    """``--json`` as the outputs of a command: none, or one file, whose earlier version is known by its schema."""
    if target is None or target == STDOUT:
        return []
    return [Output(target, None if schema is None else json_mark(schema))]


def write_json(target: Path, text: str) -> None:
    r"""Write JSON text (with its final newline) to ``target``; ``-`` is stdout. The bytes are the same: UTF-8, ``\n``."""
    if target != STDOUT:
        write_text(target, text)
        return
    sys.stdout.flush()  # what was printed before comes first
    sys.stdout.buffer.write(encode_text(text))
    sys.stdout.buffer.flush()
