"""From a model file to the runtime that runs it: a literal table, one row per runtime and one module behind each row.

Whoever adds a runtime writes that module and that row, and nothing else. A row states all that the rest of xdet asks
about the runtime. The module is imported when the runtime is first opened, so a package that is not installed costs
nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

from converters.spec import ResizeRule
from converters.spec.contract import ANY_SIZE_RULES
from xdet.errors import MissingExtraError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import read_document, read_model_file
from xdet.runtimes.base import RuntimeChoices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.spec import Target
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import Runtime

DEFAULTS = RuntimeChoices()
Rule = Literal["suppresses_at_equality", "breaks_ties_anyhow", "rounds_steps"]


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """What is known of a runtime before it is opened. "Provider" is a provider, a device or a set of kernels."""

    module: str  # dotted name of the module behind the row
    package: str  # the module that must be installed, whose distributions reports name; "" where Python sees none
    extra: str | None = None  # of xdet, which installs the package; None where that is no extra's business
    formats: tuple[str, ...] = ("onnx",)  # of the files it takes
    only: tuple[str, ...] = ()  # its providers, where they are always the same; the first is the usual one
    checked: tuple[str, ...] = ()  # providers that a check runs where no runtime is named
    trusted: tuple[str, ...] = ()  # providers that a check runs in this process; all others may crash
    subprocess: bool = False  # it crashes on hostile files, so it always runs in a subprocess
    most_images: int | None = None  # that a check gives it, because it is slow; None for any number
    slow: tuple[str, ...] = ()  # the providers that most_images is for, where not for all: minutes per image
    deployed: bool = False  # products use it; a model card lists it
    takes_options: bool = False  # provider_options and device
    target: Target | None = None  # whose graphs it runs fastest, where measured: a benchmark of targets runs it, too
    shows_nodes: bool = False  # which nodes it makes of a graph, where each of them runs, and how long
    feeds_thresholds: bool = True  # at run time; otherwise other thresholds need a copy frozen at them
    # Providers that round every step of float32 arithmetic, as the standard says, so that the picture inside a file for
    # any size has the bits of xdet's own.
    rounds_steps: tuple[str, ...] = ()
    any_size: tuple[str, ...] = get_args(ResizeRule)  # the rules that it takes inside files for photographs of any size
    # documented in docs/contract.md: to drop a box whose IoU *equals* the threshold; and to choose any of the boxes
    # with equal scores at the limit of candidates
    suppresses_at_equality: tuple[str, ...] = ()
    breaks_ties_anyhow: tuple[str, ...] = ()

    @property
    def usual(self) -> str:
        """The provider where the runtime's name stands alone."""
        return self.only[0] if self.only else "cpu"

    @property
    def installed(self) -> bool:
        """Whether its package is here; it is not imported."""
        return not self.package or find_spec(self.package) is not None

    def load(self) -> RuntimeModule:
        """The module behind the row."""
        return cast("RuntimeModule", import_module(self.module))


class RuntimeModule(Protocol):
    """What the module behind a row offers."""

    def open_model(self, model: ModelFile, choices: RuntimeChoices) -> Runtime:
        """Open a file of one of the row's formats, with runtime and provider named; raises as ``open_runtime``."""

    def providers(self, runtime: str) -> tuple[str, ...]:
        """What can stand behind a runtime's name and a colon here; raises ``MissingExtraError``.

        A module has it where the row does not tell: without ``only``, or without a package that Python sees.
        """


def open_runtime(path: Path, choices: RuntimeChoices = DEFAULTS) -> Runtime:
    """Open a model file, finished or source; without a runtime's name, on the first of ``RUNTIMES`` that takes it.

    Raises:
        ModelError: the file cannot be read, or is no model that xdet runs.
        RuntimeUnavailableError: the provider or the runtime's package is not there.
        UsageError: the runtime that was named does not take this kind of file, or no options.
    """
    return open_model(read_model_file(path), choices)


