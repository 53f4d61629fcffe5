"""What a model's self-test and check found on other processors: frozen, as ``examples/check_other_cpus.py`` wrote it.

A column is no comparison between processors: its heads are compared with LiteRT's kernels on the same processor. What ties
processors together is the self-test, whose golden vector is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xdet.checking.result import MissingRuntime, PartVerdict, RuntimeLine

CpuStatus = Literal["passed", "failed", "incomplete"]
CpuVerdict = Literal["exact", "bounded", "broken"]


@dataclass(frozen=True, slots=True)
class GoldenDistance:
    """A head compared with the model's golden vector.

    Attributes:
        differing: values that are not equal, bit for bit.
        compared: values that were compared.
        worst_lsb: largest difference, in codes of the head; infinite where a value is no number.
    """

    differing: int
    compared: int
    worst_lsb: float


@dataclass(frozen=True, slots=True)
class CpuSelfTest:
    """A self-test there (``xdet.selftest.SelfTest``).

    Attributes:
        runtime: such as ``"onnxruntime:cpu"``.
        verdict: ``"broken"`` is a failure.
        bound_lsb: what the model's document allows, in codes of the head.
        agreement: the comparison.
        exact_kernels: session entry that xdet set because that processor's fast kernels saturate; None where it set none.
        plain: the comparison without that entry, as other programs open the file; None where it is the same.
    """

    runtime: str
    verdict: CpuVerdict
    bound_lsb: int
    agreement: GoldenDistance
    exact_kernels: str | None
    plain: GoldenDistance | None


@dataclass(frozen=True, slots=True)
class CpuCheck:
    """A check there; the names are those of ``CheckResult``.

    Attributes:
        images: names of the photographs, in order; few under emulation.
        parts: the four parts, in order.
        runs: every runtime of the finished model that ran; without histograms.
        allowed_max: the most LSB that part spread allows; None where it was skipped.
        allowed_mean: likewise for the mean.
        changes: how many detections runtimes there do not share with the source.
        missing: runtimes without a result.
        versions: package -> version.
    """

    images: tuple[str, ...]
    parts: tuple[PartVerdict, ...]
    runs: tuple[RuntimeLine, ...]
    allowed_max: float | None
    allowed_mean: float | None
    changes: int
    missing: tuple[MissingRuntime, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class OtherCpu:
    """One processor.

    Attributes:
        cpu: its name as the emulator takes it, or ``"this machine"`` for the one that ran the emulator.
        emulated: whether it was emulated.
        simd: instruction sets that numpy found in the process there.
        selftest: None where the model holds no golden vector, or ``selftest_problem`` says why there is no result.
        selftest_problem: why the self-test could not run; else None.
        check: None where no source was named, or ``check_problem`` says why there is no result.
        check_problem: why the check could not run; else None.
    """

    cpu: str
    emulated: bool
    simd: tuple[str, ...]
    selftest: CpuSelfTest | None = None
    selftest_problem: str | None = None
    check: CpuCheck | None = None
    check_problem: str | None = None

    @property
    def status(self) -> CpuStatus:
        """``"failed"`` where a verdict is bad; ``"incomplete"`` where none is, but something gave no result."""
        broken = self.selftest is not None and self.selftest.verdict == "broken"
        parts = self.check.parts if self.check is not None else ()
        if broken or any(part.status == "failed" for part in parts):
            return "failed"
        missing = self.check.missing if self.check is not None else ()
        gaps = self.selftest_problem or self.check_problem or any(m.asked or m.crashed for m in missing)
        return "incomplete" if gaps else "passed"
