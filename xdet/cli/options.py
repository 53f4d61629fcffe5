"""How commands are declared, and the options that several share.

A command is a function (``as_command``): its keywords are options, its other parameters arguments. The section
"Options" of its docstring has their help, the section "Examples" what stands below. A parameter whose type is a
dataclass stands for that dataclass's fields: each is an option, and the function gets them together.
"""

from __future__ import annotations

import functools
import inspect
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from xdet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.description.statements import SourceOptions

_OPTIONS, _EXAMPLES = "Options:\n", "Examples:\n"

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
OutputPath = Annotated[Path, typer.Option("--output", "-o")]
OptionalOutput = Annotated[Path | None, typer.Option("--output", "-o")]


@dataclass(frozen=True)
class Running:
    """What runs a model, and where.

    Options:
        runtime NAME[:PROVIDER]: As check --runtimes names it, such as openvino [default: onnxruntime; of sources their
            own].
        provider NAME: Execution provider, see xdet providers; as NAME:PROVIDER [default: cpu].
    """

    runtime: str | None = None
    provider: str | None = None
    device: Device = None
    provider_option: ProviderOption = None
    threads: Threads = None

    @property
    def keywords(self) -> dict[str, Any]:
        """As ``xdet.Detector`` takes them."""
        keywords = vars(self).copy()
        return {"provider_options": read_provider_options(keywords.pop("provider_option")), **keywords}


@dataclass(frozen=True)
class Describing:
    """What a command line says of a source model.

    Options:
        config FILE: ST model zoo yaml (2.x to 4.x), or Darknet's .cfg.
        anchors LIST|FILE: "w,h w,h ...", a file, or a zoo family: tiny_yolo_v2.
        anchor_unit: Grid cells, fractions of the image, or pixels; never guessed.
        classes LIST|FILE: "person,car" or a file, one per line.
        resize: How photographs got the network's size in training.
        color: Channels of the network's picture [default: rgb, or grey where it has one].
        rescaling SCALE,OFFSET: Of float pixels, such as 1/255,0 or 1/127.5,-1.
        input_size HEIGHTxWIDTH: Of an ONNX file that leaves its picture's size open.
        head auto|none|KIND: auto looks at the outputs; none ends at them; kinds: docs/heads.md.
        priors FILE|coco-ssd|coco-ssd-fpn: Of an SSD head that brings none; .npy, .csv or .json.
        prior_format: Centre and size, or two corners; fractions of the picture.
        variances V,V,V,V: Factors of an SSD head's offsets, such as 0.1,0.1,0.2,0.2.
        score_activation: What an SSD head's scores still need.
        class_agnostic: Boxes suppress each other across classes.
    """

    config: Path | None = None
    anchors: str | None = None
    anchor_unit: Literal["cell", "image", "pixel"] | None = None
    classes: Annotated[str | None, typer.Option("--classes", "--class-names")] = None
    resize: Literal["nearest", "bilinear", "bilinear-antialias", "letterbox"] | None = None
    color: Literal["rgb", "bgr", "grey"] | None = None
    rescaling: str | None = None
    input_size: str | None = None
    head: str = "auto"
    priors: str | None = None
    prior_format: Literal["yxhw", "xywh", "xyxy", "yxyx"] | None = None
    variances: str | None = None
    score_activation: Literal["none", "sigmoid", "softmax"] | None = None
    class_agnostic: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        """Of ``xdet.describing_options``, those that were given."""
        return {field.name: value for field in fields(self) if (value := vars(self)[field.name]) != field.default}

    def options(self) -> SourceOptions | None:
        """As the library takes it; None where nothing is said."""
        from xdet.conversion import describing_options

        return describing_options(**self.keywords) if self.keywords else None

    def files(self) -> list[Path]:
        """Files that it may name, which no output replaces."""
        return [Path(name) for name in (self.config, self.anchors, self.classes, self.priors) if name is not None]


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """A function as Typer takes it: its parameters, with the fields of those that are dataclasses in their place."""
    declared = _parameters(function)
    groups: dict[str, Any] = {
        name: parameter.annotation for name, parameter in declared.items() if is_dataclass(parameter.annotation)
    }
    members = {name: _parameters(group) for name, group in groups.items()}

    @functools.wraps(function)
    def run(**values: Any) -> None:
        made = {name: groups[name](**{member: values.pop(member) for member in members[name]}) for name in groups}
        function(**values, **made)

    parameters = [
        each for name, parameter in declared.items() for each in members.get(name, {name: parameter}).values()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = inspect.cleandoc(function.__doc__ or "").partition(_OPTIONS)[0].strip()
    return run


def read_examples(function: Callable[..., None]) -> str:
    """The section "Examples" of a command's docstring, as it stands below its help."""
    examples = dedent(inspect.cleandoc(function.__doc__ or "").partition(_EXAMPLES)[2])
    return f"\b\n{_EXAMPLES}{indent(examples, '  ')}"


def _parameters(declaration: Any) -> dict[str, inspect.Parameter]:
    """Of a function or a dataclass, annotated for Typer."""
    types, texts = get_type_hints(declaration, include_extras=True), _read_texts(declaration)
    parameters = {}
    for name, parameter in inspect.signature(declaration).parameters.items():
        kind, annotation = parameter.kind, types[name]
        if is_dataclass(declaration):
            kind = inspect.Parameter.KEYWORD_ONLY
        if not is_dataclass(annotation):
            value, declared = get_args(annotation) if get_origin(annotation) is Annotated else (annotation, None)
            flag = [f"--{name.replace('_', '-')}"] if value is bool else []  # without its --no- twin
            new = typer.Option(*flag) if kind is inspect.Parameter.KEYWORD_ONLY else typer.Argument()
            info = copy(declared) or new
            if name in texts:
                info.metavar, info.help = texts[name]
            annotation = Annotated[value, info]
        parameters[name] = parameter.replace(kind=kind, annotation=annotation)
    return parameters


def _read_texts(declaration: Any) -> dict[str, tuple[str | None, str]]:
    """Metavar and help of each option, as the section of docstrings has them: ``name METAVAR: help``."""
    texts: dict[str, tuple[str | None, str]] = {}
    classes = reversed(declaration.__mro__) if isinstance(declaration, type) else [declaration]
    for docstring in (each.__doc__ or "" for each in classes):
        name = ""
        for line in inspect.cleandoc(docstring).partition(_OPTIONS)[2].partition("\n\n")[0].splitlines():
            if line.startswith(" " * 8):
                texts[name] = (texts[name][0], f"{texts[name][1]} {line.strip()}")
            else:
                head, _, text = line.strip().partition(": ")
                name, _, metavar = head.partition(" ")
                texts[name] = (metavar or None, text)
    return texts


def read_provider_options(words: list[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary."""
    options: dict[str, str] = {}
    for word in words or []:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--provider-option must be KEY=VALUE, got {word!r}")
        if key in options:
            raise UsageError(f"--provider-option names {key!r} twice; give it once")
        options[key] = value
    return options