def open_model(model: ModelFile, choices: RuntimeChoices = DEFAULTS, *, subprocess: bool | None = None) -> Runtime:
    """Open a model that is in memory already, in a subprocess or not; None is what the runtime's row says.

    Raises:
        RuntimeCrashedError: the subprocess ended while it opened the model.
        XdetError: as ``open_runtime``.
    """
    choices = require_choices(choices, model.format, file=model.file)
    row = RUNTIMES[str(choices.runtime)]
    if row.any_size != get_args(ResizeRule) and _rule_inside(model) not in (None, *row.any_size):
        others = f"of those it takes {', '.join(row.any_size)}; " if row.any_size else ""
        raise RuntimeUnavailableError(
            f"'{model.file}' takes photographs of any size with resize {_rule_inside(model)}, which {choices.runtime} "
            f"does not compile: {others}convert the source without `any_size`, and a file of fixed size runs there"
        )
    try:
        if row.subprocess if subprocess is None else subprocess:
            from xdet.runtimes.subprocess_runtime import SubprocessRuntime

            return SubprocessRuntime(model, choices, row.module)
        return row.load().open_model(model, choices)
    except ModelError as error:
        if _rule_inside(model) is None:
            raise
        advice = "the file takes photographs of any size: without `any_size` it may load here"
        raise ModelError(f"{error}; {advice}") from error


def require_choices(choices: RuntimeChoices, model_format: str | None, *, file: str) -> RuntimeChoices:
    """Choices with runtime and provider named, once they fit the table and a file's format, None where it has none.

    Raises:
        XdetError: as ``open_runtime``.
    """
    takers = [name for name, row in RUNTIMES.items() if model_format in row.formats]
    if not takers:
        formats = dict.fromkeys(name for row in RUNTIMES.values() for name in row.formats)
        raise ModelError(
            f"'{file}' is not a model: its bytes are none of {', '.join(formats)}; "
            f"give an ONNX file made by xdet convert, or a TFLite, Keras or ONNX detector"
        )
    name = choices.runtime or takers[0]
    if name not in takers:
        require_runtime(name)
        raise UsageError(
            f"'{file}' is a file of format {model_format}, which the runtime {name!r} does not take "
            f"(it takes {', '.join(RUNTIMES[name].formats)}); choose {' or '.join(takers)}"
        )
    row = RUNTIMES[name]
    if (choices.provider_options or choices.device) and not row.takes_options:
        raise UsageError(
            f"'{file}' runs on {name}: options and devices are those of ONNX Runtime's execution providers; "
            f"leave them out, or run an ONNX file there"
        )
    provider = choices.provider or row.usual
    if row.only and (provider := provider.lower()) not in row.only:
        instead = "" if "onnx" in row.formats else "; or convert the file to use ONNX Runtime's providers"
        raise RuntimeUnavailableError(
            f"{choices.provider!r} is not available for '{file}', which runs on {name}: it has "
            f"{', '.join(row.only)}; choose one of these, or leave it out{instead}"
        )
    if row.extra is not None and not row.installed:
        raise MissingExtraError(f"{row.package}, which runs {' and '.join(row.formats)} files,", row.extra)
    return replace(choices, runtime=name, provider=provider)


def _rule_inside(model: ModelFile) -> ResizeRule | None:
    """The resize rule of a finished file for photographs of any size; None for others, and where it cannot be read."""
    if not model.is_finished:
        return None
    try:
        image = read_document(model.data, file=model.file).spec.image
    except ModelError:  # which opening the file tells
        return None
    return image.resize if image.any_size else None


def parse_runtimes(text: str, *, threads: int | None = None) -> tuple[RuntimeChoices, ...]:
    """Read a list such as ``"onnxruntime:cpu,litert:xnnpack"``; a name alone takes its usual provider or kernels.

    Raises:
        UsageError: an unknown or empty name, or one that stands there twice.
    """
    words = [word.strip().lower() for word in text.split(",")]
    doubles = sorted({word for word in words if words.count(word) > 1})
    if doubles:
        raise UsageError(f"{', '.join(map(repr, doubles))} stands twice in {text!r}; name every runtime once")
    chosen = []
    for word in words:
        name, colon, provider = word.partition(":")
        require_runtime(name)
        if colon and not provider:
            raise UsageError(f"{word!r} names nothing behind its colon; write {name!r}, or one of its kinds")
        chosen.append(RuntimeChoices(name, provider or None, threads))
    return tuple(chosen)


