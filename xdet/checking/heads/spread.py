"""Parts (b) exact and (c) spread: distances between raw heads, in quantisation steps (LSB) of the source's head.

LiteRT is not one reference: its kernels disagree with each other on int8 models. Their own disagreement is the
yardstick: any other runtime may be as far from the nearest LiteRT kernel as two LiteRT kernels are from each other, in
the largest and in the mean difference. Where the conversion promises LiteRT XNNPACK's bits, nothing may differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from converters.files import FINISHED
from converters.sources.tflite.operators import case_of
from xdet.checking.result import Finding, HeadDistance, HistogramBar, PartVerdict
from xdet.runtimes.table import usual_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.spec import ModelDocument
    from xdet.checking.numbers.tflite_source import SourceGraph
    from xdet.checking.pair import OpenedPair
    from xdet.checking.runs import Run

    Step = float | NDArray[np.float64]  # one, or one per value of a head that joins several outputs

# For networks on which LiteRT's kernels agree: one code, on one value in a hundred, is what the last rounding may do.
LEAST_MAX, LEAST_MEAN = 1.0, 0.01
# Where the bars of a histogram end: whole codes, and decades of the largest value.
LSB_BARS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, np.inf)
FLOAT_BARS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, np.inf)
HALF_NOT_EXACT = "no pair is declared exact: the model rounds to float16, and the source does not"
NOT_EXACT = "no pair is declared exact: the source rounds every activation, and the model none (--dequantize)"
FLOAT_BOUND = 1e-4  # of the head's largest magnitude: float32 sums of up to 9216 products, in another order


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """The raw heads of the model's runs beside those of the source's."""

    all_sources: Sequence[Run]  # the source's runs
    sources: Sequence[Run]  # those of them that saw all photographs
    usual: Run | None  # that of them on the usual runtime and kernels of its format
    step: Step | None  # of the source's head; None for floats
    exact: Mapping[str, HeadDistance]  # what must be equal: the distance by run
    not_exact: str | None  # why nothing must be
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
        return self.usual or next(iter(self.sources), None)


def compare_heads(pair: OpenedPair, of_model: Sequence[Run], of_source: Sequence[Run]) -> HeadComparison:
    """Measure every run of the model against those of the source."""
    document, graph, other = pair.document, pair.origin.graph, _other_numbers(pair)
    all_sources = of_source if other is None else []
    sources = on_most_images(all_sources)
    usual = _named(sources, usual_runtime(pair.source.format).name)
    step = None if graph is None else graph.head_step(document.spec.network_outputs)
    exact: Mapping[str, HeadDistance] = {}
    if document.float16 or document.dequantize:
        not_exact: str | None = HALF_NOT_EXACT if document.float16 else NOT_EXACT
    elif pair.origin.nodes is not None:
        exact, not_exact = same_kernels(of_model, usual)
    else:
        not_exact = why_not_exact(document, graph)
        if not_exact is None and usual is not None:
            exact = {run.name: distance(run, usual, step) for run in of_model if run.exact}
    limits = None if pair.no_yardstick or document.dequantize else allowed(all_sources, step)
    if (half := half_bound(pair)) is not None and limits is not None:
        limits = half, half
    near = {run.name: nearest(run, sources, step) for run in of_model}
    return HeadComparison(all_sources, sources, usual, step, exact, not_exact, near, limits, other)


def _named(runs: Sequence[Run], name: str) -> Run | None:
    return next((run for run in runs if run.name == name), None)


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


def half_bound(pair: OpenedPair) -> float | None:
    """How far the head of a float16 model may be, as a fraction of its largest value; None for others.

    Each operator rounds to 11 bits, weights and result, by up to 2^-10 together; such roundings add up like noise.
    """
    if not pair.document.float16:
        return None
    return 2.0**-10 * math.sqrt(max(len(pair.half_values), 1))


def distance(first: Run, second: Run, step: Step | None) -> HeadDistance:
    """How far two runs are from each other on the images that both have seen.

    ``step`` is the scale of the source's head, one per value where its outputs differ; None for float heads, whose unit
    is the largest magnitude of ``second``.
    """
    a, b, unit = _on_common_images(first, second, step)
    steps = steps_between(a, b, unit)
    worst, mean = float(steps.max(initial=0)), float(steps.mean()) if steps.size else 0.0
    return HeadDistance(first.name, second.name, int((a != b).sum()), a.size, worst, mean)


def histogram(first: Run, second: Run, step: Step | None) -> tuple[HistogramBar, ...]:
    """How many head values are how far apart, as ``distance`` measures them; every value is in one bar."""
    steps = steps_between(*_on_common_images(first, second, step))
    ends = LSB_BARS if step is not None else FLOAT_BARS
    bars = np.searchsorted(np.array(ends), steps.ravel(), side="left")
    counts = np.bincount(bars, minlength=len(ends))
    return tuple(HistogramBar(float(end), int(count)) for end, count in zip(ends, counts, strict=True))


def _on_common_images(
    first: Run, second: Run, step: Step | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], Step]:
    """Both heads of the images that both have seen, and the unit of their distances."""
    count = min(len(first.heads), len(second.heads))
    a, b = first.heads[:count], second.heads[:count]
    largest = max(float(np.abs(b).max(initial=0)), float(np.finfo(np.float32).tiny))
    return a, b, step if step is not None and np.all(step) else largest


def steps_between(first: NDArray[np.float32], second: NDArray[np.float32], unit: Step) -> NDArray[np.float64]:
    """Absolute differences in ``unit``, to 1/1024 where they lie on the lattice of codes; NaN is infinitely far."""
    steps = np.abs(first.astype(np.float64) - second.astype(np.float64)) / unit
    whole = np.rint(steps)
    near = np.where(np.abs(steps - whole) < 2.0**-10, whole, steps) if np.all(np.greater(unit, 0)) else steps
    return np.where(np.isnan(steps), np.inf, np.where(whole > 0, near, steps))


def nearest(run: Run, sources: Sequence[Run], step: Step | None) -> HeadDistance | None:
    """The distance to the source run that is nearest by the mean, then the largest difference."""
    distances = [distance(run, source, step) for source in sources]
    return min(distances, key=lambda d: (d.mean_steps, d.max_steps), default=None)


def on_most_images(runs: Sequence[Run]) -> list[Run]:
    """The runs without those of slow runtimes, which saw few of the images: a nearest one must have seen them all."""
    most = max((len(run.heads) for run in runs), default=0)
    return [run for run in runs if len(run.heads) == most]


def own_spread(sources: Sequence[Run], step: Step | None) -> HeadDistance | None:
    """The two source runs that are furthest from each other by the mean; None with fewer than two."""
    distances = [distance(a, b, step) for a, b in combinations(sources, 2)]
    return max(distances, key=lambda d: (d.mean_steps, d.max_steps), default=None)


def allowed(sources: Sequence[Run], step: Step | None) -> tuple[float, float] | None:
    """The most (max, mean) that part spread allows; None where there is no yardstick.

    Where a slow runtime saw few of the images, its largest difference counts, which more images could only raise, and
    its mean does not, since each image has its own.
    """
    if step is None:
        return (FLOAT_BOUND, FLOAT_BOUND) if sources else None
    widest = own_spread(on_most_images(sources), step)
    if widest is None:
        return None
    largest = (distance(a, b, step).max_steps for a, b in combinations(sources, 2))
    return max(LEAST_MAX, *largest), max(LEAST_MEAN, widest.mean_steps)


def why_not_exact(document: ModelDocument, source: SourceGraph | None) -> str | None:
    """Why ONNX Runtime's heads need not equal XNNPACK's; None where they must."""
    if source is None or document.activations == "float32":
        return "no pair is declared exact: the source has no integers to reproduce"
    if document.is_taken_over:
        return "no pair is declared exact: tf2onnx wrote the graph, which follows the real functions"
    if document.leaky_relu != "litert":
        return "no pair is declared exact: converted with --leaky-relu float, which follows the real functions"
    if document.arithmetic != "litert":
        return "no pair is declared exact: converted with --arithmetic fused, which leaves some operators 1 LSB away"
    blocked = sorted(set(_inexact(source)))
    if blocked:
        return f"no pair is declared exact: {', '.join(blocked)} may differ, mostly by 1 LSB (docs/operators.md)"
    return None


def _inexact(source: SourceGraph) -> Iterator[str]:
    for op in source.model.operators:
        if all(source.model.tensors[i].dtype in ("int32", "int64") for i in op.outputs):
            continue  # arithmetic on shapes, done at conversion
        case = case_of(source.model, op)
        if case is None or case.bound_lsb:
            yield op.op if case is None or not case.when else f"{op.op} {case.when}"


def same_kernels(runs: Sequence[Run], source: Run | None) -> tuple[dict[str, HeadDistance], str | None]:
    """What must be equal of an ONNX source, whose operators run on the same kernels in both files, or why nothing must.

    ONNX Runtime may still fuse them in another way, since a model has operators in front and behind. Where that shows
    as no more than float32 sums in another order, nothing is declared exact.
    """
    ours = _named(runs, usual_runtime(FINISHED).name)
    if source is None or ours is None:
        return {}, "ONNX Runtime's CPU kernels did not run with both files"
    apart = distance(ours, source, None)
    if not apart.differing or apart.max_steps > FLOAT_BOUND:
        return {ours.name: apart}, None
    message = f"{apart.differing:,} of {apart.values:,} values differ, by up to {apart.max_steps:.4g} of the largest"
    return {}, f"no pair is declared exact: {message}, since ONNX Runtime optimises the two graphs in other ways"


def judge_exact(distances: Mapping[str, HeadDistance], reason: str | None, unit: str = "LSB") -> PartVerdict:
    """Part (b): distances to XNNPACK, or to an ONNX source on the same kernels, unless ``reason`` says why not."""
    compared = list(distances.values())
    if reason is not None or not compared:
        why = reason or "no runtime with exact integer kernels and LiteRT XNNPACK ran together"
        return PartVerdict("exact", "skipped", why)
    findings = []
    for d in (d for d in compared if d.differing):
        message = f"{d.first} differs from {d.second} in {d.differing:,} of {d.values:,} head values, by up to"
        message = f"{message} {d.max_steps:.4g} {unit} (mean {d.mean_steps:.4g}); expected 0"
        findings.append(Finding("exact", "layer", message, runtime=d.first))
    pairs = (f"{d.first} against {d.second}: {d.differing:,} of {d.values:,} values differ" for d in compared)
    return PartVerdict("exact", "failed" if findings else "passed", "; ".join(pairs), tuple(findings))


def judge_spread(
    distances: Sequence[HeadDistance], limits: tuple[float, float] | None, unit: str, reason: str
) -> PartVerdict:
    """Part (c): the distances to the nearest source run, limited by (max, mean); ``reason``: why there is no limit."""
    if limits is None:
        return PartVerdict("spread", "skipped", reason)
    if not distances:
        return PartVerdict("spread", "skipped", "no runtime ran besides those of the exact pairs")
    findings = []
    for d in distances:
        if not (d.max_steps <= limits[0] and d.mean_steps <= limits[1]):
            message = (
                f"{d.first} is up to {d.max_steps:.4g} {unit} (mean {d.mean_steps:.4g}) from {d.second}, the nearest"
            )
            message = f"{message}; allowed are {limits[0]:.4g} (mean {limits[1]:.4g})"
            findings.append(Finding("spread", "layer", message, runtime=d.first))
    least = max(d.max_steps for d in distances), max(d.mean_steps for d in distances)
    message = f"allowed: max {limits[0]:.4g} {unit}, mean {limits[1]:.4g}; the smallest tolerance that passes"
    message = f"{message}: max {least[0]:.4g}, mean {least[1]:.4g}"
    return PartVerdict("spread", "failed" if findings else "passed", message, tuple(findings))
