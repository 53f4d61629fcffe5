"""A model's self-test and check on processors that are not here, emulated (``emulated``).

Each runs in a process of its own there, which tells what it found; one that crashes or never ends hides nothing else.
Emulation is 10 to 20 times slower, so a check there takes the first photographs only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from converters.description.statements import SourceOptions  # noqa: TC001 - ``restored`` reads annotations
from converters.spec import Thresholds  # noqa: TC001 - likewise
from xdet.checking.emulated import LEFT_OUT, emulate, emulator_of
from xdet.checking.result import CpuCheck, OtherCpu
from xdet.checking.selftest import SelfTest, run_selftest
from xdet.errors import UsageError, XdetError
from xdet.runtimes.worker import Message, SubprocessEndedError, call_in_subprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from xdet.checking.emulated import Processor
    from xdet.checking.result import CheckResult
    from xdet.pictures.preparation import Photograph

IMAGES = 2
LONGEST_S = 3600.0  # of one command; an emulated program may hang
HERE = "xdet.checking.other_cpus"


@dataclass(frozen=True, eq=False)
class Request:
    """What is run there, photographs aside; the names are those of ``xdet.check``."""

    model: str
    source: str
    runtimes: tuple[str, ...] | None
    threads: int | None
    thresholds: Thresholds | None
    source_options: SourceOptions | None


def require_cpus(cpus: Sequence[str]) -> None:
    """Refuse processors that cannot be emulated here, before anything runs; raises as ``emulator_of``."""
    for cpu in cpus:
        emulator_of(cpu)


def check_on_cpus(
    cpus: Sequence[str],
    request: Request,
    images: Sequence[Photograph],
    *,
    has_golden: bool,
    progress: Callable[[str, int], None],
) -> tuple[OtherCpu, ...]:
    """Repeat self-test and check on emulated processors, with the first photographs.

    Raises:
        UsageError: an emulator does not know the processor.
    """
    paths = {str(i): str(p) for i, p in enumerate(images[:IMAGES]) if not isinstance(p, np.ndarray)}
    arrays = {str(i): a for i, a in enumerate(images[:IMAGES]) if isinstance(a, np.ndarray)}
    asked = Message({"request": plain(request), "paths": paths}, arrays)
    columns = []
    for cpu in cpus:
        with tempfile.TemporaryDirectory(prefix="xdet-") as folder:
            there = emulate(cpu, Path(folder))
            whole = {name: value for name, value in there.environment.items() if name != LEFT_OUT}
            simd, problem = _ask(replace(there, environment=whole), "find_simd", asked)
            if problem is not None:
                raise UsageError(
                    f"no Python runs on {cpu!r}: {problem}; '{emulator_of(cpu)} -cpu help' lists the processors"
                )
            selftest, no_selftest = _ask(there, "run_selftest_there", asked) if has_golden else (None, None)
            check, no_check = _ask(there, "check_there", asked)
        progress(cpu, len(paths) + len(arrays))
        columns.append(
            OtherCpu(
                cpu=cpu,
                emulated=True,
                simd=tuple(simd),
                selftest=restored(SelfTest | None, selftest),
                selftest_problem=no_selftest,
                check=restored(CpuCheck | None, check),
                check_problem=no_check,
            )
        )
    return tuple(columns)


def _ask(there: Processor, job: str, asked: Message) -> tuple[Any, str | None]:
    """What a function of this module finds there, or why it found nothing."""
    message = Message({**asked.fields, "python": there.python}, asked.arrays)
    try:
        answer = call_in_subprocess(
            f"{HERE}:{job}", message, longest_s=LONGEST_S, python=there.python, environment=there.environment
        )
    except SubprocessEndedError as error:
        return None, f"its process ended with {error}"
    except XdetError as error:
        return None, str(error)
    return answer.fields["found"], None


def plain(value: Any) -> Any:
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(asdict(value), default=str))


def restored(kind: Any, value: Any) -> Any:
    """What ``plain`` made of a value of type ``kind``: dataclasses, tuples and paths again, as annotations say."""
    if value is None:
        return None
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast("Any", kind)(**{name: restored(hints[name], held) for name, held in value.items()})
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        kinds = [first] * len(value) if others == [...] else [first, *others]
        return tuple(restored(one, held) for one, held in zip(kinds, value, strict=True))
    return Path(value) if kind is Path else value


def _request(message: Message) -> Request:
    """The other side: what is asked for. What this process starts is emulated as it is."""
    sys.executable = message.fields["python"]
    request: Request = restored(Request, message.fields["request"])
    return request


def find_simd(message: Message) -> Message:
    """The instruction sets that numpy finds: the proof of what is emulated."""
    _request(message)
    found = cast("dict[str, Any]", np.show_config("dicts")["SIMD Extensions"])
    return Message({"found": [*found["baseline"], *found.get("found", [])]})


def run_selftest_there(message: Message) -> Message:
    """The self-test."""
    request = _request(message)
    return Message({"found": plain(run_selftest(Path(request.model), threads=request.threads))})


def check_there(message: Message) -> Message:
    """The check."""
    from xdet.checking.check import check

    request, paths = _request(message), message.fields["paths"]
    held: dict[str, Path | NDArray[Any]] = {**{name: Path(path) for name, path in paths.items()}, **message.arrays}
    found = check(
        request.model,
        request.source,
        [held[name] for name in sorted(held, key=int)],
        runtimes=request.runtimes,
        threads=request.threads,
        thresholds=request.thresholds,
        source_options=request.source_options,
    )
    return Message({"found": plain(kept_of_check(found))})


def kept_of_check(found: CheckResult) -> CpuCheck:
    """What is kept of a check."""
    return CpuCheck(
        found.images,
        found.parts,
        tuple(replace(run, histogram=()) for run in found.runs),
        found.allowed_max,
        found.allowed_mean,
        len(found.changes),
        found.missing,
        found.versions,
    )