def split_runtime(runtime: str | None, provider: str | None) -> tuple[str | None, str | None]:
    """The names behind ``--runtime NAME[:PROVIDER]`` and ``--provider``; None where nothing is said.

    Raises:
        UsageError: an unknown name, several, or two providers.
    """
    if runtime is None:
        return None, provider
    named = parse_runtimes(runtime)
    if len(named) > 1:
        raise UsageError(f"one runtime at a time, got {runtime!r}; name one, and call again for the others")
    if named[0].provider is not None and provider is not None:
        raise UsageError(
            f"{runtime!r} names a provider, and `provider` {provider!r} another one; leave out one of the two"
        )
    return named[0].runtime, named[0].provider or provider


def usual_runtime(model_format: str | None, threads: int | None = None) -> RuntimeChoices:
    """The first of ``RUNTIMES`` that takes a format of the tables, with its usual provider or kernels."""
    name, row = next((name, row) for name, row in RUNTIMES.items() if model_format in row.formats)
    return RuntimeChoices(name, row.usual, threads)


def runtimes_for(model_format: str) -> tuple[str, ...]:
    """What can run files of this format here, as ``parse_runtimes`` reads it; back ends not installed are left out."""
    return tuple(
        f"{name}:{provider}"
        for name, row in RUNTIMES.items()
        if model_format in row.formats
        for provider in providers_here(name)
    )


def providers_here(runtime: str) -> tuple[str, ...]:
    """The providers that a runtime of the table has here; none where its package is not installed."""
    row = RUNTIMES[runtime]
    if not row.installed:
        return ()
    return row.only if row.only and row.package else row.load().providers(runtime)


def require_runtime(name: str) -> None:
    """Refuse a name that is not in ``RUNTIMES``."""
    if name not in RUNTIMES:
        raise UsageError(f"there is no runtime {name!r}; choose among {', '.join(RUNTIMES)}")


def row_of(runtime: str) -> RuntimeRow | None:
    """The row of a runtime, as reports name it (``"onnxruntime:openvino (device=gpu)"``); None for a caller's own."""
    return RUNTIMES.get(runtime.partition(":")[0])


def most_images(runtime: str) -> int | None:
    """The most images that a check gives a runtime, as reports name it; None for any number."""
    row = row_of(runtime)
    return row.most_images if row is not None and (not row.slow or _is_among(row.slow, runtime)) else None


def has_rule(runtime: str, rule: Rule) -> bool:
    """Whether a runtime, as reports name it, does what a field of ``RuntimeRow`` lists its providers for."""
    row = row_of(runtime)
    return row is not None and _is_among(getattr(row, rule), runtime)


def _is_among(providers: tuple[str, ...], runtime: str) -> bool:
    return runtime.partition(":")[2].partition(" ")[0] in providers


def installed_versions(*others: str) -> dict[str, str]:
    """Versions of the distributions behind the runtimes, and of ``others``, where installed; sorted by name."""
    from importlib import metadata  # not for every start: it loads half of the standard library

    versions = {}
    packages = {row.package for row in RUNTIMES.values() if row.package}
    for name in sorted({*others, *(name for package in packages for name in _distributions_of(package))}):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _distributions_of(package: str) -> Iterator[str]:
    """Names of the distributions that bring a package: ONNX Runtime's are many, and all begin with its own.

    ``packages_distributions`` tells the same and takes 1.5 s: it reads the list of files of every distribution.
    """
    from importlib import metadata

    for folder in sys.path:
        for path in Path(folder or ".").glob(f"{package}*.dist-info"):
            brought = metadata.Distribution.at(path)
            if f"{package}/__init__.py," in (brought.read_text("RECORD") or ""):
                yield str(brought.metadata["Name"])


