"""``xdet.check``: run a finished model and its source side by side, and judge them in four parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.all_runs import CheckInputs, run_all
from xdet.checking.blame import Accused, diagnose_head, with_layers
from xdet.checking.heads import judge_heads, judge_runs, spread
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.heads.why import BoxComparison, find_changes, find_deviation
from xdet.checking.numbers import check_static, uncompared
from xdet.checking.other_cpus import Request, check_on_cpus, require_cpus
from xdet.checking.pair import Asked, count_images, open_pair, split_runtimes, suggest_runtimes, with_options
from xdet.checking.result import CheckResult, Finding, RuntimeLine
from xdet.checking.runs import OpenRuntimes, Run
from xdet.checking.tolerance import judge_boxes, tolerate_heads
from xdet.checking.unrounded import HALF_NOT_EXACT, NOT_EXACT, half_bound, judge_unrounded
from xdet.errors import UsageError
from xdet.model.file import hash_model
from xdet.pictures.preparation import Preparation, image_name, prepare_many, stack_pixels
from xdet.runtimes.table import RUNTIMES, installed_versions
from xdet.writing.text import image_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.description.statements import SourceOptions
    from converters.spec import Thresholds
    from xdet.checking.all_runs import AllRuns
    from xdet.checking.heads import HeadVerdicts
    from xdet.checking.heads.spread import Step
    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import (
        DetectionChange,
        HeadDistance,
        HistogramBar,
        KnownDeviation,
        MissingRuntime,
        PartVerdict,
        Tolerance,
    )
    from xdet.pictures.preparation import Photograph

LOW_SCORE = 0.001
READERS = 2
NOTHING_RAN = "no runtime of the finished model ran"


def check(
    model: str | Path,
    source: str | Path,
    images: Sequence[Photograph],
    *,
    runtimes: str | Sequence[Asked] | None = None,
    threads: int | None = None,
    thresholds: Thresholds | None = None,
    source_options: SourceOptions | None = None,
    layers: bool = False,
    cpus: Sequence[str] = (),
    tolerance: Tolerance | None = None,
    provider_options: Mapping[str, str] | None = None,
    device: str | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> CheckResult:
    """Prove that a finished model is its source, on every runtime at hand, and name the cause where it is not.

    Args:
        model: an ONNX file that xdet made.
        source: the file it was made of.
        images: photographs, files or uint8 RGB arrays, at least one.
        runtimes: names as ``--runtimes`` takes them, in one text or one by one, or open ``Runtime`` objects; None: ONNX
            Runtime's CPU kernels, OpenVINO if installed, and every runtime of the source, which run, too, where none is
            named.
        threads: threads inside an operator; None is each runtime's default.
        thresholds: at which detections are compared; None takes the model's own.
        source_options: what the caller says of the source beside its sidecar (``xdet.describing_options``).
        layers: compare every tensor of the source with its twin, too, on the first two photographs, and tell what ONNX
            Runtime runs on integers.
        cpus: other processors, emulated (``xdet.checking.emulated``): self-test and check of the first two photographs
            there count like the parts.
        tolerance: what is accepted beyond; None is nothing. Inner layers and other processors are never excused by it.
        provider_options: handed to the execution providers of ONNX Runtime among ``runtimes``, the CPU's aside.
        device: of these providers, as ``xdet providers`` lists it.
        progress: called with a runtime's name and the number of images it has done since the last call.

    Raises:
        ModelError: one of the files cannot be read.
        ImageError: a photograph cannot be read.
        RuntimeUnavailableError: one of ``cpus`` cannot be emulated here.
        UsageError: no images, unknown runtimes or processors, or files in the wrong order.
    """
    if isinstance(images, str | Path):
        raise UsageError(
            f"images must be a list of photographs, got '{images}'; "
            f"xdet.pictures.images.find_images(['{images}']) lists a folder's"
        )
    if not len(images):
        raise UsageError("check needs at least one photograph; name image files or a folder of them")
    pair = open_pair(Path(model), Path(source), source_options)
    require_cpus(cpus)
    prepared = list(prepare_many(images, Preparation(pair.document.spec.image), workers=READERS))
    pixels, placements = stack_pixels(prepared), [image.placement for image in prepared]
    own = thresholds or pair.document.spec.thresholds
    finished, sources = split_runtimes(runtimes, pair.source.format, threads)
    finished = with_options(finished, provider_options or {}, device)
    named = runtimes.split(",") if isinstance(runtimes, str) else runtimes or ()
    names = tuple(name for name in named if isinstance(name, str)) or None
    request = Request(str(model), str(source), names, threads, thresholds, source_options)
    has_golden, advance = pair.document.golden is not None, progress or (lambda *_: None)
    other_cpus = check_on_cpus(cpus, request, images, has_golden=has_golden, progress=advance)
    at, counts = _threshold_pairs(pair, own), count_images(finished, sources, len(pixels))
    with OpenRuntimes(pair, threads, record=layers) as opened:
        inputs = CheckInputs(
            pair, images, pixels, placements, at, opened, counts, are_named=runtimes is not None, progress=advance
        )
        runs = run_all(inputs, finished, sources)
        runs = replace(runs, missing=[*suggest_runtimes(finished), *runs.missing])
        result = replace(_judge(inputs, runs, _names_of(images), tolerance), other_cpus=other_cpus)
        return with_layers(result, pair, pixels, opened) if layers else result


def _names_of(images: Sequence[Photograph]) -> tuple[str, ...]:
    numbered = enumerate(images, start=1)
    return tuple(image_names([f"<array {i}>" if isinstance(p, np.ndarray) else image_name(p) for i, p in numbered]))


def _threshold_pairs(pair: OpenedPair, own: Thresholds) -> tuple[Thresholds, ...]:
    """The pairs at which boxes are asked for: those in use, and a score threshold low enough for many boxes."""
    spec = pair.document.spec
    if not spec.gives_boxes or pair.document.freeze_thresholds or own.score <= LOW_SCORE:
        return (own,)
    return (own, replace(own, score=LOW_SCORE, iou=spec.thresholds.iou))


def _judge(inputs: CheckInputs, ran: AllRuns, names: Sequence[str], tolerance: Tolerance | None) -> CheckResult:
    pair, runs = inputs.pair, ran.of_model
    static, proven = check_static(pair)
    heads = _compare_heads(pair, ran)
    exact = spread.judge_exact(heads.exact, heads.not_exact, heads.unit)
    exact = tolerate_heads(exact, heads.exact.values(), tolerance)
    apart = _judge_spread(inputs, ran, heads, tolerance)
    exact, apart = (_with_diagnosis(inputs, part, runs, heads.witness) for part in (exact, apart))
    verdicts = judge_runs(runs, ran.of_probes, pair.document.spec)
    boxes = judge_heads(verdicts, gives_boxes=pair.document.spec.gives_boxes, has_thresholds=pair.has_thresholds)
    if ran.faults:
        boxes = replace(boxes, status="failed", findings=(*boxes.findings, *ran.faults))
    changes: list[DetectionChange] = []
    deviations: list[KnownDeviation] = []
    if heads.witness is not None and pair.document.spec.gives_boxes:
        for run in runs:
            how = _how_boxes_compare(inputs, heads, heads.witness, run, names)
            changes += find_changes(heads.witness, run, how)
            deviations += [] if tolerance is None else [find_deviation(heads.witness, run, how)]
    return CheckResult(
        model=pair.file.path.name,
        model_sha256=hash_model(pair.file.data),
        source=pair.source.path.name,
        source_sha256=pair.source_sha256,
        images=tuple(names),
        unit=heads.unit,
        thresholds=inputs.thresholds[0],
        parts=(static, exact, apart, judge_boxes(boxes, deviations, tolerance)),
        runs=tuple(_line(run, ran, heads, verdicts) for run in runs),
        source_runs=tuple(run.name for run in heads.all_sources),
        source_images=tuple(len(run.heads) for run in heads.all_sources),
        yardstick=spread.own_spread(heads.sources, heads.step),
        allowed_max=None if heads.limits is None else heads.limits[0],
        allowed_mean=None if heads.limits is None else heads.limits[1],
        changes=tuple(changes),
        proven=proven,
        missing=tuple(ran.missing),
        versions=installed_versions("numpy"),
        uncompared=uncompared(pair),
        tolerance=tolerance,
        deviations=tuple(deviations),
        output_uncompared=heads.uncompared,
    )


@dataclass(frozen=True, eq=False)
class _Heads:
    """The raw heads of the model's runs beside those of the source's."""

    all_sources: Sequence[Run]  # the source's runs
    sources: Sequence[Run]  # those of them that saw all photographs
    step: Step | None  # of the source's head; None for floats
    exact: Mapping[str, HeadDistance]  # what must be equal: the distance by run, or why nothing must be
    not_exact: str | None
    near: Mapping[str, HeadDistance | None]  # by run, the distance from the nearest of the source's
    limits: tuple[float, float] | None  # the most (max, mean) that the others may be off; None without a yardstick
    uncompared: str | None  # why source and model do not compute the same numbers; None where they do

    @property
    def unit(self) -> str:
        """Of all distances."""
        return "LSB" if self.step is not None else "of the largest value"

    @property
    def witness(self) -> Run | None:
        """The source's run whose boxes are the source's."""
        xnnpack = next((run for run in self.sources if run.name == spread.XNNPACK), None)
        return xnnpack or (self.sources[0] if self.sources else None)


def _compare_heads(pair: OpenedPair, ran: AllRuns) -> _Heads:
    document, graph = pair.document, pair.origin.graph
    other = _other_numbers(pair)
    all_sources = ran.of_source if other is None else []
    sources = spread.on_most_images(all_sources)
    step = None if graph is None else graph.head_step(document.spec.network_outputs)
    exact: Mapping[str, HeadDistance] = {}
    if document.float16 or document.dequantize:
        not_exact: str | None = HALF_NOT_EXACT if document.float16 else NOT_EXACT
    elif pair.origin.nodes is not None:
        exact, not_exact = spread.same_kernels(ran.of_model, sources)
    else:
        not_exact = why_not_exact(document, graph)
        xnnpack = next((run for run in sources if run.name == spread.XNNPACK), None)
        if not_exact is None and xnnpack is not None:
            exact = {run.name: spread.distance(run, xnnpack, step) for run in ran.of_model if run.exact}
    limits = None if pair.no_yardstick or document.dequantize else spread.allowed(all_sources, step)
    if (half := half_bound(pair)) is not None and limits is not None:
        limits = half, half
    near = {run.name: spread.nearest(run, sources, step) for run in ran.of_model}
    return _Heads(all_sources, sources, step, exact, not_exact, near, limits, other)


def _other_numbers(pair: OpenedPair) -> str | None:
    """Why the heads of source and model are not the same numbers: one of them alone rounds its activations."""
    if pair.origin.rounds_at_run_time:
        return (
            "LiteRT rounds this source's float activations to 8 bits at run time, image by image, and the model does "
            "not: compare accuracy with xdet eval"
        )
    if pair.origin.graph is not None or pair.origin.nodes is not None or pair.document.activations == "float32":
        return None
    return "the model was quantised at conversion: its head is not its float source's; compare accuracy with xdet eval"


def _judge_spread(inputs: CheckInputs, ran: AllRuns, heads: _Heads, tolerance: Tolerance | None) -> PartVerdict:
    pair, runs = inputs.pair, ran.of_model
    if pair.document.dequantize:
        return judge_unrounded(pair, inputs.pixels, runs, heads.near, inputs.runtimes)
    reason = heads.uncompared or pair.no_yardstick or _no_yardstick(inputs.runtimes, ran.missing)
    distances = [d for name, d in heads.near.items() if d is not None and name not in heads.exact]
    limits = heads.limits if runs else None
    part = spread.judge_spread(distances, limits, heads.unit, reason if runs else NOTHING_RAN)
    return tolerate_heads(part, distances, tolerance)


def _no_yardstick(runtimes: OpenRuntimes, missing: Sequence[MissingRuntime]) -> str:
    name = str(runtimes.witness.runtime)
    kernels = [f"{name}:{provider}" for provider in RUNTIMES[name].checked]
    if len(kernels) < 2:
        return f"{name} gave no result, so there is nothing to compare with"
    message = f"fewer than two of {name}'s kernels ran, so there is no yardstick"
    if any(runtime.name.startswith(f"{name}:") for runtime in missing):
        return message  # each reason is told behind the name of its runtime
    return f"{message}; name two of {', '.join(kernels[:-1])} and {kernels[-1]}, or none"


def _with_diagnosis(inputs: CheckInputs, part: PartVerdict, runs: Sequence[Run], witness: Run | None) -> PartVerdict:
    """The verdict with what the distances can be blamed on."""
    by_name = {run.name: run for run in runs}
    more: list[Finding] = []
    for finding in part.findings:
        run = by_name.get(finding.runtime or "")
        if run is not None and witness is not None:
            accused = Accused(run, witness, part.part)
            more += diagnose_head(inputs.pair, inputs.pixels, accused, inputs.runtimes)
    return replace(part, findings=(*part.findings, *more))


def _how_boxes_compare(
    inputs: CheckInputs, heads: _Heads, witness: Run, run: Run, names: Sequence[str]
) -> BoxComparison:
    largest = max(float(np.abs(witness.heads).max()), 1e-30)
    unit = largest if heads.step is None else float(np.max(heads.step)) or largest
    room = 0.0 if run.name in heads.exact else (heads.limits or (np.inf, np.inf))[0]
    return BoxComparison(inputs.pair.document.spec, inputs.thresholds[0], unit, room, names, inputs.placements)


def _line(run: Run, ran: AllRuns, heads: _Heads, verdicts: HeadVerdicts) -> RuntimeLine:
    verdict, probes = verdicts.photographs.get(run.name), verdicts.probes.get(run.name)
    near, any_size = heads.near[run.name], ran.any_size.get(run.name)
    bars: tuple[HistogramBar, ...] = ()
    if near is not None:
        bars = spread.histogram(run, next(source for source in heads.sources if source.name == near.second), heads.step)
    return RuntimeLine(
        name=run.name,
        images=len(run.heads),
        must_be_exact=run.name in heads.exact,
        nearest=near,
        head_equal=None if verdict is None else verdicts.follows(run.name),
        notes=(*verdicts.notes(run.name), *([] if any_size is None else [any_size.note])),
        histogram=bars,
        probes=None if probes is None else probes.heads,
        probes_followed=None if probes is None else probes.followed,
    )
