"""The runtimes of a check: which of them run, which stay open to its end, and where their nodes go.

Runtimes that the table does not trust (other vendors' compilers, drivers) run in a subprocess: they may crash there
without hiding what the others found. What an execution provider does not take falls back to the CPU without a word;
here ONNX Runtime tells it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from converters.files import FINISHED
from xdet.checking.result import MissingRuntime, NodePlacement
from xdet.errors import RuntimeCrashedError, UsageError, XdetError
from xdet.model.file import read_document
from xdet.runtimes.base import Runtime, RuntimeChoices
from xdet.runtimes.onnxruntime import open_onnxruntime
from xdet.runtimes.ort_session import CPU, OrtSession, SessionChoices, resolve_provider
from xdet.runtimes.subprocess_runtime import Message, SubprocessEndedError, call_in_subprocess
from xdet.runtimes.table import RUNTIMES, most_images, open_model, parse_runtimes, usual_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from converters.spec import ModelDocument
    from xdet.checking.pair import OpenedPair
    from xdet.model.file import ModelFile

RuntimeOrName = str | Runtime
Placed = Mapping[str, Mapping[str, int]]  # provider, short -> operator -> number of nodes, before they are fused


def split_runtimes(
    runtimes: str | Sequence[RuntimeOrName] | None, source_format: str | None, threads: int | None
) -> tuple[list[RuntimeChoices | Runtime], list[RuntimeChoices]]:
    """Runtimes of the finished model, and those of the source."""
    own = _checked(source_format, installed=False)  # one that is not installed is told
    if runtimes is None:
        runtimes = [*_checked(FINISHED, installed=True), *own]
    named = runtimes.split(",") if isinstance(runtimes, str) else list(runtimes)
    texts = [name for name in named if isinstance(name, str)]
    choices = parse_runtimes(",".join(texts), threads=threads) if texts else ()
    chosen = [replace(c, provider=c.provider or RUNTIMES[str(c.runtime)].usual) for c in choices]
    sources = [c for c in chosen if source_format in RUNTIMES[str(c.runtime)].formats]
    foreign = [c for c in chosen if c not in sources and FINISHED not in RUNTIMES[str(c.runtime)].formats]
    if foreign:
        listed = ", ".join(c.name for c in foreign)
        raise UsageError(f"{listed} runs neither ONNX files nor {source_format} sources; leave it out")
    finished = [c for c in chosen if c not in sources]
    if not sources:
        sources = list(parse_runtimes(",".join(own), threads=threads)) if own else []
    return [*finished, *(r for r in named if not isinstance(r, str))], sources


def _checked(model_format: str | None, *, installed: bool) -> list[str]:
    """The runtimes of a format that a check runs by default; ``installed``: without those that an extra brings."""
    return [
        f"{name}:{provider}"
        for name, row in RUNTIMES.items()
        if model_format in row.formats and (row.installed or not installed or row.extra is None)
        for provider in row.checked
    ]


def with_options(
    finished: Sequence[RuntimeChoices | Runtime], provider_options: Mapping[str, str], device: str | None
) -> list[RuntimeChoices | Runtime]:
    """The runtimes of a finished model, where execution providers besides the CPU's get options and device.

    Raises:
        UsageError: there are some, and no such provider was named.
    """
    if not provider_options and device is None:
        return list(finished)
    configured = [
        replace(chosen, provider_options=provider_options, device=device)
        if isinstance(chosen, RuntimeChoices)
        and RUNTIMES[str(chosen.runtime)].takes_options
        and str(chosen.provider).lower() != "cpu"
        else chosen
        for chosen in finished
    ]
    if configured == list(finished):
        raise UsageError(
            "options and devices are those of ONNX Runtime's execution providers, and `runtimes` names none besides "
            "the CPU's; add one, such as onnxruntime:cuda"
        )
    return configured


def count_images(
    finished: Sequence[RuntimeChoices | Runtime], sources: Sequence[RuntimeChoices], images: int
) -> dict[str, int]:
    """How many images each runtime is given: slow ones few, but for those of the source that the yardstick needs.

    It is the distance of two of the source's runtimes, on all images.
    """
    names = [runtime.name for runtime in (*finished, *sources)]
    counts = {name: min(images, most_images(name) or images) for name in names}
    of_source = names[len(finished) :]
    if sum(counts[name] == images for name in of_source) < 2:
        counts |= dict.fromkeys(of_source, images)
    return counts


def suggest_runtimes(finished: Sequence[RuntimeChoices | Runtime]) -> list[MissingRuntime]:
    """What could be added, and how."""
    named = {runtime.name.split(":")[0] for runtime in finished}
    suggestions = []
    for name, row in RUNTIMES.items():
        if name in named or FINISHED not in row.formats:
            continue
        how = f"name it in --runtimes (slow: {row.most_images} images)" if row.most_images else None
        if row.extra and not row.installed:
            how = f'pip install "xdet[{row.extra}]"'
        if how is not None:
            suggestions.append(MissingRuntime(f"{name}:{row.usual}", how, asked=False))
    return suggestions


def runs_here(runtime: RuntimeChoices | Runtime) -> bool:
    """Whether a finished model's runtime runs in this process: the caller's own, or one that the table trusts."""
    return not isinstance(runtime, RuntimeChoices) or runtime.provider in RUNTIMES[str(runtime.runtime)].trusted


class OpenRuntimes:
    """The runtimes of one check: those that several parts ask stay open until its end, so each opens a file once.

    They are ONNX Runtime's CPU kernels for the model, and for the source the witness, its own runtime's usual kernels.
    With ``record`` ONNX Runtime tells its optimised graph and where nodes run (``recorded``).
    """

    def __init__(self, pair: OpenedPair, threads: int | None = None, *, record: bool = False) -> None:
        self.main = usual_runtime(FINISHED, threads)
        self.witness = usual_runtime(pair.source.format, threads)
        self.recorded: PlacementRecording | None = None
        self._pair, self._record = pair, record
        self._kept: dict[bool, Runtime] = {}

    def finished(self) -> AbstractContextManager[Runtime]:
        """ONNX Runtime's CPU kernels with the model."""
        return self.opened(self._pair.model, self.main)

    def source(self) -> AbstractContextManager[Runtime]:
        """The witness with the source."""
        return self.opened(self._pair.source, self.witness)

    def document_of(self, model: ModelFile) -> ModelDocument:
        """The document of the model, or of one made from it."""
        if model is self._pair.model:
            return self._pair.document
        return read_document(model.data, file=model.file)

    def is_witness(self, choices: RuntimeChoices) -> bool:
        """Whether this is the runtime of the source that stays open."""
        return (choices.runtime, choices.provider) == (self.witness.runtime, self.witness.provider)

    @contextmanager
    def opened(self, file: ModelFile, choices: RuntimeChoices) -> Iterator[Runtime]:
        """A file on a runtime, opened now or before; in a subprocess unless the table trusts it.

        Raises:
            XdetError: it cannot be opened; whoever uses it raises others, ``RuntimeCrashedError`` where its process
                ended.
        """
        of_source, name = file is self._pair.source, (choices.runtime, choices.provider)
        keeps = of_source and self.is_witness(choices)
        keeps |= file is self._pair.model and name == (self.main.runtime, self.main.provider)
        if not keeps:
            with self._open(file, choices) as runtime:
                yield runtime
            return
        if of_source not in self._kept:
            self._kept[of_source] = self._open(file, choices)
        try:
            yield self._kept[of_source]
        except RuntimeCrashedError:  # whoever asks next begins anew
            self._kept.pop(of_source).close()
            raise

    def _open(self, file: ModelFile, choices: RuntimeChoices) -> Runtime:
        if file is self._pair.source:  # described as its finished model is: it needs no sidecar
            return open_model(file, replace(choices, spec=self._pair.document.spec))
        trusted = runs_here(choices)
        if self._record and trusted and file is self._pair.model and choices.runtime == self.main.runtime:
            with tempfile.TemporaryDirectory(prefix="xdet-") as folder:
                path = Path(folder) / "optimized.onnx"
                runtime = open_onnxruntime(file.data, file=file.file, choices=choices, optimized_path=str(path))
                self.recorded = PlacementRecording(path.read_bytes(), runtime.session.placement())
            return runtime
        return open_model(file, choices, subprocess=not trusted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for runtime in self._kept.values():
            runtime.close()
        self._kept.clear()


@dataclass(frozen=True, eq=False, slots=True)
class PlacementRecording:
    """What ONNX Runtime told of a model while it opened it: the graph that it runs, where its nodes run."""

    optimized: bytes
    placed: Placed | None


def find_placement(model: bytes, provider: str) -> NodePlacement:
    """Where a model's nodes go when ``provider``, short, is asked for."""
    place = place_here if resolve_provider(provider) == CPU else place_in_subprocess
    return placement_of(place(model, provider), provider)


def placement_of(placed: Placed | None, provider: str) -> NodePlacement:
    """Placed nodes in the form of results."""
    runtime = replace(usual_runtime(FINISHED), provider=provider).name
    if placed is None:
        return NodePlacement(runtime, None, {})
    nodes = {name: sum(operators.values()) for name, operators in placed.items()}
    return NodePlacement(runtime, nodes, {} if provider == "cpu" else dict(placed.get("cpu", {})))


def place_here(model: bytes, provider: str) -> Placed | None:
    """Which nodes each provider gets, asked here; None where ONNX Runtime does not tell, or the provider fails."""
    choices = SessionChoices(provider=resolve_provider(provider), threads=1, record_placement=True)
    try:
        session = OrtSession(model, file="model", choices=choices)
    except XdetError:  # the run of this provider has told why
        return None
    placed = session.placement()
    session.close()
    return placed


def place_in_subprocess(model: bytes, provider: str) -> Placed | None:
    """As ``place_here``, in a subprocess."""
    request = Message({"provider": provider}, {"model": np.frombuffer(model, np.uint8)})
    try:
        placed: Placed | None = call_in_subprocess("xdet.checking.runtimes:answer", request).fields["nodes"]
    except (SubprocessEndedError, XdetError):  # likewise
        return None
    return placed


def answer(request: Message) -> Message:
    """The other side."""
    return Message({"nodes": place_here(request.arrays["model"].tobytes(), request.fields["provider"])})
