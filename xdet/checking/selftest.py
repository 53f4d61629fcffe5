"""``xdet selftest``: does this host compute what the conversion computed? Needs the finished model alone.

A finished model holds the head's codes for one picture that is made from a seed (``converters.integer.golden``). Here
the picture is made again, the model runs, and its raw head is compared value by value. So it is seen in the field when
a tool stripped or moved the quantisation, when an edited file no longer is its source, when a CPU's kernels saturate,
or when a provider computes in another way. Decoding and suppression behind the head are float32; they are not tested
here. The result is told as a report, or as JSON (schema ``xdet.selftest``, docs/selftest.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from converters.errors import counted
from converters.files import FINISHED
from converters.integer.golden import GENERATOR, NO_VECTOR, Agreement, compare_head, golden_image
from converters.spec.document import INT8_ENTRY
from xdet.errors import ModelError
from xdet.model.file import read_document, read_model_file
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model, split_runtime, usual_runtime
from xdet.writing.blocks import Items, Report, Section
from xdet.writing.files import to_json
from xdet.writing.text import format_distance

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from converters.spec import GoldenVector, ModelDocument
    from xdet.model.file import ModelFile
    from xdet.runtimes.base import Runtime

Verdict = Literal["exact", "bounded", "broken"]
# What is wrong with the usual kernels, by the session entry that asks for exact ones.
USUAL_KERNELS = {
    "session.x64quantprecision": "this CPU's fast ones saturate",
    INT8_ENTRY: "this CPU's usual ones saturate, or compute in float32",
}
SELFTEST_SCHEMA = "xdet.selftest"
SELFTEST_VERSION = 1
MOST_IMAGES = 4  # per call of a model with a larger batch


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a self-test found.

    Attributes:
        model: file name as the caller gave it.
        sha256: hex digest of the file's bytes.
        runtime: such as ``"onnxruntime:cpu"``.
        verdict: ``"exact"``: every head value has the golden bits. ``"bounded"``: none is further away than
            ``bound_lsb``. ``"broken"``: one is.
        agreement: the comparison.
        bound_lsb: what the model's document allows on this kind of runtime, in codes of the head.
        exact_kernels: session entry that xdet set because the usual kernels are not exact; None where it set none.
        plain: the comparison for a session without that entry, as other programs open it; None where it is the same.
    """

    model: str
    sha256: str
    runtime: str
    verdict: Verdict
    agreement: Agreement
    bound_lsb: int
    exact_kernels: str | None = None
    plain: Agreement | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may be used here."""
        return self.verdict != "broken"


def run_selftest(
    model: Path,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> SelfTest:
    """Compare a finished model's head on this host with the golden vector in its metadata.

    Args:
        model: an ONNX file that xdet made.
        runtime: what runs the model, as ``xdet.Detector`` takes it; None is ONNX Runtime.
        provider: short or full name of an execution provider; None is the CPU.
        provider_options: handed to the provider.
        device: of the provider, as ``xdet providers`` lists it; None is the provider's choice.
        threads: threads inside an operator; None is one per physical core.

    Raises:
        ModelError: no finished model, or one without a golden vector that this version reads.
        RuntimeUnavailableError: the runtime or the provider is not there.
    """
    file = read_model_file(model)
    if not file.is_finished:
        raise ModelError(
            f"'{model}' is no ONNX file; selftest takes finished models, which hold their golden vector: "
            f"convert the source with xdet convert"
        )
    named, kind = split_runtime(runtime, provider)
    choices = RuntimeChoices(named, kind, threads, provider_options=provider_options or {}, device=device)
    with open_model(file, choices) as opened:
        document = read_document(file.data, file=file.file)
        vector = _require_vector(document, file.file)
        images = _images(opened, vector)
        agreement = _compare(opened.head(images), vector, file.file)
        bound = vector.bound_lsb if opened.capabilities.exact else vector.other_kernels_lsb
        sha256, name = opened.sha256, opened.name
    entry = _exact_entry(document) if name == usual_runtime(FINISHED).name else None
    return SelfTest(
        model=str(model),
        sha256=sha256,
        runtime=name,
        verdict=judge(agreement, bound),
        agreement=agreement,
        bound_lsb=bound,
        exact_kernels=entry,
        plain=None if entry is None else _compare(_plain_head(file, document, images, threads), vector, file.file),
    )


def judge(agreement: Agreement, bound_lsb: int) -> Verdict:
    """The verdict on a comparison, with so many codes allowed."""
    if agreement.exact:
        return "exact"
    return "bounded" if bound_lsb > 0 and agreement.worst_lsb <= bound_lsb else "broken"


def _require_vector(document: ModelDocument, file: str) -> GoldenVector:
    vector = document.golden
    if vector is None:
        why = next((note for note in document.notes if note.startswith(NO_VECTOR)), None)
        if document.activations == "float32":
            why = "its network computes in float32, where no result is defined to the bit"
        again = ", or convert it again" if why is None else ""  # the same file would come of it
        message = "an earlier version converted it" if why is None else why.removeprefix(NO_VECTOR)
        raise ModelError(f"'{file}' holds no golden vector: {message}; compare it with its source: xdet check{again}")
    if vector.generator != GENERATOR:
        raise ModelError(
            f"'{file}' has a golden vector of recipe {vector.generator}, this xdet makes the picture of recipe "
            f"{GENERATOR}; convert the source again, or test it with the version that wrote it"
        )
    return vector


def _images(runtime: Runtime, vector: GoldenVector) -> NDArray[np.uint8]:
    """The golden picture as the file takes it, uint8 ``(N, height, width, channels)``: for each place of a batch."""
    image = runtime.spec.image
    picture = golden_image(image.height, image.width, vector.seed, channels=image.channels)
    return image.as_fed(picture).repeat(min(runtime.batch or 2, MOST_IMAGES), axis=0)


def _exact_entry(document: ModelDocument) -> str | None:
    """The session entry that ONNX Runtime's CPU kernels were opened with here, because the usual ones are not exact."""
    from xdet.runtimes.ort_session import EXACT_KERNELS, inexact_codes

    return EXACT_KERNELS.get(inexact_codes(document.activations, in_float=document.multiplies_in_float) or "")