RUNTIMES: dict[str, RuntimeRow] = {
    "onnxruntime": RuntimeRow(
        module="xdet.runtimes.onnxruntime",
        package="onnxruntime",
        checked=("cpu",),
        trusted=("cpu",),
        deployed=True,
        takes_options=True,
        target="cpu",
        shows_nodes=True,
        suppresses_at_equality=("openvino",),
        breaks_ties_anyhow=("openvino",),
        rounds_steps=("cpu",),
    ),
    "onnxruntime-unfused": RuntimeRow(  # every operator in float32 between its pairs, as the standard says it
        module="xdet.runtimes.onnxruntime",
        package="onnxruntime",
        only=("cpu",),
        trusted=("cpu",),
        takes_options=True,
        rounds_steps=("cpu",),
    ),
    "openvino": RuntimeRow(
        module="xdet.runtimes.openvino",
        package="openvino",
        extra="openvino",
        checked=("cpu",),
        deployed=True,
        target="portable",
        feeds_thresholds=False,  # it folds the optional inputs into constants
        suppresses_at_equality=("cpu", "gpu", "npu"),
        breaks_ties_anyhow=("cpu", "gpu", "npu"),
    ),
    "onnx-reference": RuntimeRow(
        module="xdet.runtimes.onnx_reference",
        package="onnx",
        only=("numpy",),
        trusted=("numpy",),
        most_images=2,
        rounds_steps=("numpy",),
    ),
    "opencv": RuntimeRow(
        module="xdet.runtimes.opencv",
        package="cv2",
        extra="opencv",
        only=("cpu",),
        subprocess=True,
        deployed=True,
        feeds_thresholds=False,
        any_size=ANY_SIZE_RULES["opencv"],
        rounds_steps=("cpu",),
    ),
    "tract": RuntimeRow(
        module="xdet.runtimes.tract",
        package="tract",
        extra="tract",
        only=("cpu",),
        subprocess=True,
        deployed=True,
        feeds_thresholds=False,
        any_size=ANY_SIZE_RULES["tract"],
        rounds_steps=("cpu",),
    ),
    "tvm": RuntimeRow(
        module="xdet.runtimes.tvm",
        package="tvm",
        extra="tvm",
        only=("cpu",),
        subprocess=True,
        most_images=2,
        feeds_thresholds=False,
        any_size=ANY_SIZE_RULES["tvm"],
        suppresses_at_equality=("cpu",),
    ),
    "iree": RuntimeRow(
        module="xdet.runtimes.iree",
        package="iree",
        extra="iree",
        only=("llvm-cpu",),
        subprocess=True,
        most_images=2,
        feeds_thresholds=False,
        any_size=ANY_SIZE_RULES["iree"],
    ),
    "onnxruntime-web": RuntimeRow(
        module="xdet.runtimes.javascript",
        package="",  # Node's
        only=("wasm", "chromium", "chromium-webgpu"),
        trusted=("wasm", "chromium", "chromium-webgpu"),  # Node and Chromium are processes of their own
        most_images=2,
        feeds_thresholds=False,  # WebAssembly throws on optional inputs
        rounds_steps=("wasm", "chromium"),
    ),
    "onnxruntime-node": RuntimeRow(
        module="xdet.runtimes.javascript",
        package="",  # Node's
        only=("cpu",),
        trusted=("cpu",),
        feeds_thresholds=False,  # Node's build ignores them without a word
        rounds_steps=("cpu",),
    ),
    "onnxruntime-source": RuntimeRow(
        module="xdet.runtimes.onnxruntime_source",
        package="onnxruntime",
        formats=("onnx-source",),
        only=("cpu",),
        checked=("cpu",),
        subprocess=True,
        deployed=True,
    ),
    "litert": RuntimeRow(
        module="xdet.runtimes.litert",
        package="ai_edge_litert",
        extra="litert",
        formats=("tflite",),
        only=("xnnpack", "builtin", "reference"),
        checked=("xnnpack", "builtin", "reference"),
        subprocess=True,
        most_images=2,
        slow=("reference",),
        deployed=True,
    ),
    "keras": RuntimeRow(
        module="xdet.runtimes.keras",
        package="tensorflow",
        extra="keras",
        formats=("h5", "keras"),
        only=("cpu",),
        checked=("cpu",),
        subprocess=True,
        # not deployed: in this process, where it is timed, TensorFlow keeps the threads of its first model
    ),
}
