"""``xdet.check``: run a finished model and its source side by side, and judge them in four parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdet.checking.all_runs import Inputs, run_all
from xdet.checking.blame import Accused, diagnose_head, with_layers
from xdet.checking.heads import HeadVerdicts, judge_heads, judge_runs
from xdet.checking.heads.spread import (
    XNNPACK,
    allowed,
    distance,
    histogram,
    judge_exact,
    judge_spread,
    nearest,
    on_most_images,
    own_spread,
    same_kernels,
)
from xdet.checking.heads.why import Comparison, find_changes, find_deviation
from xdet.checking.numbers import check_static
from xdet.checking.numbers.description import uncompared
from xdet.checking.numbers.proofs import why_not_exact
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
    from xdet.checking.any_size import AnySize
    from xdet.checking.heads.spread import Step
    from xdet.checking.pair import OpenedPair
    from xdet.checking.result import (
        DetectionChange,
        Deviation,
        HeadDistance,
        HistogramBar,
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
    chosen = tuple(name for name in named if isinstance(name, str)) or None
    asked = Request(str(model), str(source), chosen, threads, thresholds, source_options)
    has_golden, advance = pair.document.golden is not None, progress or (lambda *_: None)
    columns = check_on_cpus(cpus, asked, images, has_golden=has_golden, progress=advance)
    names = image_names(
        [
            f"<array {number}>" if isinstance(image, np.ndarray) else image_name(image)
            for number, image in enumerate(images, start=1)
        ]
    )
    counts = count_images(finished, sources, len(pixels))
    at = _threshold_pairs(pair, own)
    with OpenRuntimes(pair, threads, record=layers) as opened:
        inputs = Inputs(
            pair, images, pixels, placements, at, opened, counts, are_named=runtimes is not None, progress=advance
        )
        runs = run_all(inputs, finished, sources)
        runs = replace(runs, missing=[*suggest_runtimes(finished), *runs.missing])
        result = replace(_judge(inputs, runs, names, tolerance), other_cpus=columns)
        return with_layers(result, pair, pixels, opened) if layers else result


def _threshold_pairs(pair: OpenedPair, own: Thresholds) -> tuple[Thresholds, ...]:
    """The pairs at which boxes are asked for: those in use, and a score threshold low enough for many boxes."""
    spec = pair.document.spec
    if not spec.gives_boxes or pair.document.freeze_thresholds or own.score <= LOW_SCORE:
        return (own,)
    return (own, replace(own, score=LOW_SCORE, iou=spec.thresholds.iou))


def _judge(inputs: Inputs, all_runs: AllRuns, names: Sequence[str], tolerance: Tolerance | None) -> CheckResult:
    pair, own = inputs.pair, inputs.thresholds[0]
    runs = all_runs.of_model
    static, proven = check_static(pair)
    source = pair.origin.graph
    step = None if source is None else source.head_step(pair.document.spec.network_outputs)
    reason = NOT_EXACT if pair.document.dequantize else why_not_exact(pair.document, pair.origin.graph)
    comparable = _comparable(pair)
    all_sources = all_runs.of_source if comparable else []
    sources = on_most_images(all_sources)
    exact_runs = [run for run in runs if run.exact and reason is None]
    xnnpack = next((run for run in sources if run.name == XNNPACK), None)
    to_xnnpack = {run.name: distance(run, xnnpack, step) for run in exact_runs} if xnnpack else {}
    if pair.origin.nodes is not None and not pair.document.dequantize:
        exact_runs, to_xnnpack, reason = same_kernels(runs, sources)
    if pair.document.float16:
        exact_runs, to_xnnpack, reason = [], {}, HALF_NOT_EXACT
    near = {run.name: nearest(run, sources, step) for run in runs}
    limits = None if pair.no_yardstick or pair.document.dequantize else allowed(all_sources, step)
    if (half := half_bound(pair)) is not None and limits is not None:
        limits = half, half
    spread_of = [d for name, d in near.items() if d is not None and name not in to_xnnpack]
    unit = "LSB" if step is not None else "of the largest value"
    exact = judge_exact(exact_runs, to_xnnpack, reason, unit)
    exact = tolerate_heads(exact, to_xnnpack.values(), tolerance)
    apart = None if comparable else _other_numbers(pair)
    skipped = (apart or pair.no_yardstick or _no_yardstick(inputs.runtimes, all_runs.missing)) if runs else NOTHING_RAN
    if pair.document.dequantize:
        spread = judge_unrounded(pair, inputs.pixels, runs, near, inputs.runtimes)
    else:
        spread = judge_spread(spread_of, limits if runs else None, unit, skipped)
        spread = tolerate_heads(spread, spread_of, tolerance)
    witness = xnnpack or (sources[0] if sources else None)
    exact, spread = (_with_diagnosis(inputs, part, runs, witness) for part in (exact, spread))
    heads, gives_boxes = (judge_runs(runs, all_runs.of_probes, pair.document.spec), pair.document.spec.gives_boxes)
    boxes = judge_heads(heads, gives_boxes=gives_boxes, has_thresholds=pair.has_thresholds)
    if all_runs.faults:
        boxes = replace(boxes, status="failed", findings=(*boxes.findings, *all_runs.faults))
    changes: list[DetectionChange] = []
    deviations: list[Deviation] = []
    if witness is not None and gives_boxes:
        largest = max(float(np.abs(witness.heads).max()), 1e-30)
        unit_value = largest if step is None else float(np.max(step)) or largest
        for run in runs:
            room = 0.0 if run.name in to_xnnpack else (limits or (np.inf, np.inf))[0]
            how = Comparison(pair.document.spec, own, unit_value, room, names, inputs.placements)
            changes += find_changes(witness, run, how)
            deviations += [] if tolerance is None else [find_deviation(witness, run, how)]
    boxes = judge_boxes(boxes, deviations, tolerance)
    return CheckResult(
        model=pair.file.path.name,
        model_sha256=hash_model(pair.file.data),
        source=pair.source.path.name,
        source_sha256=pair.source_sha256,
        images=tuple(names),
        unit=unit,
        thresholds=own,
        parts=(static, exact, spread, boxes),
        runs=tuple(
            _with_note(_line(run, to_xnnpack, near, heads, _bars(run, sources, near, step)), all_runs.any_size)
            for run in runs
        ),
        source_runs=tuple(run.name for run in all_sources),
        source_images=tuple(len(run.heads) for run in all_sources),
        yardstick=own_spread(sources, step),
        allowed_max=None if limits is None else limits[0],
        allowed_mean=None if limits is None else limits[1],
        changes=tuple(changes),
        proven=proven,
        missing=tuple(all_runs.missing),
        versions=installed_versions("numpy"),
        uncompared=uncompared(pair),
        tolerance=tolerance,
        deviations=tuple(deviations),
        output_uncompared=apart,
    )


def _comparable(pair: OpenedPair) -> bool:
    """Whether heads of source and model are the same numbers: not where one of them alone rounds its activations."""
    if pair.origin.graph is not None or pair.origin.nodes is not None:
        return not pair.origin.rounds_at_run_time
    return pair.document.activations == "float32"


def _other_numbers(pair: OpenedPair) -> str:
    """Why the heads of source and model are not the same numbers."""
    if pair.origin.rounds_at_run_time:
        return (
            "LiteRT rounds this source's float activations to 8 bits at run time, image by image, and the model does not: "
            "compare accuracy with xdet eval"
        )
    return "the model was quantised at conversion: its head is not its float source's; compare accuracy with xdet eval"


def _no_yardstick(runtimes: OpenRuntimes, missing: Sequence[MissingRuntime]) -> str:
    name = str(runtimes.witness.runtime)
    kernels = [f"{name}:{provider}" for provider in RUNTIMES[name].checked]
    if len(kernels) < 2:
        return f"{name} gave no result, so there is nothing to compare with"
    told = f"fewer than two of {name}'s kernels ran, so there is no yardstick"
    if any(runtime.name.startswith(f"{name}:") for runtime in missing):
        return told  # each reason is told behind the name of its runtime
    return f"{told}; name two of {', '.join(kernels[:-1])} and {kernels[-1]}, or none"


def _with_diagnosis(inputs: Inputs, part: PartVerdict, runs: Sequence[Run], witness: Run | None) -> PartVerdict:
    """The verdict with what the distances can be blamed on."""
    by_name = {run.name: run for run in runs}
    more: list[Finding] = []
    for finding in part.findings:
        run = by_name.get(finding.runtime or "")
        if run is not None and witness is not None:
            accused = Accused(run, witness, part.part)
            more += diagnose_head(inputs.pair, inputs.pixels, accused, inputs.runtimes)
    return replace(part, findings=(*part.findings, *more))


def _line(
    run: Run,
    exact: dict[str, HeadDistance],
    near: dict[str, HeadDistance | None],
    heads: HeadVerdicts,
    bars: tuple[HistogramBar, ...],
) -> RuntimeLine:
    verdict, probes = heads.photographs.get(run.name), heads.probes.get(run.name)
    return RuntimeLine(
        name=run.name,
        images=len(run.heads),
        must_be_exact=run.name in exact,
        nearest=near[run.name],
        head_equal=None if verdict is None else heads.follows(run.name),
        notes=heads.notes(run.name),
        histogram=bars,
        probes=None if probes is None else probes.heads,
        probes_followed=None if probes is None else probes.followed,
    )


def _with_note(line: RuntimeLine, sized: Mapping[str, AnySize]) -> RuntimeLine:
    """The line of a runtime, with what it did with photographs of any size."""
    found = sized.get(line.name)
    return line if found is None else replace(line, notes=(*line.notes, found.note))


def _bars(
    run: Run, sources: Sequence[Run], near: dict[str, HeadDistance | None], step: Step | None
) -> tuple[HistogramBar, ...]:
    """The histogram of a run's differences from the source run that is nearest."""
    found = near[run.name]
    return () if found is None else histogram(run, next(s for s in sources if s.name == found.second), step)
