"""Reading the columns of other processors (schema ``xdet.other-cpus``, docs/json.md).

``examples/check_other_cpus.py`` writes them. Columns of another model or source are refused: every SHA-256 in the file must be
that of the files at hand. What a verdict says must follow from its numbers and parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from xdet.checking.json_member import Member, read_json_member
from xdet.checking.other_cpus import CpuCheck, CpuSelfTest, CpuVerdict, GoldenDistance, OtherCpu
from xdet.checking.result import (
    Cause,
    Finding,
    HeadDistance,
    MissingRuntime,
    PartName,
    PartVerdict,
    RuntimeLine,
    Status,
)
from xdet.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA, VERSION = "xdet.other-cpus", 1
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