def _plain_head(
    file: ModelFile, document: ModelDocument, images: NDArray[np.uint8], threads: int | None
) -> NDArray[np.float32]:
    """The head from a session as any program opens it, without exact kernels."""
    from xdet.runtimes.onnxruntime import OnnxRuntime
    from xdet.runtimes.ort_session import OrtSession, SessionChoices

    session = OrtSession(file.data, file=file.file, choices=SessionChoices(threads=threads))
    with OnnxRuntime(session, document) as opened:
        return opened.head(images)


def _compare(heads: NDArray[np.float32], vector: GoldenVector, file: str) -> Agreement:
    """The worst of the comparisons of ``(N, grid_h, grid_w, channels)`` with the vector."""
    try:
        agreements = [compare_head(head, vector) for head in heads]
    except ValueError as error:
        raise ModelError(
            f"'{file}': its golden vector cannot be read: {error}; was the file edited? Convert its source again"
        ) from error
    return max(agreements, key=lambda agreement: (not agreement.exact, agreement.worst_lsb, agreement.differing))


def selftest_to_json(result: SelfTest) -> str:
    """JSON text with a final newline; equal results give equal bytes. A distance that is infinite is null."""
    data = asdict(result)
    data["model"] = {"name": PurePath(result.model).name, "sha256": data.pop("sha256")}
    return to_json(SELFTEST_SCHEMA, SELFTEST_VERSION, data)


def selftest_report(result: SelfTest) -> Report:
    """The verdict in one line; below it what to do, where there is something to do."""
    message = f"{result.model} on {result.runtime}: {result.verdict}: {_described(result.agreement, result.bound_lsb)}"
    lines = []
    if result.exact_kernels is not None and result.plain is not None:
        plain = _described(result.plain, 0)
        lines = [
            f"xdet chose exact kernels, because {USUAL_KERNELS[result.exact_kernels]}; without them: {plain}",
            f"in programs of your own, set the session entry {result.exact_kernels} = 1",
        ]
    if not result.passed:
        lines.append(_advice(result))
    return Report("xdet selftest", (Section("", (Items(tuple(lines), title=message),)),))


def _described(agreement: Agreement, bound_lsb: int) -> str:
    if agreement.exact:
        return f"all {agreement.compared:,} head values have the golden bits"
    return f"{agreement_words(agreement)} ({bound_lsb or 'none'} allowed)"


def agreement_words(agreement: Agreement) -> str:
    """How many head values are not the golden ones, and how far the worst of them is."""
    message = f"{agreement.differing:,} of {agreement.compared:,} head values differ"
    return f"{message}, by up to {format_distance(agreement.worst_lsb)} LSB" if agreement.differing else message


def _advice(result: SelfTest) -> str:
    if result.agreement.off_lattice:
        return (
            f"{counted(result.agreement.off_lattice, 'value is', 'values are')} no code of the head: the quantisation "
            "was stripped or changed; "
            f"convert the source again, and deploy the file as xdet convert wrote it"
        )
    if result.runtime.endswith(":cpu"):
        return "the file is not the one that was converted, or this ONNX Runtime computes other integers; convert again"
    return (
        "this provider computes other integers than the source's kernels; "
        "--provider cpu tells whether the file is sound"
    )
