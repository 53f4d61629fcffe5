"""``xdet.check``: run a finished model and its source side by side, and judge them in four parts.

``check`` reads from top to bottom, and each step is a file: open both (``pair``), choose the runtimes (``runtimes``),
repeat it on other processors (``other_cpus``), run everything (``runs``), put crafted heads to the decoders
(``heads.probes``) and photographs as decoded to a file for any size (``any_size``). ``_judge`` makes the four parts:
*static* (``numbers``), *exact* and *spread* (``heads.spread``), *head* (``heads``); what a tolerance accepts
(``tolerance``), what a distance is blamed on (``blame``), which detections change (``heads.why``). ``layers`` compares
tensor by tensor where that is asked for. The result (``result``) goes to ``report``, ``page`` and ``junit``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.any_size import compare_any_size
from xdet.checking.blame import diagnose_head, judge_unrounded, with_layers
from xdet.checking.heads import judge_heads, judge_runs
from xdet.checking.heads.probes import probe_all
from xdet.checking.heads.spread import compare_heads, histogram, judge_exact, judge_spread, own_spread
from xdet.checking.heads.why import BoxComparison, find_changes, find_deviation
from xdet.checking.numbers import check_static, uncompared
from xdet.checking.other_cpus import CPU_IMAGES, Request, check_on_cpus, require_cpus
from xdet.checking.pair import open_pair
from xdet.checking.result import CheckResult, PartVerdict, RuntimeLine
from xdet.checking.runs import CheckInputs, run_all
from xdet.checking.runtimes import OpenRuntimes, count_images, split_runtimes, with_options
from xdet.checking.tolerance import judge_boxes, tolerate_heads
from xdet.detection.embedded import PHOTOGRAPHS
from xdet.errors import UsageError
from xdet.model.file import hash_model
from xdet.pictures.preparation import Preparation, image_name, prepare_many, stack_pixels
from xdet.runtimes.table import RUNTIMES, installed_versions
from xdet.writing.text import image_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.description.statements import SourceOptions
    from converters.spec import Thresholds
    from xdet.checking.heads import HeadVerdicts
    from xdet.checking.heads.spread import HeadComparison
    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import DetectionChange, HistogramBar, KnownDeviation, MissingRuntime, Tolerance
    from xdet.checking.runs import AllRuns, Run
    from xdet.checking.runtimes import RuntimeOrName
    from xdet.pictures.preparation import Photograph

LOW_SCORE = 0.001
READERS = 2
NOTHING_RAN = "no runtime of the finished model ran"


def check(
    model: str | Path,
    source: str | Path,
    images: Sequence[Photograph] | None = None,
    *,
    runtimes: str | Sequence[RuntimeOrName] | None = None,
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
        images: photographs, files or uint8 RGB arrays, at least one; None are the two that come with xdet.
        runtimes: names as ``--runtimes`` takes them, in one text or one by one, or open ``Runtime`` objects; None: ONNX
            Runtime's CPU kernels, OpenVINO if installed, and every runtime of the source, which run, too, where none is
            named.
        threads: threads inside an operator; None is each runtime's default.
        thresholds: at which detections are compared; None takes the model's own.
        source_options: what the caller says of the source beside its sidecar (``xdet.describing_options``).
        layers: compare every tensor of the source with its twin, too, on the first two photographs, and tell what ONNX
            Runtime runs on integers.
        cpus: other processors, emulated (``xdet.checking.other_cpus``): self-test and check of the first two
            photographs there count like the parts.
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
    images = PHOTOGRAPHS if images is None else images
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
    finished, sources = split_runtimes(runtimes, pair.source.format, threads)
    finished = with_options(finished, provider_options or {}, device)
    named = runtimes.split(",") if isinstance(runtimes, str) else runtimes or ()
    names = tuple(name for name in named if isinstance(name, str)) or None
    request = Request(str(model), str(source), names, threads, thresholds, source_options)
    has_golden, advance = pair.document.golden is not None, progress or (lambda *_: None)
    other_cpus = check_on_cpus(cpus, request, images, has_golden=has_golden, progress=advance)
    with OpenRuntimes(pair, threads, record=layers) as opened:
        inputs = CheckInputs(
            pair=pair,
            photographs=images,
            pixels=stack_pixels(prepared),
            placements=[image.placement for image in prepared],
            names=_names_of(images),
            thresholds=_threshold_pairs(pair, thresholds or pair.document.spec.thresholds),
            runtimes=opened,
            counts=count_images(finished, sources, len(images)),
            are_named=runtimes is not None,
            progress=advance,
        )
        runs = run_all(inputs, finished, sources)
        probed, any_size = probe_all(inputs, runs), compare_any_size(inputs, runs)
        result = _judge(inputs, runs, probed, any_size, tolerance)
        result = replace(result, other_cpus=other_cpus)
        return with_layers(result, pair, inputs.pixels, opened) if layers else result


def planned_images(
    runtimes: str | Sequence[RuntimeOrName] | None, source_format: str | None, images: int, cpus: Sequence[str] = ()
) -> int:
    """How many images all runtimes together, and other processors, will be given: the length of a progress bar."""
    finished, sources = split_runtimes(runtimes, source_format, None)
    counts = count_images(finished, sources, images)
    return sum(counts[runtime.name] for runtime in (*finished, *sources)) + len(cpus) * min(images, CPU_IMAGES)


def _names_of(images: Sequence[Photograph]) -> tuple[str, ...]:
    numbered = enumerate(images, start=1)
    return tuple(image_names([f"<array {i}>" if isinstance(p, np.ndarray) else image_name(p) for i, p in numbered]))


def _threshold_pairs(pair: OpenedPair, own: Thresholds) -> tuple[Thresholds, ...]:
    """The pairs at which boxes are asked for: those in use, and a score threshold low enough for many boxes."""
    spec = pair.document.spec
    if not spec.gives_boxes or pair.document.freeze_thresholds or own.score <= LOW_SCORE:
        return (own,)
    return (own, replace(own, score=LOW_SCORE, iou=spec.thresholds.iou))


def _judge(
    inputs: CheckInputs, runs: AllRuns, probed: Sequence[Run], any_size: Mapping[str, str], tolerance: Tolerance | None
) -> CheckResult:
    """The four parts, and what tells more of them."""
    pair, spec = inputs.pair, inputs.pair.document.spec
    static, proven = check_static(pair)
    heads = compare_heads(pair, runs.of_model, runs.of_source)
    exact = judge_exact(heads.exact, heads.not_exact, heads.unit)
    exact = _with_diagnosis(inputs, tolerate_heads(exact, heads.exact.values(), tolerance), runs, heads)
    spread = _with_diagnosis(inputs, _judge_spread(inputs, runs, heads, tolerance), runs, heads)
    verdicts = judge_runs(runs.of_model, probed, spec)
    head = judge_heads(verdicts, gives_boxes=spec.gives_boxes, has_thresholds=pair.has_thresholds)
    if runs.gaps.faults:
        head = replace(head, status="failed", findings=(*head.findings, *runs.gaps.faults))
    changes: list[DetectionChange] = []
    deviations: list[KnownDeviation] = []
    if heads.witness is not None and spec.gives_boxes:
        for run in runs.of_model:
            how = _how_boxes_compare(inputs, heads, heads.witness, run)
            changes += find_changes(heads.witness, run, how)
            deviations += [] if tolerance is None else [find_deviation(heads.witness, run, how)]
    return CheckResult(
        model=pair.file.path.name,
        model_sha256=hash_model(pair.file.data),
        source=pair.source.path.name,
        source_sha256=pair.source_sha256,
        images=inputs.names,
        unit=heads.unit,
        thresholds=inputs.thresholds[0],
        parts=(static, exact, spread, judge_boxes(head, deviations, tolerance)),
        runs=tuple(_line(run, heads, verdicts, any_size.get(run.name)) for run in runs.of_model),
        source_runs=tuple(run.name for run in heads.all_sources),
        source_images=tuple(len(run.heads) for run in heads.all_sources),
        yardstick=own_spread(heads.sources, heads.step),
        allowed_max=None if heads.limits is None else heads.limits[0],
        allowed_mean=None if heads.limits is None else heads.limits[1],
        changes=tuple(changes),
        proven=proven,
        missing=tuple(runs.gaps.missing),
        versions=installed_versions("numpy"),
        uncompared=uncompared(pair),
        tolerance=tolerance,
        deviations=tuple(deviations),
        output_uncompared=heads.uncompared,
    )


def _judge_spread(
    inputs: CheckInputs, runs: AllRuns, heads: HeadComparison, tolerance: Tolerance | None
) -> PartVerdict:
    if inputs.pair.document.dequantize:
        return judge_unrounded(inputs, runs.of_model, heads.near)
    distances = [d for name, d in heads.near.items() if d is not None and name not in heads.exact]
    if runs.of_model:
        reason = heads.uncompared or inputs.pair.no_yardstick or _no_yardstick(inputs.runtimes, runs.gaps.missing)
        part = judge_spread(distances, heads.limits, heads.unit, reason)
    else:
        part = PartVerdict("spread", "skipped", NOTHING_RAN)
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


def _with_diagnosis(inputs: CheckInputs, part: PartVerdict, runs: AllRuns, heads: HeadComparison) -> PartVerdict:
    """The verdict with what the distances can be blamed on."""
    by_name, findings = {run.name: run for run in runs.of_model}, list(part.findings)
    for finding in part.findings:
        run = by_name.get(finding.runtime or "")
        if run is not None and heads.witness is not None:
            findings += diagnose_head(inputs, run, heads.witness, part.part)
    return replace(part, findings=tuple(findings))


def _how_boxes_compare(inputs: CheckInputs, heads: HeadComparison, witness: Run, run: Run) -> BoxComparison:
    largest = max(float(np.abs(witness.heads).max()), 1e-30)
    unit = largest if heads.step is None else float(np.max(heads.step)) or largest
    room = 0.0 if run.name in heads.exact else (heads.limits or (np.inf, np.inf))[0]
    spec = inputs.pair.document.spec
    return BoxComparison(spec, inputs.thresholds[0], unit, room, inputs.names, inputs.placements)


def _line(run: Run, heads: HeadComparison, verdicts: HeadVerdicts, any_size: str | None) -> RuntimeLine:
    verdict, probes, near = verdicts.photographs.get(run.name), verdicts.probes.get(run.name), heads.near[run.name]
    bars: tuple[HistogramBar, ...] = ()
    if near is not None:
        bars = histogram(run, next(source for source in heads.sources if source.name == near.second), heads.step)
    return RuntimeLine(
        name=run.name,
        images=len(run.heads),
        must_be_exact=run.name in heads.exact,
        nearest=near,
        head_equal=None if verdict is None else not verdicts.faults(run.name),
        notes=(*verdicts.notes(run.name), *([] if any_size is None else [any_size])),
        histogram=bars,
        probes=None if probes is None else probes.heads,
        probes_followed=None if probes is None else probes.followed,
    )
