"""Reading the columns of other processors (schema ``xdet.other-cpus``, docs/json.md).

``examples/check_other_cpus.py`` writes them. Columns of another model or source are refused: every SHA-256 in the file must be
that of the files at hand. What a verdict says must follow from its numbers and parts.

JSON of another program, member by member: what is missing or of another type is an error that names file and place.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from converters.errors import quote_some
from converters.files import read_regular
from xdet.checking.result import (
    Cause,
    CpuCheck,
    CpuSelfTest,
    CpuVerdict,
    Finding,
    GoldenDistance,
    HeadDistance,
    MissingRuntime,
    OtherCpu,
    PartName,
    PartVerdict,
    RuntimeLine,
    Status,
)
from xdet.errors import DataError
from xdet.writing.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Member:
    """A value and where it stands.

    Attributes:
        file: the file as the caller named it.
        path: such as ``columns[1].cpu``; empty for the whole document.
        value: what ``json`` made of it.
        advice: what to do about a bad file.
    """

    file: str
    path: str
    value: Any
    advice: str

    def at(self, name: str) -> Member:
        """A member of an object, which must be there."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        path = f"{self.path}.{printable(name)}" if self.path else printable(name)
        if name not in self.value:
            raise DataError(f"'{self.file}' has no {path}; {self.advice}")
        return Member(self.file, path, self.value[name], self.advice)

    def items(self) -> tuple[Member, ...]:
        """All members of a list."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return tuple(
            Member(self.file, f"{self.path}[{i}]", value, self.advice) for i, value in enumerate(self.value)
        )

    def names(self) -> tuple[str, ...]:
        """The names of an object's members."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return tuple(self.value)

    @property
    def is_null(self) -> bool:
        """Whether the value is null."""
        return self.value is None

    def text(self) -> str:
        """A text that is not empty."""
        return self.value if isinstance(self.value, str) and self.value else self.refuse("a text")

    def choice(self, *among: str) -> Any:
        """One of some texts."""
        return self.value if self.value in among else self.refuse(f"one of {', '.join(among)}")

    def flag(self) -> bool:
        """True or false."""
        return self.value if isinstance(self.value, bool) else self.refuse("true or false")

    def count(self, *, most: int | None = None) -> int:
        """An integer from 0 to ``most``."""
        whole = isinstance(self.value, int) and not isinstance(self.value, bool) and self.value >= 0
        if not whole or (most is not None and self.value > most):
            self.refuse("a count" if most is None else f"a count of at most {most}")
        return int(self.value)

    def distance(self) -> float:
        """A number that is not negative; null is infinite."""
        if self.value is None:
            return math.inf
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not 0 <= self.value <= sys.float_info.max:
            self.refuse("a distance (a number from 0, or null)")
        return float(self.value)

    def sha256(self) -> str:
        """A digest in lower-case hex digits."""
        digits = isinstance(self.value, str) and re.fullmatch("[0-9a-f]{64}", self.value)
        return str(self.value) if digits else self.refuse("a SHA-256 in hex digits")

    def require(self, expected: Sequence[str | int], what: str) -> None:
        """Refuse any value that is none of ``expected``, in words of the caller's."""
        if self.value not in expected or isinstance(self.value, bool):
            self.refuse(what)

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error that says what stands here and what should."""
        told = json.dumps(self.value)
        told = told if len(told) <= 60 else told[:57] + "..."
        raise DataError(
            f"'{self.file}': {self.path or 'the document'} is {told}, expected {expected}; {self.advice}"
        )


def read_json_member(path: Path, advice: str) -> Member:
    """A whole file as a member.

    Raises:
        DataError: it cannot be read, is no JSON, repeats a name, or holds numbers that are none.
    """
    try:
        value = json.loads(
            read_regular(path, LARGEST_RECORD).decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
        )
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DataError(f"'{path}' is no JSON: {error}; {advice}") from error
    return Member(str(path), "", value, advice)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        raise ValueError(f"repeated names: {quote_some(repeated)}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


SCHEMA, VERSION = "xdet.other-cpus", 1
LARGEST_RECORD = 64 << 20
ADVICE = "make it again: python examples/check_other_cpus.py MODEL.onnx --source SRC --images DIR --json FILE"


def read_other_cpus(path: Path, *, model_sha256: str, source_sha256: str) -> tuple[OtherCpu, ...]:
    """The columns of a file, in its order.

    Args:
        path: the file.
        model_sha256: hex digest of the finished model at hand.
        source_sha256: hex digest of its source.

    Raises:
        DataError: it is no such file, or was made of another model or source.
    """
    document = read_json_member(path, ADVICE)
    document.at("schema").require([SCHEMA], f'"{SCHEMA}"')
    document.at("version").require([VERSION], f"{VERSION}, the version that this xdet reads")
    _require_same(document.at("model"), model_sha256, "model")
    if not document.at("source").is_null:
        _require_same(document.at("source"), source_sha256, "source")
    columns = tuple(_column(entry, model_sha256, source_sha256) for entry in document.at("columns").items())
    names = [column.cpu for column in columns]
    if not columns or len(set(names)) < len(names):
        document.at("columns").refuse("at least one processor, and each once")
    return columns


def _require_same(named: Member, sha256: str, what: str) -> None:
    found = named.at("sha256").sha256()
    if found != sha256:
        raise DataError(
            f"'{named.file}': {named.path} has SHA-256 {found}, but the {what} that is checked has {sha256}: these columns are "
            f"another {what}'s; {ADVICE}"
        )


def _column(entry: Member, model_sha256: str, source_sha256: str) -> OtherCpu:
    selftest, selftest_problem = _outcome(entry.at("selftest"))
    check, check_problem = _outcome(entry.at("check"))
    if entry.at("selftest").is_null and entry.at("check").is_null:
        entry.refuse("a self-test or a check")
    for result in (found for found in (selftest, check) if found is not None):
        _require_same(result.at("model"), model_sha256, "model")
    if check is not None:
        _require_same(check.at("source"), source_sha256, "source")
    return OtherCpu(
        cpu=entry.at("cpu").text(),
        emulated=entry.at("emulated").flag(),
        simd=tuple(name.text() for name in entry.at("simd").items()),
        selftest=None if selftest is None else _selftest(selftest),
        selftest_problem=selftest_problem,
        check=None if check is None else _check(check),
        check_problem=check_problem,
    )


def _outcome(entry: Member) -> tuple[Member | None, str | None]:
    """The result, or why there is none; neither for null."""
    if entry.is_null:
        return None, None
    if set(entry.names()) == {"error"}:
        return None, entry.at("error").text()
    return entry.at("result"), None


def _selftest(found: Member) -> CpuSelfTest:
    _require_schema(found, "xdet.selftest")
    entry, plain = found.at("exact_kernels"), found.at("plain")
    agreement = _golden_distance(found.at("agreement"))
    verdict = found.at("verdict").choice(*get_args(CpuVerdict))
    if (verdict == "exact") != (agreement.differing == 0):
        found.at("verdict").refuse(f"what follows from {agreement.differing} differing values")
    return CpuSelfTest(
        runtime=found.at("runtime").text(),
        verdict=verdict,
        bound_lsb=found.at("bound_lsb").count(),
        agreement=agreement,
        exact_kernels=None if entry.is_null else entry.text(),
        plain=None if plain.is_null else _golden_distance(plain),
    )


def _golden_distance(found: Member) -> GoldenDistance:
    compared = found.at("compared").count()
    differing = found.at("differing").count(most=compared)
    return GoldenDistance(differing, compared, found.at("worst_lsb").distance())


def _check(found: Member) -> CpuCheck:
    _require_schema(found, "xdet.check")
    parts = tuple(map(_part, found.at("parts").items()))
    if [part.part for part in parts] != list(get_args(PartName)):
        found.at("parts").refuse(f"the parts {', '.join(get_args(PartName))}")
    if found.at("passed").flag() != all(part.status != "failed" for part in parts):
        found.at("passed").refuse("what follows from the parts")
    limits = found.at("allowed_max"), found.at("allowed_mean")
    return CpuCheck(
        images=tuple(name.text() for name in found.at("images").items()),
        parts=parts,
        runs=tuple(map(_run, found.at("runs").items())),
        allowed_max=None if limits[0].is_null else limits[0].distance(),
        allowed_mean=None if limits[1].is_null else limits[1].distance(),
        changes=len(found.at("changes").items()),
        missing=tuple(map(_missing, found.at("missing").items())),
        versions={name: found.at("versions").at(name).text() for name in found.at("versions").names()},
    )


def _require_schema(found: Member, schema: str) -> None:
    found.at("schema").require([schema], f'"{schema}"')
    found.at("version").require([1], "1, the version that this xdet reads")


def _part(found: Member) -> PartVerdict:
    part = found.at("part").choice(*get_args(PartName))
    return PartVerdict(
        part,
        found.at("status").choice(*get_args(Status)),
        found.at("summary").text(),
        tuple(_finding(entry, part) for entry in found.at("findings").items()),
    )


def _finding(found: Member, part: PartName) -> Finding:
    runtime, layer = found.at("runtime"), found.at("layer")
    return Finding(
        part,
        found.at("cause").choice(*get_args(Cause)),
        found.at("message").text(),
        runtime=None if runtime.is_null else runtime.text(),
        layer=None if layer.is_null else layer.text(),
    )


def _run(found: Member) -> RuntimeLine:
    nearest, equal = found.at("nearest"), found.at("head_equal")
    probes, followed = found.at("probes"), found.at("probes_followed")
    return RuntimeLine(
        name=found.at("name").text(),
        images=found.at("images").count(),
        must_be_exact=found.at("must_be_exact").flag(),
        nearest=None if nearest.is_null else _distance(nearest),
        head_equal=None if equal.is_null else equal.flag(),
        notes=tuple(note.text() for note in found.at("notes").items()),
        probes=None if probes.is_null else probes.count(),
        probes_followed=None if probes.is_null else followed.count(most=probes.count()),
    )


def _distance(found: Member) -> HeadDistance:
    values = found.at("values").count()
    return HeadDistance(
        first=found.at("first").text(),
        second=found.at("second").text(),
        differing=found.at("differing").count(most=values),
        values=values,
        max_steps=found.at("max_steps").distance(),
        mean_steps=found.at("mean_steps").distance(),
    )


def _missing(found: Member) -> MissingRuntime:
    return MissingRuntime(
        found.at("name").text(),
        found.at("reason").text(),
        asked=found.at("asked").flag(),
        crashed=found.at("crashed").flag(),
    )
